-- Which bars changed, transaction by transaction: who trains on bars asks, by a cursor, for what has changed since.
create table assetbatch.bar_changes (
  id         bigint generated always as identity primary key,
  xid        xid8 not null default pg_current_xact_id(),
  symbol     text not null,
  ranges     tstzmultirange not null,
  span       tstzrange not null generated always as (range_merge(ranges)) stored,
  bars       int not null,
  changed_at timestamptz not null default clock_timestamp(),
  made_in    oid not null default 'assetbatch.bar_changes'::regclass::oid
);
create index bar_changes_xid on assetbatch.bar_changes (xid);
comment on table assetbatch.bar_changes is
  'final bars that a page of the vendor''s added or changed, written with them; kept for bars.changes_retention_days';
comment on column assetbatch.bar_changes.xid is
  'the transaction, by its top-level number: it counts for a cursor whose snapshot did not see it';
comment on column assetbatch.bar_changes.ranges is 'exactly these bars: of each, from its open to its end';
comment on column assetbatch.bar_changes.made_in is
  'this table as it was made: in a copy that was restored from a dump, the numbers of its transactions mean nothing';

-- One row: what a cursor has to agree with.
create table assetbatch.bar_cursors (
  is_only           boolean primary key default true check (is_only),
  epoch             uuid not null default gen_random_uuid(),
  forgotten_through xid8,
  forgotten_in      oid
);
insert into assetbatch.bar_cursors default values;
comment on column assetbatch.bar_cursors.epoch is 'another one after `init --restored`: cursors of before are refused';
comment on column assetbatch.bar_cursors.forgotten_through is
  'the newest transaction whose row of bar_changes was dropped for its age: a cursor that did not see it is refused';
comment on column assetbatch.bar_cursors.forgotten_in is 'as bar_changes.made_in';

-- What was said of it does not hold: a page that is committed late has an earlier time than others that were read.
do $$
begin
  if exists (select from assetbatch.meta where key = 'bars') then
    comment on column market_data.ohlcv_5m.fetched_at is
      'moves only when the row changes; what has changed since is told by assetbatch.bar_changes, not by this time';
  end if;
end
$$;
