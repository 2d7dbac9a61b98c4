-- What streams over the vendor's WebSocket: one row a cluster, and the assets that it keeps fresh.

alter table assetbatch.sync_state add column daily_at timestamptz;
comment on column assetbatch.sync_state.daily_at is
  'the vendor''s time of the daily figures in last_update; null: they came before this was kept, and any are newer';

-- What the vendor calls the two sides of a pair: a ticker alone does not tell where one ends.
create table assetbatch.pairs (
  polygon_ticker text primary key,
  base           text not null,
  quote          text not null,
  noted_at       timestamptz not null default clock_timestamp()
);
comment on table assetbatch.pairs is 'from the vendor''s reference list; the stream makes its names of them';

create table assetbatch.streams (
  cluster       text primary key,
  run_id        bigint not null,
  state         text not null,
  words         text not null default '',
  told_at       timestamptz not null,
  alive_until   timestamptz not null default 'epoch',
  since         timestamptz,
  frame_at      timestamptz,
  asked         int not null default 0,
  confirmed     int not null default 0,
  unconfirmed   text[] not null default '{}',
  silent        text[] not null default '{}',
  connects      int not null default 0,
  events        bigint not null default 0,
  events_a_second float8 not null default 0,
  dropped       bigint not null default 0,
  lag_p50_ms    int,
  lag_p95_ms    int
);
comment on table assetbatch.streams is 'how each cluster of the WebSocket is doing, as its stream last told';
comment on column assetbatch.streams.state is
  'connecting, live, waiting (for the next attempt), resting (another connection took over), refused, ended';
comment on column assetbatch.streams.alive_until is 'until then its assets need no call for their quotes';
comment on column assetbatch.streams.frame_at is 'when it last heard of the vendor: what comes after may be missing';
comment on column assetbatch.streams.unconfirmed is 'names that the vendor did not confirm, each with its reason';
comment on column assetbatch.streams.silent is 'symbols that are confirmed, and silent though REST has newer quotes';
comment on column assetbatch.streams.dropped is 'events that were no prices, or that nobody had asked for';

create table assetbatch.streamed_assets (
  symbol  text primary key,
  cluster text not null
);

-- What has no need of a call for its quote now: it counts as served at this very moment.
create view assetbatch.streamed as
select a.symbol, statement_timestamp() as served_at
from assetbatch.streamed_assets a join assetbatch.streams s using (cluster)
where s.alive_until > statement_timestamp();
