-- A server that took over from another may not have heard of its last grants: it is known by its history.
alter table assetbatch.rate_limits add column history text;
comment on column assetbatch.rate_limits.history is 'assetbatch.history() of the server that last granted a slot; null: not known';
