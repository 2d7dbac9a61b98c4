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

-- What a finished day brought is older than what is asked for live: it does not count as asked since a market closed.
comment on column assetbatch.sync_state.served_at is
  'as of when the asset was last served: start of the run, or the finished day; decides when it is due with live prices';

-- Gold has holidays of its own: a day that lacks it tells no more than that; the day before tells whether it exists.
alter table assetbatch.sync_state add column missing_since date;
comment on column assetbatch.sync_state.missing_since is
  'the oldest of the finished days, up to the newest one asked for, that all lack the asset; null: the newest one does not';

-- That an asset is asked for and answered says nothing about when it traded last.
alter table assetbatch.sync_state add column priced_at timestamptz;
comment on column assetbatch.sync_state.priced_at is
  'the vendor''s own time of the newest price that it answered with; null: not known';

-- A symbol is part of a channel of NOTIFY, of lines of the log, of names of files. Rows that are there already stay.
alter table assetbatch.assets add constraint assets_symbol_check
  check (not enabled or (octet_length(symbol) between 1 and 50 and symbol !~ '[[:cntrl:]]')) not valid;

-- What the vendor was asked for and had no bar for once: believed when it says so again, an hour later or more.
create table assetbatch.bar_silences (
  id      bigint generated always as identity primary key,
  symbol  text not null,
  told_at timestamptz not null,
  ask_at  timestamptz not null,
  ranges  tstzmultirange not null
);
create index bar_silences_symbol on assetbatch.bar_silences (symbol);
comment on column assetbatch.bar_silences.told_at is 'when the call began that brought no bar';
comment on column assetbatch.bar_silences.ask_at is
  'when it is a hole again, should no call for the newest bars have asked for it in passing';
alter table assetbatch.bar_state add column source_told_at timestamptz;
comment on column assetbatch.bar_state.source_told_at is
  'when the vendor had no 5-minute bars while it had 1-minute bars, as long as it has said so once only';

-- Of a ticker that the vendor does not know, nothing but its price is asked for, until it is served or changed.
create view assetbatch.unknown_tickers as
select symbol, error_kind, error from assetbatch.sync_state
where error_kind = 'unknown_ticker' or (error_kind in ('missing', 'not_found') and succeeded_at is null);

-- What was said of one ticker says nothing of another, whoever changes it.
create function assetbatch.forget_ticker() returns trigger language plpgsql as $$
begin
  update assetbatch.sync_state set error_kind = null, error = null
  where symbol = new.symbol and error_kind is not null;
  update assetbatch.bar_state
  set source_minutes = 5, source_told_at = null, failures = 0, retry_at = null, error_kind = null, error = null
  where symbol = new.symbol;
  delete from assetbatch.bar_absences where symbol = new.symbol and reason <> 'refused';
  delete from assetbatch.bar_silences where symbol = new.symbol;
  return null;
end
$$;
create trigger forget_ticker after update of polygon_ticker on assetbatch.assets
for each row when (old.polygon_ticker is distinct from new.polygon_ticker)
execute function assetbatch.forget_ticker();
