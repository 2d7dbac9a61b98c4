-- Bars, and what is known about what the vendor has: days, entitlements, bars that do not exist and why.

-- The platform may own the table of the bars already: then it is used as it is.
do $$
declare
  id_type text;
begin
  if to_regnamespace('market_data') is null then
    create schema market_data;
  end if;
  if to_regclass('market_data.ohlcv_5m') is null then
    select format_type(atttypid, atttypmod) into id_type
    from pg_attribute where attrelid = 'trading.symbols'::regclass and attname = 'id';
    execute format(
      'create table market_data.ohlcv_5m (
         symbol_id  %s not null,
         ts         timestamptz not null,
         open       numeric not null,
         high       numeric not null,
         low        numeric not null,
         close      numeric not null,
         volume     numeric not null,
         vwap       numeric,
         trades     int,
         is_final   boolean not null,
         fetched_at timestamptz not null,
         primary key (symbol_id, ts)
       ) %s', id_type,
       case when current_setting('assetbatch.partition_bars', true) = 'on' then 'partition by range (ts)' else '' end);
    comment on column market_data.ohlcv_5m.ts is 'open of the bar; volume, vwap and trades are as the vendor counts them';
    comment on column market_data.ohlcv_5m.is_final is 'fetched after the bar had settled; else it is fetched again';
    comment on column market_data.ohlcv_5m.fetched_at is
      'moves only when the row changes: is_final and fetched_at > X is all that is new or corrected since X';
    insert into assetbatch.meta (key, value)
    values ('bars', case when current_setting('assetbatch.partition_bars', true) = 'on' then 'partitioned' else 'plain' end);
  end if;
end
$$;

-- Creates the months from `since` to three ahead, and drops those before `keep_since`. It runs with its owner's rights,
-- since the jobs' role need not own the table. Other tables than the tool's own partitioned one are left alone.
create function assetbatch.keep_partitions(since timestamptz, keep_since timestamptz) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  month timestamptz := date_trunc('month', greatest(since, keep_since));
  old record;
begin
  if not exists (select from assetbatch.meta where key = 'bars' and value = 'partitioned') then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('assetbatch.keep_partitions', 0));
  while month <= clock_timestamp() + interval '3 months' loop
    if to_regclass(format('market_data.ohlcv_5m_%s', to_char(month, 'YYYYMM'))) is null then
      execute format('create table if not exists market_data.ohlcv_5m_%s partition of market_data.ohlcv_5m for values from (%L) to (%L)',
                     to_char(month, 'YYYYMM'), month, month + interval '1 month');
    end if;
    month := month + interval '1 month';
  end loop;
  for old in
    select c.oid::regclass as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'market_data.ohlcv_5m'::regclass and c.relname ~ '^ohlcv_5m_[0-9]{6}$'
      and to_timestamp(right(c.relname, 6), 'YYYYMM') < date_trunc('month', keep_since)
  loop
    execute format('drop table %s', old.name);
  end loop;
end
$$;
revoke all on function assetbatch.keep_partitions from public;

-- What is known of an asset's bars, but for the bars themselves.
create table assetbatch.bar_state (
  symbol         text primary key,
  wanted_since   timestamptz not null,
  asked_until    timestamptz,
  asked_at       timestamptz,
  rechecked_at   timestamptz,
  watermark      timestamptz,
  source_minutes int not null default 5 check (source_minutes in (1, 5)),
  scanned_at     timestamptz,
  failures       int not null default 0,
  retry_at       timestamptz,
  error_kind     text,
  error          text,
  token          uuid,
  leased_until   timestamptz
);
comment on column assetbatch.bar_state.wanted_since is 'bars are wanted from here on: holes behind it are mended';
comment on column assetbatch.bar_state.asked_until is 'how far the newest bars have been asked for, as far as they were settled';
comment on column assetbatch.bar_state.asked_at is 'when the last call for the newest bars began: decides when they are due again';
comment on column assetbatch.bar_state.watermark is 'open of the newest final bar when bars were last stored';
comment on column assetbatch.bar_state.source_minutes is '1: the vendor has no 5-minute bars of it, they are built from 1-minute bars';
comment on column assetbatch.bar_state.scanned_at is 'when holes were last looked for';
comment on column assetbatch.bar_state.token is 'who asks for its bars just now, until leased_until';

-- Why bars are absent. Where there is no bar and no reason, there is a hole. A row a month, so that a call writes little.
create table assetbatch.bar_absences (
  symbol   text not null,
  reason   text not null check (reason in ('closed', 'nothing', 'failed', 'not_entitled')),
  month    date not null,
  ranges   tstzmultirange not null,
  noted_at timestamptz not null,
  told     text not null default '',
  primary key (symbol, reason, month)
);
comment on table assetbatch.bar_absences is
  'closed: the market rested; nothing: the vendor had none; failed: what it sent was no bar, asked again after a day; not_entitled: not with this plan and key';
comment on column assetbatch.bar_absences.told is 'not_entitled: plan and fingerprint of the key that were told so';

-- What the vendor answered when it was asked for a finished day of a whole market.
create table assetbatch.daily_figures (
  market       text not null check (market in ('forex', 'crypto')),
  day          date not null,
  outcome      text check (outcome in ('stored', 'empty', 'not_yet')),
  times        int not null default 0,
  asked_at     timestamptz,
  token        uuid,
  asking_until timestamptz,
  primary key (market, day)
);
comment on column assetbatch.daily_figures.outcome is 'null: being asked for just now, until asking_until';
comment on column assetbatch.daily_figures.times is 'how often it was asked for: an empty day is asked again ever later';

-- What a key may see on a plan, as far as it was refused, or asked for on purpose.
create table assetbatch.entitlements (
  key_fingerprint text not null,
  plan            text not null,
  access          text not null,
  allowed         boolean not null,
  asked_at        timestamptz not null,
  reason          text not null default '',
  primary key (key_fingerprint, plan, access)
);

-- Which markets the vendor said are open, when it was last asked.
create table assetbatch.market_status (
  market   text primary key check (market in ('forex', 'crypto')),
  is_open  boolean not null,
  asked_at timestamptz not null
);
