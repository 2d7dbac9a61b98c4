-- What assetbatch keeps for itself, keyed by symbol.
create table assetbatch.assets (
  symbol                   text primary key,
  polygon_ticker           text not null,
  asset_type               text not null check (asset_type in ('forex', 'crypto')),
  role                     text not null check (role in ('priority', 'secondary')),
  rank                     int not null,
  update_frequency_seconds int not null check (update_frequency_seconds > 0),
  name                     text not null default '',
  enabled                  boolean not null default true,
  origin                   text not null,
  market                   text not null generated always as (
    case when asset_type = 'crypto' then 'crypto'
         when substr(polygon_ticker, 3, 3) in ('XAU', 'XAG', 'XPT', 'XPD') then 'metals'
         else 'forex' end
  ) stored
);
comment on column assetbatch.assets.rank is 'priority assets: their order, 1 first; secondary assets: 1 CRITICAL to 4 LOW';
comment on column assetbatch.assets.market is 'at which hours it trades';
comment on column assetbatch.assets.origin is 'config: follows config.yaml; symbols: added by a command';

create table assetbatch.sync_state (
  symbol        text primary key,
  served_at     timestamptz,
  succeeded_at  timestamptz,
  error_kind    text,
  error         text,
  day           date,
  event_seq     bigint not null default 0
);
comment on column assetbatch.sync_state.served_at is 'start of the run that last served the asset: decides when it is due again';
comment on column assetbatch.sync_state.succeeded_at is 'when the vendor last answered with a price for it';
comment on column assetbatch.sync_state.day is 'the newest finished day that the vendor was asked for it';
comment on column assetbatch.sync_state.event_seq is 'seq of the newest event; never goes back';

create table assetbatch.runs (
  id               bigint generated always as identity primary key,
  job              text not null,
  host             text not null,
  version          text not null,
  plan             text not null,
  calls_per_window int,
  started_at       timestamptz not null default clock_timestamp(),
  ends_by          timestamptz,
  finished_at      timestamptz,
  status           text not null default 'running' check (status in ('running', 'ok', 'partial', 'failed', 'skipped')),
  exit_code        int,
  updated          int not null default 0,
  unchanged        int not null default 0,
  deferred         int not null default 0,
  failed           int not null default 0,
  requeued         int not null default 0,
  dead             int not null default 0,
  enqueued         int not null default 0,
  remaining        int,
  api_calls        int not null default 0,
  rate_limit_waits int not null default 0,
  waited_seconds   numeric not null default 0,
  error_kind       text,
  error            text
);
comment on column assetbatch.runs.ends_by is 'when it has ended in any case: what is still running then was killed';
comment on column assetbatch.runs.remaining is 'items in the queue when the run ended, but for dead letters';
create index runs_job_started_at on assetbatch.runs (job, started_at);

create table assetbatch.api_calls (
  id              bigint generated always as identity primary key,
  run_id          bigint not null,
  at              timestamptz not null default clock_timestamp(),
  kind            text not null,
  outcome         text not null,
  http_status     int,
  sent            boolean not null,
  latency_ms      int not null,
  waited_ms       int not null,
  assets          int not null,
  symbol          text,
  calls_in_window int
);
create index api_calls_at on assetbatch.api_calls (at);
comment on column assetbatch.api_calls.outcome is 'ok, the kind of failure, or unknown: the run was ended meanwhile';
comment on column assetbatch.api_calls.sent is 'false: it never left, so it cost nothing';
comment on column assetbatch.api_calls.symbol is 'the asset, where the call covered one alone';
comment on column assetbatch.api_calls.calls_in_window is 'calls of ours that were in the window when this one was allowed';

create table assetbatch.outbox (
  id           bigint generated always as identity primary key,
  symbol       text not null,
  seq          bigint not null,
  payload      jsonb not null,
  created_at   timestamptz not null default clock_timestamp(),
  published_at timestamptz,
  dropped      boolean not null default false
);
create index outbox_pending on assetbatch.outbox (id) where published_at is null;
create index outbox_pending_symbol on assetbatch.outbox (symbol, id) where published_at is null;
comment on column assetbatch.outbox.dropped is 'through without having been sent: nothing carries events';

create table assetbatch.leases (
  name       text primary key,
  holder     uuid not null,
  held_until timestamptz not null
);
comment on table assetbatch.leases is 'one run of a job, one publisher at a time';
