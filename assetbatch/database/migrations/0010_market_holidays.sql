-- Days on which exchanges rest or close early, as the vendor lists them ahead; all others go by rule.

create table assetbatch.market_holidays (
  day       date primary key,
  closes_at time,
  noted_at  timestamptz not null
);
comment on table assetbatch.market_holidays is 'when NYSE or Nasdaq is not open as usual: what the vendor lists, kept';
comment on column assetbatch.market_holidays.closes_at is 'when the session ends, by the clock of New York; null: none';

create table assetbatch.market_holiday_lists (
  id        int primary key default 1 check (id = 1),
  asked_at  timestamptz,
  listed_at timestamptz
);
comment on table assetbatch.market_holiday_lists is 'when the vendor was last asked for its list, and when it last had one';
insert into assetbatch.market_holiday_lists default values;
