-- Casts a word to whatever type a column of the platform's has: text, an enum, a domain.
create or replace function assetbatch.as_type_of(example anyelement, word text) returns anyelement
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  return word;
end
$$;
