-- The budget of calls, shared by every process and host that uses a key.
--
-- At most `max_calls` requests may be counted by the vendor in any span of `window_length`. There are `max_calls` slots; a
-- request needs one. Let A be the instant at which the vendor counts a request. A lies before the answer is read; without
-- an answer it lies before grant + hold, where hold bounds everything that a request may take. `counted_by` is that bound,
-- by this database's clock, and a slot is free again at counted_by + window_length + margin. Two requests of one slot are
-- therefore counted more than a window apart, and `max_calls` slots can put at most `max_calls` into any window, whatever
-- the delays on the way. Stamping when a request is sent does not do: delays differ, and the answer alone bounds them.
-- Why grant + hold is a bound, whatever happens to the holder: it reads its clock (CLOCK_BOOTTIME, which goes on through
-- sleep) before it asks, which is not after the grant, and once more last before it writes to the socket (Flight.leave).
-- It sends S = hold - connecting - whole time-out = 10 s after that at the latest; a holder who comes later, because it
-- was frozen, stood at a lock or could not connect, sends nothing: it gives the slot back, where that is still its own,
-- and asks anew. After S the time-outs of one request are left until the hold ends, and the whole time-out is also how
-- long its kernel tries to deliver (TCP_USER_TIMEOUT), so that A <= grant + S + whole time-out < grant + hold.
-- Without a limit the n-th request of a grant has its turn n steps later, and S counts from its turn.
-- When the limit shrinks, no busy slot is dropped, since its request still counts: of n slots fewer may be busy.
-- When the window grows, or a limit comes after none, the slots do not tell all that still counts. Whatever they do not
-- tell was counted by `full_by`, and no slot is free before full_by + window_length + margin.
-- Where the configuration has no limit nothing is proven, but a server that counts all the same is obeyed: after a refusal
-- that was not foreseen the key waits as it was told, and then, for an hour, takes slots as if it had a limit of
-- `counted_calls`, one call at a time and evenly spaced. What was granted without a slot before that was counted before
-- the wait that the server itself asked for.
-- A standby that takes over may never have heard of the last grants, nor a backup of those since it was made. Either has
-- another history than the rows that it holds: whatever was granted before that was seen is counted a hold later.
--
-- Every function locks the key's row first and reads the clock after that: a statement's snapshot is older than the lock
-- that it waited for, so nothing may be decided from what the locking statement itself has read, but for the locked row.

-- Names the history that this server writes: other after a standby was promoted, and after a backup was restored. The
-- timeline is that of the WAL being written: pg_control_checkpoint() names the old one until the checkpoint after a
-- promotion is complete, which may take minutes. Null where the server does not tell; there a failover goes unnoticed.
create or replace function assetbatch.history() returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return (select system_identifier from pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8);
exception when others then
  return null;
end
$$;


-- A key that is seen for the first time: the slots of the key it replaces stay busy, since the vendor may count an account.
create or replace function assetbatch.adopt_key(
  p_key text, p_max_calls int, p_window interval, p_margin interval, p_spacing interval
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  old assetbatch.rate_limits;
begin
  insert into assetbatch.rate_limits (key_fingerprint, max_calls, window_length, margin, min_spacing)
  values (p_key, p_max_calls, p_window, p_margin, p_spacing)
  on conflict do nothing;
  if not found then
    return;
  end if;
  -- One order of locks for all who adopt; who does not holds one row only.
  perform from assetbatch.rate_limits order by key_fingerprint for update;
  select k.* into old
  from assetbatch.rate_limits k left join assetbatch.rate_limit_slots s using (key_fingerprint)
  where k.key_fingerprint <> p_key
  group by k.key_fingerprint
  order by greatest(k.next_call_at, max(s.granted_at)) desc
  limit 1;
  if not found then
    insert into assetbatch.rate_limit_slots (key_fingerprint, slot)
    select p_key, n from generate_series(1, p_max_calls) n;
    return;
  end if;
  insert into assetbatch.rate_limit_slots (key_fingerprint, slot, counted_by, hold)
  select p_key, s.slot, s.counted_by, s.hold
  from assetbatch.rate_limit_slots s where s.key_fingerprint = old.key_fingerprint;
  -- Its rules, too: what a change of rules asks for, apply_rules knows, which comes next.
  update assetbatch.rate_limits k
  set max_calls = old.max_calls, window_length = old.window_length, margin = old.margin, min_spacing = old.min_spacing,
      blocked_until = old.blocked_until, refused_at = old.refused_at, spaced_until = old.spaced_until,
      last_answer_at = old.last_answer_at, next_call_at = old.next_call_at, full_by = old.full_by, history = old.history,
      exempt_by = old.exempt_by, exempts = old.exempts,
      foreseen_calls = old.foreseen_calls, foreseen_due = old.foreseen_due,
      priority_every = old.priority_every, priority_grace = old.priority_grace, priority_seen_at = old.priority_seen_at
  where k.key_fingerprint = p_key;
end
$$;


-- The rules in force: the strictest of the hosts seen in the last 10 minutes. A change is taken over without a burst.
-- The caller holds the key's row.
create or replace function assetbatch.apply_rules(
  r assetbatch.rate_limits, p_host text, p_max_calls int, p_window interval, p_margin interval, p_spacing interval,
  p_exempts text[], t timestamptz
) returns assetbatch.rate_limits language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  was assetbatch.rate_limits := r;
begin
  insert into assetbatch.rate_limit_hosts as h
    (key_fingerprint, host, max_calls, window_length, margin, min_spacing, exempts, seen_at)
  values (r.key_fingerprint, p_host, p_max_calls, p_window, p_margin, p_spacing, p_exempts, t)
  on conflict (key_fingerprint, host) do update
  set max_calls = excluded.max_calls, window_length = excluded.window_length, margin = excluded.margin,
      min_spacing = excluded.min_spacing, exempts = excluded.exempts, seen_at = excluded.seen_at
  where (h.max_calls, h.window_length, h.margin, h.min_spacing, h.exempts)
          is distinct from (excluded.max_calls, excluded.window_length, excluded.margin, excluded.min_spacing, excluded.exempts)
     or h.seen_at not between t - interval '1 minute' and t;
  if found then
    -- Hosts that are gone; and a clock that was set back must not keep one for as long as it was set back.
    delete from assetbatch.rate_limit_hosts h
    where h.key_fingerprint = r.key_fingerprint and h.seen_at <= t - interval '10 minutes';
    update assetbatch.rate_limit_hosts h set seen_at = t where h.key_fingerprint = r.key_fingerprint and h.seen_at > t;
  end if;

  select min(max_calls), max(window_length), max(margin), max(min_spacing)
  into r.max_calls, r.window_length, r.margin, r.min_spacing
  from assetbatch.rate_limit_hosts
  where key_fingerprint = r.key_fingerprint and seen_at > t - interval '10 minutes';
  if (was.max_calls, was.window_length, was.margin, was.min_spacing)
       is not distinct from (r.max_calls, r.window_length, r.margin, r.min_spacing) then
    return r;
  end if;

  insert into assetbatch.rate_limit_slots (key_fingerprint, slot)
  select r.key_fingerprint, n from generate_series(1, r.max_calls) n
  on conflict do nothing;
  -- A slot remembers its last request only; what a longer window holds beyond that was counted by now.
  if r.window_length > was.window_length then
    r.full_by := greatest(r.full_by, t);
  end if;
  -- Slots beyond a smaller limit go, and a key that replaces this one has to see that it was the last in use.
  r.next_call_at := greatest(r.next_call_at, least(t, (
    select max(s.granted_at) from assetbatch.rate_limit_slots s where s.key_fingerprint = r.key_fingerprint)));
  if r.max_calls is null then
    delete from assetbatch.rate_limit_waiters w where w.key_fingerprint = r.key_fingerprint;
  end if;
  update assetbatch.rate_limits k
  set max_calls = r.max_calls, window_length = r.window_length, margin = r.margin, min_spacing = r.min_spacing,
      full_by = r.full_by, next_call_at = r.next_call_at
  where k.key_fingerprint = r.key_fingerprint;
  return r;
end
$$;


-- Asks for a slot. The answer is one of
--   granted: send now (unlimited plans: after `wait_seconds`), then report with release_slot;
--   wait:    sleep `wait_seconds`, then ask again with `ticket`, which keeps the place in its lane;
--   refused: it would take longer than `p_max_wait`; nothing is left behind.
-- `wait_seconds` is never longer than until the slot can come free, so nobody oversleeps.
-- `p_token` is whoever asks' name for the slot: asked once more, since the answer was lost, it is the same slot.
-- A limited plan grants one slot at a time; an unlimited one `p_calls` at once, without a token, to be sent a turn apart.
-- Lanes: `priority` goes before `queue`. Of the slots that come free by the next due time of the priority job (plus grace),
-- `queue` leaves as many as that job is going to need.
-- A call for `p_products` all of which are in `p_exempts` is of no limit, though others of the key's are: the vendor does
-- not count it with those, and it takes no slot, but in the hour after a refusal that was not foreseen. As with all rules
-- every host seen lately has to say so. Once one of them is exempt no longer, what went without a slot is taken as counted.
create or replace function assetbatch.acquire_slot(
  p_key text, p_host text,
  p_max_calls int, p_window_seconds float8, p_margin_seconds float8, p_spacing_seconds float8, p_calls_per_second float8,
  p_hold_seconds float8, p_lane text, p_ticket bigint, p_max_wait_seconds float8, p_calls_after int, p_calls int,
  p_token uuid default gen_random_uuid(), p_products text[] default '{}', p_exempts text[] default '{}',
  out verdict text, out token uuid, out ticket bigint, out wait_seconds float8, out calls_in_window int
) language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
  r assetbatch.rate_limits;
  t timestamptz;
  lease constant interval := make_interval(secs => p_hold_seconds);
  history_now constant text := assetbatch.history();
  cooldown interval;       -- from the answer until the slot is free again
  longest_hold constant interval := '10 minutes';  -- of any host, whatever its time-outs
  -- Unlimited plans: how long before its turn a call is allowed. No longer, since no refusal reaches it meanwhile.
  ahead_of_time constant interval := '0.1 seconds';
  counted_calls constant int := 5;                 -- unlimited plans: the limit of the smallest plan, after a refusal
  most_calls constant int := 64;                   -- unlimited plans: of one host, granted at once
  exempts_of_all text[];   -- products that are exempt on all hosts
  is_exempt boolean;
  step interval;           -- unlimited plans: between two calls
  gap interval;            -- between an answer and the next request, when calls are spaced
  ahead_priority int;      -- live tickets that go before this one
  ahead_queue int;
  ahead int;
  surplus int;             -- slots beyond the limit, left from a larger one
  free int;                -- slots that are free now, less the surplus
  in_flight int;
  free_by_deadline int;    -- the same, by the priority job's deadline
  keep int := 0;           -- slots that the priority job is going to need
  due timestamptz;
  deadline timestamptz;
  ready_at timestamptz;    -- the earliest instant at which this request can have its turn
  wake_at timestamptz;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'acquire_slot needs READ COMMITTED: an older snapshot would not see the slots taken meanwhile';
  end if;
  if current_setting('synchronous_commit') = 'off' then
    -- A grant that a crash of the server forgets would be given once more.
    perform set_config('synchronous_commit', 'local', true);
  end if;
  select * into r from assetbatch.rate_limits k where k.key_fingerprint = p_key for update;
  if not found then
    perform assetbatch.adopt_key(p_key, p_max_calls, make_interval(secs => p_window_seconds),
                                 make_interval(secs => p_margin_seconds), make_interval(secs => p_spacing_seconds));
    select * into r from assetbatch.rate_limits k where k.key_fingerprint = p_key for update;
  end if;
  t := clock_timestamp();
  r := assetbatch.apply_rules(r, p_host, p_max_calls, make_interval(secs => p_window_seconds),
                              make_interval(secs => p_margin_seconds), make_interval(secs => p_spacing_seconds), p_exempts, t);
  exempts_of_all := array(
    select e from unnest(p_exempts) e
    where not exists (
      select from assetbatch.rate_limit_hosts h
      where h.key_fingerprint = p_key and h.seen_at > t - interval '10 minutes' and e <> all(h.exempts)
    ));
  is_exempt := p_products <> '{}' and p_products <@ exempts_of_all;
  cooldown := r.window_length + r.margin;
  if history_now <> coalesce(r.history, '') then
    if r.history is not null then
      r.full_by := greatest(r.full_by, t + lease);
      if r.max_calls is not null then
        raise warning 'the database has failed over to another server, or was restored: calls may be forgotten, so the window is taken as full for % s',
          ceil(extract(epoch from lease + cooldown));
      end if;
    end if;
    update assetbatch.rate_limits k set history = history_now, full_by = r.full_by where k.key_fingerprint = p_key;
  end if;

  -- Stamps further in the future than they are ever set can only come from a clock that was set back. They are cut to what
  -- is possible, and that is written: cut anew at each call, they would never pass.
  step := coalesce(make_interval(secs => 1 / p_calls_per_second), '0');
  if t < greatest(r.blocked_until - greatest(cooldown, interval '90 seconds'), r.refused_at, r.spaced_until - interval '1 hour',
                  r.last_answer_at - lease, r.next_call_at - most_calls * step - ahead_of_time, r.full_by - longest_hold,
                  r.exempt_by - longest_hold,
                  r.running_until - lease, r.priority_seen_at) then
    update assetbatch.rate_limits k
    set blocked_until = least(k.blocked_until, t + greatest(cooldown, interval '90 seconds')),
        refused_at = least(k.refused_at, t), spaced_until = least(k.spaced_until, t + interval '1 hour'),
        last_answer_at = least(k.last_answer_at, t + lease),
        next_call_at = least(k.next_call_at, t + most_calls * step + ahead_of_time),
        full_by = least(k.full_by, t + longest_hold), exempt_by = least(k.exempt_by, t + longest_hold),
        running_until = least(k.running_until, t + lease), priority_seen_at = least(k.priority_seen_at, t)
    where k.key_fingerprint = p_key
    returning * into r;
  end if;
  update assetbatch.rate_limit_slots s set counted_by = t + s.hold
  where s.key_fingerprint = p_key and s.counted_by > t + s.hold;

  if r.max_calls is null and r.blocked_until <= t and t < r.spaced_until then
    r.max_calls := counted_calls;
    r.full_by := 'epoch';
    insert into assetbatch.rate_limit_slots (key_fingerprint, slot)
    select p_key, n from generate_series(1, counted_calls) n
    on conflict do nothing;
  end if;
  if r.max_calls is null or (is_exempt and (r.blocked_until > t or t >= r.spaced_until)) then
    delete from assetbatch.rate_limit_waiters w where w.key_fingerprint = p_key and w.ticket = p_ticket;
    ready_at := greatest(r.next_call_at, t);
    wait_seconds := extract(epoch from greatest(ready_at, r.blocked_until) - t);
    if wait_seconds > greatest(p_max_wait_seconds, 0) then
      verdict := 'refused';
    elsif r.blocked_until > t or ready_at > t + ahead_of_time then
      verdict := 'wait';
      wait_seconds := least(extract(epoch from greatest(r.blocked_until, ready_at - ahead_of_time) - t), 15);
    else
      verdict := 'granted';
      update assetbatch.rate_limits k
      set next_call_at = ready_at + p_calls * step,
          full_by = case when is_exempt then k.full_by
                         else greatest(k.full_by, ready_at + (p_calls - 1) * step + lease) end,
          exempt_by = greatest(k.exempt_by, ready_at + (p_calls - 1) * step + lease),
          exempts = array(select unnest(k.exempts) union select unnest(p_products))
      where k.key_fingerprint = p_key;
    end if;
    return;
  end if;

  if exists (select from assetbatch.rate_limit_slots s where s.key_fingerprint = p_key and s.token = p_token) then
    verdict := 'granted';
    token := p_token;
    wait_seconds := 0;
    return;
  end if;

  if not r.exempts <@ exempts_of_all then
    r.full_by := greatest(r.full_by, r.exempt_by);
    update assetbatch.rate_limits k set exempts = exempts_of_all, full_by = r.full_by where k.key_fingerprint = p_key;
  end if;
  delete from assetbatch.rate_limit_waiters w
  where w.key_fingerprint = p_key and w.wake_at not between t - interval '5 seconds' and t + interval '15 seconds'
    and w.ticket is distinct from p_ticket;
  -- Slots beyond the limit, left from a larger one, go as they come free.
  delete from assetbatch.rate_limit_slots s
  where s.key_fingerprint = p_key and s.slot > r.max_calls and s.counted_by + cooldown <= t;
  select count(*) filter (where w.lane = 'priority' and (p_lane <> 'priority' or w.ticket < coalesce(p_ticket, 9e18))),
         count(*) filter (where w.lane = 'queue' and p_lane = 'queue' and w.ticket < coalesce(p_ticket, 9e18))
  into ahead_priority, ahead_queue
  from assetbatch.rate_limit_waiters w
  where w.key_fingerprint = p_key and w.ticket is distinct from p_ticket;
  ahead := ahead_priority + ahead_queue;

  -- What the priority job is going to need, and by when.
  if p_lane = 'queue' then
    if t <= r.running_until then
      keep := r.running_calls + ahead_priority;
      -- What it still means to make is kept until the grace is over, not for ever a grace ahead of now.
      due := greatest(least(r.foreseen_due, t), t - r.priority_grace);
    else
      due := r.foreseen_due;
      if t > due + r.priority_grace then
        due := due + r.priority_every * ceil(extract(epoch from t - r.priority_grace - due) / extract(epoch from r.priority_every));
      end if;
      if due <= r.priority_seen_at + 2 * r.priority_every + r.priority_grace then
        keep := least(r.foreseen_calls, r.max_calls - 1);
      end if;
    end if;
    deadline := due + r.priority_grace;
    keep := greatest(keep, ahead_priority);
  end if;

  gap := greatest(r.min_spacing, case when t < r.spaced_until then r.window_length / r.max_calls end, '0');
  select count(*) - r.max_calls,
         count(*) filter (where s.counted_by + cooldown <= t),
         count(*) filter (where s.token is not null and s.counted_by > t),
         count(*) filter (where s.counted_by + r.window_length > t),
         count(*) filter (where case when s.token is not null then least(s.counted_by, t) else s.counted_by end + cooldown <= deadline),
         greatest(r.last_answer_at, max(s.counted_by) filter (where s.token is not null and s.counted_by <= t))
  into surplus, free, in_flight, calls_in_window, free_by_deadline, r.last_answer_at
  from assetbatch.rate_limit_slots s where s.key_fingerprint = p_key;
  free := free - surplus;
  free_by_deadline := free_by_deadline - surplus;

  -- The turn after all who are ahead: the next free slot but `ahead`, each slot once more a cooldown later. A request on
  -- its way can be answered now at the earliest.
  select f.free_at + (ahead / r.max_calls) * cooldown into ready_at
  from (
    select greatest(t, case when s.token is not null and s.counted_by > t then t else s.counted_by end + cooldown) as free_at
    from assetbatch.rate_limit_slots s where s.key_fingerprint = p_key
  ) f order by f.free_at offset surplus + ahead % r.max_calls limit 1;
  ready_at := greatest(ready_at, r.blocked_until, r.full_by + cooldown);
  if gap > '0' then
    ready_at := greatest(ready_at, case when in_flight > 0 then t else r.last_answer_at end + gap + ahead * gap);
  end if;
  wake_at := ready_at;
  if p_lane = 'priority' and extract(epoch from ready_at - t) <= greatest(p_max_wait_seconds, 0) then
    -- Said while it waits, too: what comes free meanwhile is not taken from under it.
    update assetbatch.rate_limits k
    set running_calls = p_calls_after, running_until = t + lease, priority_seen_at = t
    where k.key_fingerprint = p_key;
  end if;

  if ready_at <= t and free > ahead then
    if p_lane = 'priority'
       or t + cooldown + r.priority_grace / 2 <= deadline
       or free_by_deadline - 1 - ahead_queue >= keep then
      token := p_token;
      update assetbatch.rate_limit_slots s
      set counted_by = t + lease, hold = lease, granted_at = t, token = acquire_slot.token
      where s.key_fingerprint = p_key
        and s.slot = (select f.slot from assetbatch.rate_limit_slots f
                      where f.key_fingerprint = p_key and f.counted_by + cooldown <= t order by f.counted_by limit 1);
      delete from assetbatch.rate_limit_waiters w where w.key_fingerprint = p_key and w.ticket = p_ticket;
      verdict := 'granted';
      wait_seconds := 0;
      return;
    end if;
    -- Its turn, but the free slots are the priority job's. That job begins when it is due and says what it needs.
    wake_at := case when t < due then due else t + greatest(r.priority_grace / 10, interval '0.1 seconds') end;
    ready_at := greatest(deadline, wake_at);
  end if;

  if extract(epoch from ready_at - t) > p_max_wait_seconds then
    delete from assetbatch.rate_limit_waiters w where w.key_fingerprint = p_key and w.ticket = p_ticket;
    verdict := 'refused';
    wait_seconds := extract(epoch from ready_at - t);
    return;
  end if;
  -- Short sleeps, so that what others give back is noticed; never none at all, which would spin.
  wake_at := least(greatest(wake_at, t + interval '1 millisecond'), t + interval '15 seconds');
  ticket := p_ticket;
  if ticket is null then
    update assetbatch.rate_limits k set last_ticket = k.last_ticket + 1 where k.key_fingerprint = p_key returning k.last_ticket into ticket;
  end if;
  insert into assetbatch.rate_limit_waiters values (p_key, ticket, p_lane, wake_at)
  on conflict on constraint rate_limit_waiters_pkey do update set wake_at = excluded.wake_at;
  verdict := 'wait';
  wait_seconds := extract(epoch from wake_at - t);
end
$$;


-- Reports what became of a request. Outcomes:
--   ok:      answered, so counted by now;
--   unsent:  it never left: the slot is free at once;
--   unknown: no answer: the vendor may count it until the hold ends, so the slot stays as it was granted;
--   limited: refused with 429: the whole key waits, for `p_retry_after_seconds` (1 to 90) or a whole window.
-- `known` is false when the slot was lost meanwhile. `foreseen` is false for a refusal of a request that was allowed
-- after the last one, while there are no calls of our own that no slot remembers: somebody else uses the key, or the
-- vendor counts otherwise. Calls are then spaced for an hour. Of a request without a slot it is not known when it was
-- allowed: one that is refused while the key waits already was on its way by then.
create or replace function assetbatch.release_slot(
  p_key text, p_token uuid, p_outcome text, p_retry_after_seconds float8,
  out known boolean, out foreseen boolean
) language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
  r assetbatch.rate_limits;
  t timestamptz;
  s assetbatch.rate_limit_slots;
begin
  select * into strict r from assetbatch.rate_limits k where k.key_fingerprint = p_key for update;
  t := clock_timestamp();
  update assetbatch.rate_limit_slots f
  set token = null,
      counted_by = case p_outcome when 'unsent' then 'epoch' when 'unknown' then f.counted_by else t end,
      hold = case p_outcome when 'unknown' then f.hold else '0' end
  where f.key_fingerprint = p_key and f.token = p_token
  returning f.* into s;
  known := p_token is null or s.slot is not null;
  foreseen := true;
  if p_outcome = 'unsent' then
    return;
  end if;
  if p_outcome = 'limited' then
    foreseen := case when p_token is null then t < r.blocked_until else coalesce(s.granted_at, t) <= r.refused_at end
                or (r.max_calls is not null and t < r.full_by + r.window_length + r.margin)
                or coalesce(r.history <> assetbatch.history(), false);
    r.blocked_until := greatest(r.blocked_until, t + case
      when p_retry_after_seconds is null then r.window_length + r.margin
      else make_interval(secs => least(greatest(p_retry_after_seconds, 1), 90))
    end);
    r.refused_at := t;
    if not foreseen then
      r.spaced_until := t + interval '1 hour';
    end if;
  end if;
  update assetbatch.rate_limits k
  set last_answer_at = greatest(k.last_answer_at, s.counted_by),
      blocked_until = r.blocked_until, refused_at = r.refused_at, spaced_until = r.spaced_until
  where k.key_fingerprint = p_key;
end
$$;
