-- The least that the jobs need. `assetbatch init` itself is for the owner of the tables.
begin;
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
grant execute on all functions in schema assetbatch to :role;
-- What everybody has, unless it was taken away; and what new rows of the platform's tables take without being told:
-- sequences of ids that are serial (identity columns need none), functions in defaults and in checks.
set local assetbatch.grantee = :'role';
do $$
declare
  grantee name := current_setting('assetbatch.grantee');
  privilege text;
begin
  for privilege in
    with rows_of (oid) as (
      values ('trading.symbols'::regclass), ('data_sources.data_sync_status'::regclass),
             ('market_data.ohlcv_5m'::regclass)
    ),
    rules (classid, oid) as (
      select 'pg_attrdef'::regclass, d.oid from pg_attrdef d join rows_of r on r.oid = d.adrelid
      union all
      select 'pg_constraint'::regclass, c.oid from pg_constraint c join rows_of r on r.oid = c.conrelid
    ),
    needed as (
      select d.refclassid, d.refobjid as oid
      from rules r join pg_depend d on d.classid = r.classid and d.objid = r.oid
    )
    select format('connect on database %I', current_database())
    where not has_database_privilege(grantee, current_database(), 'connect')
    union
    select format('usage on sequence %s', s.oid::regclass)
    from needed n join pg_class s on n.refclassid = 'pg_class'::regclass and s.oid = n.oid
    where case s.relkind when 'S' then not has_sequence_privilege(grantee, s.oid, 'usage') else false end
    union
    select format('execute on function %s', p.oid::regprocedure)
    from needed n join pg_proc p on n.refclassid = 'pg_proc'::regclass and p.oid = n.oid
    where not has_function_privilege(grantee, p.oid, 'execute')
  loop
    execute format('grant %s to %I', privilege, grantee);
  end loop;
end
$$;
commit;
