-- Limits: how many jobs of a queue, and of each of its groups, may run and start. The rule is that of
-- jobqueue/model/limits.py, to the number.
--
-- Leases are counted, and no counter stands beside them that could lose its step. So whoever claims in a queue with limits
-- or groups does so alone, and so does whoever ends its runs: see lock_turns.

create function jobqueue.is_count(p_value jsonb) returns boolean
language sql immutable
as $$
    select coalesce(case when jsonb_typeof(p_value) = 'number' then
        p_value::numeric between 1 and 1000000000000000 and p_value::numeric = trunc(p_value::numeric)
    end, false)
$$;

-- One limit; ``known``: whether it is one that these functions can keep.
create function jobqueue.read_limit(
    p_limit jsonb, out known boolean, out running bigint, out pause bigint, out tolerance bigint
)
language plpgsql immutable
as $$
declare
    v_rate jsonb := p_limit -> 'rate';
    v_pause numeric;
    v_tolerance numeric;
begin
    known := jsonb_typeof(p_limit) = 'object' and p_limit - '{running,rate}'::text[] = '{}'
        and (not p_limit ? 'running' or jobqueue.is_count(p_limit -> 'running'));
    if not known then
        return;
    end if;
    running := (p_limit ->> 'running')::bigint;
    if v_rate is not null then
        known := jsonb_typeof(v_rate) = 'object' and v_rate - '{count,per,burst}'::text[] = '{}'
            and jobqueue.is_count(v_rate -> 'count') and jobqueue.is_count(v_rate -> 'per')
            and jobqueue.is_count(v_rate -> 'burst');
        if not known then
            return;
        end if;
        v_pause := ceil((v_rate ->> 'per')::numeric * 1000 / (v_rate ->> 'count')::numeric);
        v_tolerance := greatest(((v_rate ->> 'burst')::numeric - 1) * v_pause, 999);
        known := v_pause + v_tolerance < 1000000000000000;
        if known then
            pause := v_pause;
            tolerance := v_tolerance;
        end if;
    end if;
end $$;

-- What the stored rules say. Those that these functions do not know cannot be kept: nothing is claimed then.
create function jobqueue.read_rules(p_rules jsonb, p_grouped boolean) returns jobqueue.limits
language plpgsql immutable
as $$
declare
    v_limits jobqueue.limits;
    v_queue record;
    v_group record;
begin
    v_limits.grouped := p_grouped;
    if p_rules is null then
        v_limits.paused := false;
        v_limits.limited := false;
        return v_limits;
    end if;
    if jsonb_typeof(p_rules) <> 'object' or p_rules - '{paused,queue,group,operator}'::text[] <> '{}' then
        v_limits.paused := true;
        v_limits.limited := false;
        return v_limits;
    end if;
    v_queue := jobqueue.read_limit(coalesce(p_rules -> 'queue', '{}'));
    v_group := jobqueue.read_limit(coalesce(p_rules -> 'group', '{}'));
    v_limits.paused := coalesce(p_rules -> 'paused', 'false') <> 'false' or not v_queue.known or not v_group.known;
    v_limits.running := v_queue.running;
    v_limits.pause := v_queue.pause;
    v_limits.tolerance := v_queue.tolerance;
    v_limits.group_running := v_group.running;
    v_limits.group_pause := v_group.pause;
    v_limits.group_tolerance := v_group.tolerance;
    v_limits.limited := p_rules ?| '{queue,group}';
    return v_limits;
end $$;

-- How many of ``p_want`` jobs may start now, and the number of the rate after them.
create function jobqueue.admit(
    p_running bigint, p_pause bigint, p_tolerance bigint, p_held bigint, p_tat bigint, p_now bigint, p_want bigint,
    out granted bigint, out tat bigint
)
language plpgsql immutable
as $$
declare
    v_instant bigint := p_now * 1000;
    v_early bigint;
begin
    granted := case when p_running is null then p_want else greatest(0, least(p_want, p_running - p_held)) end;
    tat := p_tat;
    if p_pause is not null then
        tat := least(tat, v_instant + p_tolerance + p_pause);
        v_early := greatest(0, tat - v_instant);
        granted := least(
            granted, case when v_early > p_tolerance then 0 else (p_tolerance - v_early) / p_pause + 1 end
        );
        if granted > 0 then
            tat := greatest(tat, v_instant) + granted * p_pause;
        end if;
    end if;
end $$;

-- The instant from which on one more may start, 0 if nothing is known against it; null: not before a run ends.
create function jobqueue.opens_at(
    p_running bigint, p_pause bigint, p_tolerance bigint, p_held bigint, p_tat bigint
) returns bigint
language sql immutable
as $$
    select case
        when p_running is not null and p_held >= p_running then null
        when p_pause is null then 0
        else greatest(0, (p_tat - p_tolerance + 999) / 1000)
    end
$$;

-- The rules of a queue. If it has limits or groups, nobody else claims in it or ends a run of it from here to the end of
-- the transaction: what is counted stays so. Whoever holds the lock of set_rules as well has taken that first.
create function jobqueue.lock_turns(p_q int) returns jobqueue.limits
language plpgsql volatile
as $$
declare
    v_rules jsonb;
    v_grouped boolean;
begin
    select q.rules, q.grouped into v_rules, v_grouped from jobqueue.queue q where q.queue = p_q;
    if v_grouped or v_rules ?| '{queue,group}' then
        perform pg_advisory_xact_lock(('jobqueue.pace'::regclass::oid::bigint - 2147483648)::int, p_q);
        -- As they are now: by those of before, a group that others found at its limit since would stay there.
        select q.rules, q.grouped into v_rules, v_grouped from jobqueue.queue q where q.queue = p_q;
    end if;
    return jobqueue.read_rules(v_rules, v_grouped);
end $$;

-- How many leases of a queue are held, or of one of its groups. Of queues that had limits or groups when they were given.
create function jobqueue.held(p_q int, p_group text default null) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    if p_group is null then
        return (select count(*) from jobqueue.lease l where l.counted and l.queue = p_q);
    end if;
    return (select count(*) from jobqueue.lease l where l.counted and l.queue = p_q and l.group_name = p_group);
end $$;

-- The number of a rate; 0 before its first start.
create function jobqueue.tat_of(p_q int, p_group text) returns bigint
language plpgsql volatile
as $$
begin
    return coalesce((select p.tat from jobqueue.pace p where p.group_name = p_group and p.queue = p_q), 0);
end $$;

create function jobqueue.set_tat(p_q int, p_group text, p_tat bigint) returns void
language plpgsql volatile
as $$
begin
    insert into jobqueue.pace as p (queue, tat, group_name) values (p_q, p_tat, p_group)
    on conflict (group_name, queue) do update set tat = excluded.tat;
end $$;

-- Has what is stored fit limits that were set just now, under lock_turns.
create function jobqueue.follow_rules(p_q int, p_now bigint, p_limits jobqueue.limits) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_latest bigint := p_now * 1000 + p_limits.tolerance + p_limits.pause;
    v_latest_of_groups bigint := p_now * 1000 + p_limits.group_tolerance + p_limits.group_pause;
begin
    if p_limits.limited then
        -- In the order in which workers renew their runs: nobody waits in a circle.
        perform 1 from jobqueue.lease l where l.queue = p_q and not l.counted order by l.slot, l.fence for no key update;
        update jobqueue.lease l set counted = true where l.queue = p_q and not l.counted;
        -- None is later than these limits could have come to: a faster rate is not waited for.
        update jobqueue.pace p set tat = case p.group_name when '' then v_latest else v_latest_of_groups end
        where p.queue = p_q and p.tat > least(v_latest, v_latest_of_groups)
        and p.tat > case p.group_name when '' then v_latest else v_latest_of_groups end;
    end if;
    -- Which groups may not start jobs is found out anew.
    perform jobqueue.reopen(p_q, 0, 9007199254740992);
end $$;

-- Milliseconds until a ready job may start, 0: now. Null: there is none, or none may before a run ends.
create function jobqueue.opens_in(p_q int, p_now bigint, p_limits jobqueue.limits) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_at bigint;
begin
    perform 1 from jobqueue.ready r where r.queue = p_q limit 1;
    if not found then
        return null;
    end if;
    v_at := jobqueue.opens_at(
        p_limits.running, p_limits.pause, p_limits.tolerance, jobqueue.held(p_q), jobqueue.tat_of(p_q, '')
    );
    if v_at is null or v_at > p_now then
        return v_at - p_now;
    end if;
    if p_limits.grouped then
        perform 1 from jobqueue.ready r where r.queue = p_q and r.slot in (0, 1, 2, 4) limit 1;
        if not found then
            perform 1 from jobqueue.line l where l.queue = p_q and l.opens is null limit 1;
            if not found then
                v_at := (
                    select l.opens from jobqueue.line l where l.queue = p_q and l.opens < 9007199254740992
                    order by l.opens limit 1
                );
            end if;
        end if;
    end if;
    return case when v_at is not null then greatest(0, v_at - p_now) end;
end $$;

-- Tells others that runs have ended, if there are any and ready jobs may start in their place. ``p_worker``: who claims as
-- many as it can itself; or nobody.
create function jobqueue.wake_for_room(
    p_q int, p_queue text, p_now bigint, p_limits jobqueue.limits, p_worker text
) returns void
language plpgsql volatile
as $$
begin
    if (p_limits.running is not null or p_limits.group_running is not null)
        and exists (select 1 from jobqueue.worker w where w.queue = p_q and w.name <> p_worker)
        and jobqueue.opens_in(p_q, p_now, p_limits) = 0
    then
        perform jobqueue.wake(p_queue);
    end if;
end $$;

-- Where groups stand by the limit of groups, and the queue (``''``) by its own.
create function jobqueue.usage(p_queue text, p_now bigint, p_groups text[])
returns table (running bigint, opens_in bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int;
    v_limits jobqueue.limits;
    v_group text;
    v_held bigint;
    v_at bigint;
begin
    v_q := (select q.queue from jobqueue.queue q where q.name = p_queue);
    v_limits := (select jobqueue.read_rules(q.rules, q.grouped) from jobqueue.queue q where q.queue = v_q);
    foreach v_group in array p_groups loop
        if v_group <> '' then
            v_held := jobqueue.held(v_q, v_group);
            v_at := jobqueue.opens_at(v_limits.group_running, v_limits.group_pause, v_limits.group_tolerance, v_held,
                jobqueue.tat_of(v_q, v_group));
        else
            v_held := (select count(*) from jobqueue.lease l where l.queue = v_q);
            v_at := jobqueue.opens_at(v_limits.running, v_limits.pause, v_limits.tolerance, v_held,
                jobqueue.tat_of(v_q, ''));
        end if;
        running := v_held;
        opens_in := case when v_at is not null then greatest(0, v_at - v_now) end;
        return next;
    end loop;
end $$;
