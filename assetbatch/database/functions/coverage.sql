-- A row per asset and day (UTC): which bars are expected, there, absent for a reason, missing. One meaning for whoever
-- looks at the view, which knows what is stored, and for the command, which hands in what the program alone knows: how
-- far bars ought to reach by now (by market and frequency), when markets rested, and who was told what a plan does not
-- show (by type; null: anybody). It is inlined, so that who asks the view for one asset, or one day, waits for no other.
--
-- Expected are all bars from wanted_since to asked_until (to the newest one, where the newest were never asked for), or
-- as far as they ought to reach, but for the hours at which the market rested; and those that are there all the same, in
-- a rest or behind that. Each is counted once, as what holds of it first: it is final; the market rested (closed, and not
-- expected), the vendor had nothing, or nothing with this plan and key, or what it sent was no bar (for a day: then it is
-- asked for again), the table refused it; it is there, but open; it is missing.
--
-- Below asked_until no bar is open but where a page has once noted that it had none there, also where that does not hold
-- any more (over): those are looked at, all others counted off the index. Where a platform's own table does not tell
-- which bars are final, the name of the column means that of `part`: what ought to be there by now is; so is a null.
create or replace function assetbatch.bar_coverage(
  since timestamptz, now timestamptz,
  markets text[], frequencies int[], reaches timestamptz[],
  resting text[], rests_since timestamptz[], rests_until timestamptz[],
  types text[], told text[]
) returns table (
  symbol text, day date, asset_type text, expected int, final int, open int, closed int, nothing int, not_entitled int,
  failed int, refused int, missing int, idle text
) language sql stable parallel safe as $$
select a.symbol, d.day, a.asset_type,
       (days.wanted + o.beyond - n.closed)::int as expected, n.final::int, o.open::int, n.closed::int, n.nothing::int,
       (n.not_entitled + case i.idle when 'not_entitled' then m.missing else 0 end)::int as not_entitled,
       n.failed::int, n.refused::int,
       case i.idle when 'not_entitled' then 0 else m.missing end::int as missing, i.idle
from assetbatch.assets a
join assetbatch.bar_state t on t.symbol = a.symbol
left join trading.symbols s on s.symbol = a.symbol
left join lateral (select g.state from assetbatch.gone_tickers g where g.symbol = a.symbol offset 0) gone on true
left join lateral (
  select 'unknown' as state from assetbatch.unknown_tickers u where u.symbol = a.symbol offset 0
) never_known on true
left join unnest(bar_coverage.markets, bar_coverage.frequencies, bar_coverage.reaches) as reaching (market, frequency, reach)
  on reaching.market = a.market and reaching.frequency = a.update_frequency_seconds
left join unnest(bar_coverage.types, bar_coverage.told) as telling (asset_type, told) on telling.asset_type = a.asset_type
cross join lateral (
  select case when not a.enabled then 'disabled'
              when s.id is null and t.asked_until is not null then 'removed'
              else coalesce(gone.state, never_known.state, case t.error_kind when 'not_entitled' then 'not_entitled' end)
         end as idle
  offset 0
) i
cross join lateral (
  select since, asked_until,
         greatest(since, asked_until, case when t.asked_until is null then t.watermark + interval '5 minutes' end,
                  case when coalesce(i.idle, '') in ('', 'not_entitled') then reaching.reach end) as until
  from (
    select greatest(t.wanted_since, bar_coverage.since) as since, coalesce(t.asked_until, '-infinity') as asked_until
  ) v
  offset 0
) w
cross join lateral (
  select coalesce(range_agg(r) filter (where b.reason = 'closed'), '{}') as closed,
         coalesce(range_agg(r) filter (where b.reason = 'nothing'), '{}') as nothing,
         coalesce(range_agg(r) filter (where b.reason = 'not_entitled'), '{}') as not_entitled,
         coalesce(range_agg(r) filter (where b.reason = 'failed'), '{}') as failed,
         coalesce(range_agg(r) filter (where b.reason = 'refused'), '{}') as refused,
         coalesce(range_agg(r) filter (where b.reason is null), '{}') as over
  from (
    select case when b.reason = 'failed' and b.noted_at <= bar_coverage.now - interval '1 day' then null
                when b.reason = 'not_entitled' and b.told <> telling.told then null
                else b.reason end as reason, b.ranges
    from assetbatch.bar_absences b
    where b.symbol = a.symbol and b.month >= date_trunc('month', w.since at time zone 'UTC')
    union all
    select case when b.ask_at > bar_coverage.now then 'nothing' end, b.ranges
    from assetbatch.bar_silences b where b.symbol = a.symbol
  ) b, unnest(b.ranges) r
) noted
cross join lateral (
  select coalesce(range_agg(tstzrange(v.since, v.until)), '{}') as r
  from unnest(bar_coverage.resting, bar_coverage.rests_since, bar_coverage.rests_until) as v (market, since, until)
  where v.market = a.market
) rest
cross join lateral (
  select wanted * closed as closed, wanted * nothing - closed as nothing,
         wanted * noted.not_entitled - closed - nothing as not_entitled,
         wanted * noted.failed - closed - nothing - noted.not_entitled as failed,
         wanted * noted.refused - closed - nothing - noted.not_entitled - noted.failed as refused,
         wanted * noted.over as over
  from (
    select tstzmultirange(tstzrange(w.since, w.until)) as wanted, noted.closed + rest.r as closed, noted.nothing
  ) v
  offset 0
) absent
cross join lateral (
  select p.day, range_agg(p.r) as noted,
         coalesce(sum(p.bars) filter (where p.reason = 'closed'), 0) as closed,
         coalesce(sum(p.bars) filter (where p.reason = 'nothing'), 0) as nothing,
         coalesce(sum(p.bars) filter (where p.reason = 'not_entitled'), 0) as not_entitled,
         coalesce(sum(p.bars) filter (where p.reason = 'failed'), 0) as failed,
         coalesce(sum(p.bars) filter (where p.reason = 'refused'), 0) as refused
  from (
    select g::date as day, null as reason, null::tstzrange as r, 0 as bars
    from generate_series(
      date_trunc('day', w.since at time zone 'UTC'),
      greatest(w.until - interval '1 microsecond', bar_coverage.now) at time zone 'UTC', interval '1 day'
    ) g
    union all
    select g::date, v.reason, q.r, date_part('epoch', upper(q.r) - lower(q.r)) / 300
    from (
      values ('closed', absent.closed), ('nothing', absent.nothing), ('not_entitled', absent.not_entitled),
             ('failed', absent.failed), ('refused', absent.refused), ('over', absent.over)
    ) v (reason, ranges)
    cross join unnest(v.ranges) r
    cross join generate_series(
      date_trunc('day', lower(r) at time zone 'UTC'), upper(r) at time zone 'UTC' - interval '1 microsecond',
      interval '1 day'
    ) g
    cross join lateral (
      select r * tstzrange(g at time zone 'UTC', (g + interval '1 day') at time zone 'UTC') as r
    ) q
  ) p
  group by p.day
) d
cross join lateral (
  select since, until, date_part('epoch', greatest(least(until, w.until) - since, '0')) / 300 as wanted
  from (
    select greatest(w.since, d.day::timestamp at time zone 'UTC') as since,
           (d.day + 1)::timestamp at time zone 'UTC' as until
  ) v
) days
cross join lateral (
  select count(*) as bars, count(*) filter (where d.noted @> b.ts) as noted from market_data.ohlcv_5m b
  where b.symbol_id = s.id and b.ts >= days.since and b.ts < least(days.until, w.asked_until)
) k
cross join lateral (
  select count(*) filter (where b.is_final) as final,
         count(*) filter (
           where not b.is_final and not (
             absent.closed @> b.ts or absent.nothing @> b.ts or absent.not_entitled @> b.ts or absent.failed @> b.ts
             or absent.refused @> b.ts
           )
         ) as open,
         count(*) filter (where b.ts >= w.until) as beyond,
         count(*) filter (where b.is_final and absent.closed @> b.ts) as closed,
         count(*) filter (where b.is_final and absent.nothing @> b.ts) as nothing,
         count(*) filter (where b.is_final and absent.not_entitled @> b.ts) as not_entitled,
         count(*) filter (where b.is_final and absent.failed @> b.ts) as failed,
         count(*) filter (where b.is_final and absent.refused @> b.ts) as refused
  from (
    values (days.since, least(days.until, w.asked_until), k.noted > 0, true),
           (greatest(days.since, w.asked_until), least(days.until, w.until), true, true),
           (greatest(days.since, w.until), days.until, true, false)
  ) part (since, until, is_doubtful, is_final)
  cross join lateral (
    select b.ts, coalesce(is_final, part.is_final) as is_final from market_data.ohlcv_5m b
    where b.symbol_id = s.id and b.ts >= part.since and b.ts < part.until
      and (part.since >= w.asked_until or d.noted @> b.ts)
  ) b
  where part.is_doubtful and part.since < part.until
) o
cross join lateral (
  select k.bars - k.noted + o.final as final, d.closed - o.closed as closed, d.nothing - o.nothing as nothing,
         d.not_entitled - o.not_entitled as not_entitled, d.failed - o.failed as failed,
         d.refused - o.refused as refused
) n
cross join lateral (
  select days.wanted + o.beyond - n.final - o.open - n.closed - n.nothing - n.not_entitled - n.failed - n.refused as missing
) m
$$;

create or replace view assetbatch.coverage as
select * from assetbatch.bar_coverage(null, now(), null, null, null, null, null, null, null, null);

comment on view assetbatch.coverage is
  'per asset and day (UTC): expected = final + open + nothing + not_entitled + failed + refused + missing; closed is not expected';
