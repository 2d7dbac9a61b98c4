-- Since when an asset is to be kept fresh: one that was never served yet is no trouble in its first hour.
alter table assetbatch.assets add column enabled_at timestamptz not null default clock_timestamp();
comment on column assetbatch.assets.enabled_at is 'when it was added, or enabled again';
