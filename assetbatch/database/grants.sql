-- The least that the jobs need. `assetbatch init` itself is for the owner of the tables.
grant usage on schema trading, market_data, data_sources, assetbatch to :role;
grant select (id, symbol, metadata, updated_at), insert (symbol, metadata, updated_at), update (metadata, updated_at)
  on trading.symbols to :role;
grant select (id, code) on data_sources.api_providers to :role;
grant select (ticker_id, provider_id, last_sync_timestamp, sync_status, updated_at),
      insert (ticker_id, provider_id, last_sync_timestamp, sync_status, updated_at),
      update (last_sync_timestamp, sync_status, updated_at), delete
  on data_sources.data_sync_status to :role;
grant select, insert, update on market_data.ohlcv_5m to :role;
grant select, insert, update, delete on all tables in schema assetbatch to :role;
revoke insert, update, delete on assetbatch.migrations from :role;
-- For ids that are serial; identity columns need none.
grant usage on all sequences in schema trading, data_sources to :role;
grant execute on all functions in schema assetbatch to :role;
