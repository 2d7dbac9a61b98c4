-- A server that took over from another may not have heard of its last grants: it is known by its history.
alter table assetbatch.rate_limits add column history text;
comment on column assetbatch.rate_limits.history is 'assetbatch.history() of the server that last granted a slot; null: not known';

-- Since when an asset is to be kept fresh: one that was never served yet is no trouble in its first hour.
alter table assetbatch.assets add column enabled_at timestamptz not null default clock_timestamp();
comment on column assetbatch.assets.enabled_at is 'when it was added, or enabled again';
