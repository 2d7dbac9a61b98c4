-- Who asks names the slot now, so that one is known again whose grant was lost on the way; older programs need not.
drop function if exists assetbatch.acquire_slot(
  text, text, int, float8, float8, float8, float8, float8, text, bigint, float8, int, int
);

-- What it calls is bound now, whatever search_path it is called with; and still it is inlined.
create or replace function assetbatch.run_of(token uuid) returns bigint language sql immutable parallel safe
return ('x' || left(replace(token::text, '-', ''), 16))::bit(64)::bigint;

alter function assetbatch.forget_ticker() set search_path = pg_catalog, pg_temp;
