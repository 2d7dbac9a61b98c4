-- Stocks and indices, and what a key may see by what the vendor sells by itself.

-- Hours follow from the type, but for metals, which are forex that keeps hours of its own.
alter table assetbatch.assets
  drop constraint assets_asset_type_check,
  add constraint assets_asset_type_check check (asset_type in ('forex', 'crypto', 'stocks', 'indices')),
  drop column market,
  add column market text not null generated always as (
    case when asset_type = 'forex' and substr(polygon_ticker, 3, 3) in ('XAU', 'XAG', 'XPT', 'XPD') then 'metals'
         else asset_type end
  ) stored;
comment on column assetbatch.assets.market is 'at which hours it trades';

alter table assetbatch.daily_figures drop constraint daily_figures_market_check,
  add constraint daily_figures_market_check check (market in ('forex', 'crypto', 'stocks', 'indices'));
alter table assetbatch.market_status drop constraint market_status_market_check,
  add constraint market_status_market_check check (market in ('forex', 'crypto', 'stocks', 'indices'));

-- Indices are refused by ticker: a plan has some of them.
alter table assetbatch.entitlements
  add column product text not null default 'currencies' check (product in ('currencies', 'stocks', 'indices')),
  add column ticker text not null default '',
  drop constraint entitlements_pkey,
  add primary key (key_fingerprint, plan, product, access, ticker);
comment on column assetbatch.entitlements.product is 'what the vendor sells by itself, with plans of its own';
comment on column assetbatch.entitlements.ticker is 'of which ticker alone this was said; empty: of all';

-- Indices have no volume. A table of the platform's is left as it is: `init` says what it needs.
do $$
begin
  if exists (select from assetbatch.meta where key = 'bars') then
    alter table market_data.ohlcv_5m alter column volume drop not null;
  end if;
end
$$;

-- Calls for what is sold without limit take no slot beside those that are limited.
alter table assetbatch.rate_limits
  add column exempt_by timestamptz not null default 'epoch',
  add column exempts text[] not null default '{}';
comment on column assetbatch.rate_limits.exempts is 'products whose calls were made without a slot';
comment on column assetbatch.rate_limits.exempt_by is 'calls without a slot, of exempt products, were counted by then';
alter table assetbatch.rate_limit_hosts add column exempts text[] not null default '{}';
comment on column assetbatch.rate_limit_hosts.exempts is 'products without limit, as this host has it';
-- One with two more parameters takes its place, and does for programs that give none.
drop function if exists assetbatch.acquire_slot(
  text, text, int, float8, float8, float8, float8, float8, text, bigint, float8, int, int, uuid
);
drop function if exists assetbatch.apply_rules(
  assetbatch.rate_limits, text, int, interval, interval, interval, timestamptz
);
