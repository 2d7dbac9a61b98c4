-- A server that took over from another may not have heard of its last grants: it is known by its history.
alter table assetbatch.rate_limits add column history text;
comment on column assetbatch.rate_limits.history is 'assetbatch.history() of the server that last granted a slot; null: not known';

-- Since when an asset is to be kept fresh: one that was never served yet is no trouble in its first hour.
alter table assetbatch.assets add column enabled_at timestamptz not null default clock_timestamp();
comment on column assetbatch.assets.enabled_at is 'when it was added, or enabled again';

-- Which process a run is, so that others on its host see at once when that is gone, and need not wait until what it held
-- runs out. Whatever a run holds (leases, items of the queue, the right to ask for bars or for a day) it holds by a token,
-- and the first half of the token is the run's id. Tokens of older programs are random: what they hold runs out as ever.
alter table assetbatch.runs
  add column place       text,
  add column pid         int,
  add column pid_started bigint,
  add column gone_at     timestamptz;
comment on column assetbatch.runs.place is
  'where pid means something: host, boot and pid namespace; null: not known';
comment on column assetbatch.runs.pid_started is 'ticks since the boot when the process began: tells it from a later one with its pid';
comment on column assetbatch.runs.gone_at is 'when its process was found to be gone, though the run had not ended';

-- Those that may still hold something.
create index runs_running on assetbatch.runs (place) where status = 'running';

create function assetbatch.run_of(token uuid) returns bigint language sql immutable parallel safe as $$
  select ('x' || left(replace(token::text, '-', ''), 16))::bit(64)::bigint
$$;
comment on function assetbatch.run_of is 'the run that holds something by this token; of a random token, none';
