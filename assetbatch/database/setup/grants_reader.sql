-- What reading needs: all that the jobs read, and nothing that writes.
begin;
grant usage on schema trading, market_data, data_sources, assetbatch to :role;
grant select (id, symbol, metadata, updated_at) on trading.symbols to :role;
grant select (id, code) on data_sources.api_providers to :role;
grant select (ticker_id, provider_id, last_sync_timestamp, sync_status, updated_at)
  on data_sources.data_sync_status to :role;
grant select on market_data.ohlcv_5m to :role;
grant select on all tables in schema assetbatch to :role;
-- The tables of later versions, too, whoever makes them; functions that do not write; and what everybody has, unless it
-- was taken away. PostgreSQL lets no function write that is not volatile.
set local assetbatch.grantee = :'role';
do $$
declare
  grantee name := current_setting('assetbatch.grantee');
  statement text;
begin
  for statement in
    select distinct format('alter default privileges for role %I in schema assetbatch grant select on tables to %I',
                           pg_get_userbyid(relowner), grantee)
    from pg_class where relnamespace = 'assetbatch'::regnamespace and relkind in ('r', 'p', 'v')
    union all
    select format('grant execute on function %s to %I', oid::regprocedure, grantee)
    from pg_proc where pronamespace = 'assetbatch'::regnamespace and provolatile <> 'v' and not prosecdef
    union all
    select format('grant connect on database %I to %I', current_database(), grantee)
    where not has_database_privilege(grantee, current_database(), 'connect')
  loop
    execute statement;
  end loop;
end
$$;
commit;
