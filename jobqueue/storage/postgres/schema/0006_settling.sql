-- Handing in runs.
--
-- Actions: 1 complete, 2 fail, 3 retry, 4 release, 5 cancel.

create type jobqueue.run as (
    place bigint, action int, data bytea, ttl bigint, delay bigint, summary bytea, lease jobqueue.lease
);

-- Writes settlements. Returns a letter for each: N accepted now, A accepted before, X cancelled, L lost. A repeated call
-- may find what it has ended itself as expired. Actions, TTLs, delays and summaries may be one for all.
create function jobqueue.settle(
    p_q int, p_queue text, p_now bigint, p_repeated boolean, p_ids text[], p_fences bigint[], p_actions smallint[],
    p_data bytea[], p_ttls bigint[], p_delays bigint[], p_summaries bytea[]
) returns text
language plpgsql volatile
set enable_nestloop = off  -- batches are planned as few rows: each would be compared with each
as $$
declare
    v_places bigint[];
    v_letters text[];
    v_ended bigint[];
    v_others jobqueue.run[];
    v_size int := cardinality(p_ids);
begin
    with given as materialized (
        select distinct on (t.fence, t.id) t.*
        from unnest(
            p_ids, p_fences, jobqueue.filled(p_actions, v_size), p_data, jobqueue.filled(p_ttls, v_size),
            jobqueue.filled(p_delays, v_size), jobqueue.filled(p_summaries, v_size)
        ) with ordinality t(id, fence, action, data, ttl, delay, summary, place)
        order by t.fence, t.id, t.place
    ),
    gone as (
        delete from jobqueue.lease l
        where l.fence = any(p_fences) and l.queue = p_q and (l.fence, l.id) in (select g.fence, g.id from given g)
        returning l.*
    ),
    runs as materialized (
        select
            g.place, case when l.cancelling then 5 else g.action end as action, g.data, g.ttl, g.delay, g.summary, l.*
        from gone l join given g on g.fence = l.fence and g.id = l.id
    ),
    -- Most runs complete. What the others need is in a statement of its own: a large one takes long to begin.
    completed as (
        insert into jobqueue.outcome (
            queue, seq, fence, due, updated, expires, purge_at, attempts, stalls, state, id, data
        )
        select
            p_q, r.seq, r.fence, r.due, p_now, p_now + r.ttl, p_now + r.ttl, r.attempts, r.stalls, 5, r.id, r.data
        from runs r where r.action = 1
    )
    select
        array_agg(r.place), array_agg(case when r.action = 5 then 'X' else 'N' end),
        array_agg(r.seq) filter (where r.action in (1, 2, 5)),
        array_agg(row(
            r.place, r.action, r.data, r.ttl, r.delay, r.summary, row(
                r.queue, r.until, r.seq, r.fence, r.token, r.due, r.updated, r.priority, r.attempts, r.stalls, r.slot,
                r.cancelling, r.counted, r.weight, r.id, r.worker, r.group_name
            )::jobqueue.lease
        )::jobqueue.run) filter (where r.action <> 1)
    into v_places, v_letters, v_ended, v_others
    from runs r;
    if v_others is not null then
        perform jobqueue.settle_others(p_q, p_queue, p_now, v_others);
    end if;
    -- A table that nobody has written to has no bytes. A row is there before the job can be ended that it waits for.
    if v_ended is not null and pg_relation_size('jobqueue.waiter'::regclass) > 0 then
        perform jobqueue.tell(p_q, p_queue, v_ended);
    end if;
    if cardinality(v_places) = v_size then
        return (select string_agg(t.letter, '' order by t.place) from unnest(v_places, v_letters) t(place, letter));
    end if;
    return (
        select string_agg(coalesce(w.letter, case
            when r.state = 7 then 'X' when r.state <> 3 then 'A' else 'L'
        end), '' order by t.place)
        from unnest(p_ids, p_fences) with ordinality t(id, fence, place)
        left join unnest(v_places, v_letters) w(place, letter) on w.place = t.place
        left join lateral (
            select r.* from jobqueue.record r where r.queue = p_q and r.id = t.id offset 0
        ) r on w.place is null and r.fence = t.fence and (p_repeated or r.expires is null or r.expires > p_now)
    );
end $$;

-- Writes how runs ended that did not complete: failed, cancelled, to be tried again or given back.
create function jobqueue.settle_others(p_q int, p_queue text, p_now bigint, p_runs jobqueue.run[]) returns void
language plpgsql volatile
as $$
declare
    v_later bigint[];
    v_freed boolean;
    v_often bigint[];
    v_slot smallint := (select t.last_value from jobqueue.ready_turn t);
begin
    with runs as materialized (
        select
            r.action, r.data, r.ttl, r.delay, r.summary, (r.lease).seq, (r.lease).fence, (r.lease).due,
            (r.lease).priority, (r.lease).attempts, (r.lease).stalls, (r.lease).cancelling, (r.lease).id,
            (r.lease).worker, (r.lease).weight, (r.lease).group_name
        from unnest(p_runs) r
    ),
    ended as (
        insert into jobqueue.outcome (
            queue, seq, fence, due, updated, expires, purge_at, attempts, stalls, state, cancelling, id, data
        )
        select
            p_q, e.seq, e.fence, e.due, p_now, p_now + e.keep, p_now + greatest(e.keep, e.letter), e.attempts, e.stalls,
            e.state, e.cancelling, e.id, e.data
        from (
            select
                r.seq, r.fence, r.due, r.attempts, r.stalls, r.id, r.cancelling,
                case r.action when 2 then 6 else 7 end as state,
                case when r.action = 2 then r.data end as data,
                case when r.action = 2 then r.ttl else j.ttl end as keep,
                case when r.action = 2 then j.dead_letter_ttl end as letter
            from runs r cross join lateral (
                select j.ttl, j.dead_letter_ttl from jobqueue.job j where j.queue = p_q and j.id = r.id offset 0
            ) j
            where r.action in (2, 5)
        ) e
    ),
    later as (
        insert into jobqueue.due (queue, at, seq, updated, fence, priority, attempts, stalls, id, weight, group_name)
        select
            p_q, p_now + r.delay, r.seq, p_now, r.fence, r.priority, r.attempts, r.stalls, r.id, r.weight, r.group_name
        from runs r where r.action = 3
    ),
    failed as (
        insert into jobqueue.detail as x (queue, seq, error)
        select p_q, r.seq, r.data from runs r where r.action = 3
        on conflict (queue, seq) do update set error = excluded.error
    ),
    noted as (
        insert into jobqueue.attempt (queue, seq, fence, at, attempt, worker, error)
        select p_q, r.seq, r.fence, p_now, r.attempts, r.worker, r.summary from runs r where r.action in (2, 3)
    ),
    freed as (
        insert into jobqueue.ready (
            queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, group_name
        )
        select
            p_q, f.priority, -nextval('jobqueue.number'), f.seq, f.due, p_now, f.fence, f.attempts - 1, f.stalls,
            jobqueue.slot_of(f.group_name, v_slot), f.id, f.weight, f.group_name
        from (select r.* from runs r where r.action = 4 order by r.fence desc offset 0) f
    )
    select
        array_agg(r.seq) filter (where r.action = 3), bool_or(r.action = 4),
        array_agg(r.seq) filter (where r.action in (2, 3) and r.attempts + r.stalls > 20)
    into v_later, v_freed, v_often
    from runs r;
    if v_often is not null then
        perform jobqueue.trim_history(p_q, v_often);
    end if;
    if v_freed then
        perform jobqueue.join_lines(
            p_q, array_agg((r.lease).group_name order by (r.lease).fence desc),
            array_agg((r.lease).priority order by (r.lease).fence desc),
            array_agg((r.lease).weight order by (r.lease).fence desc)
        )
        from unnest(p_runs) r where r.action = 4 and (r.lease).group_name <> '' having count(*) > 0;
    end if;
    if v_freed or jobqueue.is_next(p_q, v_later) then
        perform jobqueue.wake(p_queue);
    end if;
end $$;

-- Writes settlements that insert jobs when they are accepted, each before the next one is written; released jobs go to
-- the front together, after all others. ``p_then``: for each job to insert, the place of its settlement.
create function jobqueue.settle_then(
    p_queue text, p_now bigint, p_token bigint, p_repeated boolean, p_ids text[], p_fences bigint[],
    p_actions smallint[], p_data bytea[], p_ttls bigint[], p_delays bigint[], p_summaries bytea[], p_then int[],
    p_new_ids text[], p_payloads bytea[], p_priorities int[], p_new_delays bigint[], p_run_ats bigint[],
    p_max_attempts int[], p_max_stalls int[], p_new_ttls bigint[], p_reuses smallint[], p_waits boolean[],
    p_headers bytea[], p_tasks text[], p_groups text[], p_letters bigint[], p_expires bigint[], p_weights smallint[]
) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := jobqueue.queue_number(p_queue);
    v_part int[];
    v_letters text;
    v_answer text[] := array_fill(''::text, array[cardinality(p_ids)]);
    v_at int;
    v_limits jobqueue.limits := jobqueue.lock_turns(v_q);
begin
    -- All at once, in the order in which others lock them: what they insert is not in that order.
    perform 1 from jobqueue.lease l where l.queue = v_q and l.fence = any(p_fences) order by l.slot, l.fence for update;
    perform jobqueue.runs_end(v_q, v_limits, p_fences);
    for v_part in
        -- A part ends with a settlement that has jobs to insert; the releases are the last part.
        select array_agg(o.place order by o.place) from (
            select
                t.place::int as place, p_actions[t.place] = 4 as released,
                count(*) filter (where t.place = any(p_then) and p_actions[t.place] <> 4) over (
                    order by t.place rows between unbounded preceding and 1 preceding
                ) as part
            from unnest(p_ids) with ordinality t(id, place)
        ) o
        group by o.released, case when o.released then 0 else o.part end
        order by o.released, case when o.released then 0 else o.part end
    loop
        select jobqueue.settle(
            v_q, p_queue, v_now, p_repeated, array_agg(p_ids[n.place] order by n.at),
            array_agg(p_fences[n.place] order by n.at), array_agg(p_actions[n.place] order by n.at), array_agg(p_data[n.place] order by n.at),
            array_agg(p_ttls[n.place] order by n.at), array_agg(p_delays[n.place] order by n.at),
            array_agg(p_summaries[n.place] order by n.at)
        ) into v_letters
        from unnest(v_part) with ordinality n(place, at);
        for v_at in 1..cardinality(v_part) loop
            v_answer[v_part[v_at]] := substr(v_letters, v_at, 1);
        end loop;
        perform jobqueue.insert_jobs(
            p_queue, p_now, p_token, false, null, null, 0, array_agg(t.id order by t.n),
            array_agg(p_payloads[t.n] order by t.n), array_agg(p_priorities[t.n] order by t.n),
            array_agg(p_new_delays[t.n] order by t.n), array_agg(p_run_ats[t.n] order by t.n),
            array_agg(p_max_attempts[t.n] order by t.n), array_agg(p_max_stalls[t.n] order by t.n),
            array_agg(p_new_ttls[t.n] order by t.n), array_agg(p_reuses[t.n] order by t.n),
            array_agg(p_waits[t.n] order by t.n), array_agg(p_headers[t.n] order by t.n),
            array_agg(p_tasks[t.n] order by t.n), array_agg(p_groups[t.n] order by t.n),
            array_agg(p_letters[t.n] order by t.n), array_agg(p_expires[t.n] order by t.n),
            array_agg(p_weights[t.n] order by t.n)
        )
        from unnest(p_new_ids) with ordinality t(id, n)
        where p_then[t.n] = any(v_part) and v_answer[p_then[t.n]] = 'N'
        having count(*) > 0;
    end loop;
    if v_limits.running is not null or v_limits.group_running is not null then
        perform jobqueue.wake(p_queue);
    end if;
    return array_to_string(v_answer, '');
end $$;
