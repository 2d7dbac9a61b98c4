-- The durable queue: one row for each symbol that waits for an update, whatever its state.
--
--   queued   waits its turn, in the order below
--   leased   a run works on it until `leased_until`; `token` says which, and fences every ending
--   delayed  waits for `available_at`, then it is queued
--   dead     out of attempts, or no further call can fare better: waits for somebody to retry or remove it
--
-- An item that is done is deleted. Its attempt is counted when it is claimed, so that one that kills its worker runs out
-- of attempts, too; an ending that is no fault of the asset's gives the attempt back.
--
-- Order: CRITICAL first; all others by `rank` = waiting_since + (priority - 1) steps of aging. Waiting counts, so nobody
-- starves, and the order is an index: the cost of claiming does not grow with the queue.
create table assetbatch.queue (
  symbol        text primary key,
  id            bigint generated always as identity,
  state         text not null default 'queued' check (state in ('queued', 'leased', 'delayed', 'dead')),
  priority      int not null check (priority between 1 and 4),
  waiting_since timestamptz not null,
  rank          timestamptz not null,
  attempts      int not null default 0,
  largest_call  int check (largest_call > 0),
  struck_at     timestamptz,
  served_at     timestamptz,
  enqueued_at   timestamptz not null,
  available_at  timestamptz not null,
  claimed_at    timestamptz,
  leased_until  timestamptz,
  token         uuid,
  error_kind    text,
  error         text,
  died_at       timestamptz,
  died_on_plan  text,
  died_with_key text,
  check ((state = 'leased') = (token is not null and leased_until is not null and claimed_at is not null)),
  check ((state = 'dead') = (died_at is not null))
) with (
  -- Each item leaves two dead rows at the head of the order: cleared away soon and at full speed, whatever the size.
  autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
comment on column assetbatch.queue.priority is '1 CRITICAL, 2 HIGH, 3 MEDIUM, 4 LOW';
comment on column assetbatch.queue.waiting_since is 'when it was enqueued; after an attempt that failed, when it may be tried again';
comment on column assetbatch.queue.served_at is 'when the asset had last been served when it was enqueued; null: never';
comment on column assetbatch.queue.largest_call is 'a call that covered it was refused as a whole: the next one covers at most so many';
comment on column assetbatch.queue.struck_at is 'when its call failed in what looked like an outage: blamed for the next one, if the API has answered since';
comment on column assetbatch.queue.died_with_key is 'fingerprint of the key: what it may not see, another one may';

-- One partial index a state: rows in other states cost nothing, however many they are.
create index queue_order on assetbatch.queue ((priority > 1), rank, id) where state = 'queued';
create index queue_leased on assetbatch.queue (leased_until) where state = 'leased';
create index queue_delayed on assetbatch.queue (available_at) where state = 'delayed';
create index queue_dead on assetbatch.queue (died_at) where state = 'dead';
