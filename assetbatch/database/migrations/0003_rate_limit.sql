-- The budget of calls, shared by every process and host that uses a key: the tables. What keeps it, and why that is
-- right, is in functions/rate_limit.sql.
create table assetbatch.rate_limits (
  key_fingerprint  text primary key,
  max_calls        int,
  window_length    interval not null,
  margin           interval not null,
  min_spacing      interval not null,
  blocked_until    timestamptz not null default 'epoch',
  refused_at       timestamptz not null default 'epoch',
  spaced_until     timestamptz not null default 'epoch',
  last_answer_at   timestamptz not null default 'epoch',
  next_call_at     timestamptz not null default 'epoch',
  full_by          timestamptz not null default 'epoch',
  last_ticket      bigint not null default 0,
  running_calls    int not null default 0,
  running_until    timestamptz not null default 'epoch',
  foreseen_calls   int not null default 0,
  foreseen_due     timestamptz not null default 'epoch',
  priority_every   interval not null default '5 minutes',
  priority_grace   interval not null default '10 seconds',
  priority_seen_at timestamptz not null default 'epoch'
) with (fillfactor = 50);
comment on column assetbatch.rate_limits.max_calls is 'null: unlimited';
comment on column assetbatch.rate_limits.blocked_until is 'after a refusal the whole key waits';
comment on column assetbatch.rate_limits.spaced_until is 'after an unforeseen refusal calls are spaced evenly until then';
comment on column assetbatch.rate_limits.next_call_at is 'unlimited plans: politeness, so many calls a second; not before the last call that a dropped slot was granted for';
comment on column assetbatch.rate_limits.full_by is 'requests that no slot remembers were counted by then';
comment on column assetbatch.rate_limits.running_calls is 'calls that a priority run still means to make, after the one it has or waits for';
comment on column assetbatch.rate_limits.foreseen_calls is 'calls that the next priority run is expected to make at foreseen_due';

create table assetbatch.rate_limit_slots (
  key_fingerprint text not null,
  slot            int not null,
  counted_by      timestamptz not null default 'epoch',
  hold            interval not null default '0',
  granted_at      timestamptz not null default 'epoch',
  token           uuid,
  primary key (key_fingerprint, slot)
) with (fillfactor = 50);
comment on column assetbatch.rate_limit_slots.counted_by is 'the latest instant at which the vendor can have counted the last request of the slot';
comment on column assetbatch.rate_limit_slots.token is 'set while a request is on its way';

create table assetbatch.rate_limit_waiters (
  key_fingerprint text not null,
  ticket          bigint not null,
  lane            text not null,
  wake_at         timestamptz not null,
  primary key (key_fingerprint, ticket)
);

create table assetbatch.rate_limit_hosts (
  key_fingerprint text not null,
  host            text not null,
  max_calls       int,
  window_length   interval not null,
  margin          interval not null,
  min_spacing     interval not null,
  seen_at         timestamptz not null,
  primary key (key_fingerprint, host)
);
comment on table assetbatch.rate_limit_hosts is 'the rules by host: while hosts disagree, the strictest hold';
