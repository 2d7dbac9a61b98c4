-- What was said of one ticker says nothing of another, whoever changes it. A trigger of assetbatch.assets.
create or replace function assetbatch.forget_ticker() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update assetbatch.sync_state set error_kind = null, error = null
  where symbol = new.symbol and error_kind is not null;
  update assetbatch.bar_state
  set source_minutes = 5, source_told_at = null, failures = 0, retry_at = null, error_kind = null, error = null
  where symbol = new.symbol;
  delete from assetbatch.bar_absences where symbol = new.symbol and reason <> 'refused';
  delete from assetbatch.bar_silences where symbol = new.symbol;
  delete from assetbatch.ticker_lives where symbol = new.symbol;
  return null;
end
$$;
