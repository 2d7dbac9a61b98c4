-- What became of tickers that are not traded any more: delisted, renamed, or given to somebody else.

create table assetbatch.ticker_lives (
  symbol      text primary key,
  state       text not null check (state in ('listed', 'delisted', 'renamed', 'unknown')),
  delisted_on date,
  became      text,
  figi        text,
  company     text,
  reused_on   date,
  asked_at    timestamptz not null,
  ask_at      timestamptz not null
);
comment on table assetbatch.ticker_lives is
  'what the vendor''s reference list says of tickers that it had no price of, or did not know';
comment on column assetbatch.ticker_lives.state is
  'listed: traded, whatever it looked like; unknown: in no list, so probably misspelt';
comment on column assetbatch.ticker_lives.delisted_on is 'the last day it was traded on; null: not told';
comment on column assetbatch.ticker_lives.became is 'renamed: the ticker that what was traded has now';
comment on column assetbatch.ticker_lives.figi is 'the composite FIGI of what was, or is, traded under the ticker';
comment on column assetbatch.ticker_lives.company is
  'delisted: the CIK of a company whose other tickers have not been looked at yet, for one that it became';
comment on column assetbatch.ticker_lives.reused_on is
  'when it was seen that the ticker is another one''s than it was: prices and bars of before are of the old one';
comment on column assetbatch.ticker_lives.ask_at is 'when it may be asked for again';

-- Every run asks which tickers seem to be gone: they are few.
create index sync_state_without_price on assetbatch.sync_state (symbol)
  where error_kind in ('missing', 'not_found', 'unknown_ticker');

-- What is not asked for any more. One that has had a price since is back. Statements about many assets look it up by
-- `in`, which is hashed: to join it, the planner may take it for a single row.
create view assetbatch.gone_tickers as
select l.symbol, l.state, l.delisted_on, l.became, l.asked_at,
       case when l.state = 'renamed' then 'renamed to ' || l.became
            when l.delisted_on is null then 'delisted' else 'delisted on ' || to_char(l.delisted_on, 'YYYY-MM-DD') end as words
from assetbatch.ticker_lives l left join assetbatch.sync_state s using (symbol)
where l.state in ('delisted', 'renamed') and coalesce(s.succeeded_at <= l.asked_at, true);
comment on view assetbatch.gone_tickers is 'assets that are delisted or renamed: no call is made for them';
