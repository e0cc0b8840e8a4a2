-- The rules of a queue: what may be claimed. `exchange` obeys them.

-- Replaces the rules, unless others than the expected ones are there; whether it did. A claim holds a lock from before
-- it reads the rules until its end, shared with all other claims. This waits for those under way, so that none is
-- committed after it has returned; and it waits for nothing else meanwhile, since claims wait for it.
create function jobqueue.set_rules(p_queue text, p_now bigint, p_rules text, p_any boolean, p_expected text)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_q int := jobqueue.queue_number(p_queue);
    v_now bigint;
    v_rules jsonb := nullif(p_rules, '')::jsonb;
    v_limits jobqueue.limits;
    v_give_up timestamptz := clock_timestamp() + interval '4 s';
begin
    loop
        begin
            perform pg_advisory_xact_lock(
                ('jobqueue.queue'::regclass::oid::bigint - 2147483648)::int, hashtext(p_queue)
            );
            -- No claim is under way now, nor begins before the end.
            perform jobqueue.lock_turns(v_q);
            perform 1 from jobqueue.queue q where q.queue = v_q for no key update nowait;
            exit;
        exception when lock_not_available then
            -- Somebody has the row, may be a transaction of a caller, which may want the locks next: they are given back.
            if clock_timestamp() > v_give_up then
                raise;
            end if;
        end;
        perform pg_sleep(0.02);
    end loop;
    v_now := jobqueue.instant(p_now);
    update jobqueue.queue q set rules = v_rules
    where q.queue = v_q and (p_any or q.rules is not distinct from nullif(p_expected, '')::jsonb);
    if not found then
        return false;
    end if;
    if v_rules is null or v_rules -> 'paused' is null then
        perform jobqueue.wake(p_queue);
    end if;
    v_limits := jobqueue.lock_turns(v_q);
    perform jobqueue.follow_rules(v_q, v_now, v_limits);
    return true;
end $$;

-- The rules, and where the queue stands; nothing for one that was never used.
create function jobqueue.get_rules(p_queue text, p_now bigint)
returns table (rules text, running bigint, ready bigint, next_due bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := jobqueue.instant(p_now);
begin
    return query
    select
        q.rules::text,
        (select count(*) from jobqueue.lease l where l.queue = q.queue),
        (select count(*) from jobqueue.ready r where r.queue = q.queue),
        (
            select greatest(0, d.at - v_now) from jobqueue.due d where d.queue = q.queue order by d.at, d.seq limit 1
        )
    from jobqueue.queue q where q.name = p_queue;
end $$;
