-- Splits of stocks as the vendor lists them, and the bars that are stored as they were before one.
create table assetbatch.splits (
  ticker         text not null,
  execution_date date not null,
  split_from     numeric not null check (split_from > 0),
  split_to       numeric not null check (split_to > 0),
  noted_at       timestamptz not null,
  withdrawn_at   timestamptz,
  executed_at    timestamptz not null generated always as
                   (execution_date::timestamp at time zone 'America/New_York') stored,
  adjusted_from  timestamptz not null,
  is_applied     boolean not null default false,
  primary key (ticker, execution_date)
);
create index splits_to_apply on assetbatch.splits (ticker) where not is_applied;
comment on column assetbatch.splits.split_from is 'so many shares become split_to';
comment on column assetbatch.splits.withdrawn_at is 'when the vendor had taken it off its list, after its day had come';
comment on column assetbatch.splits.executed_at is 'when the day begins in New York: what is older changes';
comment on column assetbatch.splits.adjusted_from is
  'from then on the vendor has the bars before it adjusted, or, where it was withdrawn, no longer: what was fetched earlier is to be fetched again';
comment on column assetbatch.splits.is_applied is
  'what is to be fetched again is noted in unadjusted_bars; till then, from executed_at on, no bars of it are asked for';

-- One row a market: when the list came last, and when it is asked for again, by whoever is first.
create table assetbatch.split_list (
  market    text primary key,
  listed_at timestamptz,
  ask_at    timestamptz not null
);

-- What is to be fetched again, page by page; what has come is taken away in the transaction that stores it.
create table assetbatch.unadjusted_bars (
  symbol        text primary key,
  ranges        tstzmultirange not null,
  adjusted_from timestamptz not null,
  doubted_until timestamptz not null,
  ask_at        timestamptz not null
);
comment on table assetbatch.unadjusted_bars is 'bars that are there as they were before a split: holes until they are fetched again';
comment on column assetbatch.unadjusted_bars.doubted_until is
  'a page that is asked for before, and changes none of them, is of before the vendor adjusted them: it is asked for again';

create index assets_asset_type on assetbatch.assets (asset_type) where enabled;
create index assets_polygon_ticker on assetbatch.assets (polygon_ticker);

-- An asset that comes back may have bars from before a split that nobody looked at them for. With its owner's rights: who
-- adds assets need not know of splits.
create function assetbatch.apply_splits_again() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update assetbatch.splits s set is_applied = false
  from added where s.ticker = added.polygon_ticker and s.is_applied;
  return null;
end
$$;
create trigger apply_splits_again after insert on assetbatch.assets
referencing new table as added for each statement
execute function assetbatch.apply_splits_again();
revoke all on function assetbatch.apply_splits_again from public;
