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

-- What it calls is bound now, whatever search_path it is called with; and still it is inlined.
create function assetbatch.run_of(token uuid) returns bigint language sql immutable parallel safe
return ('x' || left(replace(token::text, '-', ''), 16))::bit(64)::bigint;
comment on function assetbatch.run_of is 'the run that holds something by this token; of a random token, none';

-- Bars that the platform's table did not take, so that it can be told how many of whose wait for its owner.
alter table assetbatch.bar_absences
  drop constraint bar_absences_reason_check,
  add constraint bar_absences_reason_check
    check (reason in ('closed', 'nothing', 'failed', 'refused', 'not_entitled'));
create index bar_absences_refused on assetbatch.bar_absences (symbol) where reason = 'refused';
comment on table assetbatch.bar_absences is
  'closed: the market rested; nothing: the vendor had none; failed: what it sent was no bar, asked again after a day; refused: the table did not take it, likewise; not_entitled: not with this plan and key';
comment on column assetbatch.bar_absences.told is
  'not_entitled: plan and fingerprint of the key that were told so; refused: what PostgreSQL said';

-- Who asks names the slot now, so that one is known again whose grant was lost on the way; older programs need not.
drop function if exists assetbatch.acquire_slot(
  text, text, int, float8, float8, float8, float8, float8, text, bigint, float8, int, int
);
