-- What ends and deletes jobs from outside of a run.

-- Fails waiting jobs that were never claimed and whose time to start is over, by that instant, then by seq; their ids.
-- Those that somebody else has in hand just now are left to the next call.
create function jobqueue.expire_jobs(p_q int, p_queue text, p_now bigint, p_limit int, p_error bytea) returns text[]
language plpgsql volatile
as $$
declare
    v_seqs bigint[];
    v_ready_0 tid[];
    v_ready_1 tid[];
    v_ready_2 tid[];
    v_ready_3 tid[];
    v_ready_4 tid[];
    v_due tid[];
    v_ended bigint[];
    v_ids text[];
    v_groups text[];
    v_priorities int[];
begin
    select array_agg(x.seq order by x.start_before, x.seq) into v_seqs from (
        select x.seq, x.start_before from jobqueue.detail x where x.queue = p_q and x.start_before <= p_now
        order by x.start_before, x.seq limit p_limit for update skip locked
    ) x;
    if v_seqs is null then
        return '{}';
    end if;
    -- A row does not move while it is locked.
    select
        array_agg(r.group_name) filter (where r.slot = 3), array_agg(r.priority) filter (where r.slot = 3),
        array_agg(r.at) filter (where r.slot = 0), array_agg(r.at) filter (where r.slot = 1),
        array_agg(r.at) filter (where r.slot = 2), array_agg(r.at) filter (where r.slot = 3),
        array_agg(r.at) filter (where r.slot = 4)
    into v_groups, v_priorities, v_ready_0, v_ready_1, v_ready_2, v_ready_3, v_ready_4
    from unnest(v_seqs) s(seq) cross join lateral (
        select r.ctid as at, r.slot, r.group_name, r.priority from jobqueue.ready r
        where r.queue = p_q and r.seq = s.seq offset 0 for update skip locked
    ) r;
    select array_agg(d.at) into v_due from unnest(v_seqs) s(seq) cross join lateral (
        select d.ctid as at from jobqueue.due d where d.queue = p_q and d.seq = s.seq offset 0 for update skip locked
    ) d;
    with from_ready_0 as (
        delete from jobqueue.ready_0 r where r.ctid = any(v_ready_0)
        returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
    ),
    from_ready_1 as (
        delete from jobqueue.ready_1 r where r.ctid = any(v_ready_1)
        returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
    ),
    from_ready_2 as (
        delete from jobqueue.ready_2 r where r.ctid = any(v_ready_2)
        returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
    ),
    from_ready_3 as (
        delete from jobqueue.ready_3 r where r.ctid = any(v_ready_3)
        returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
    ),
    from_ready_4 as (
        delete from jobqueue.ready_4 r where r.ctid = any(v_ready_4)
        returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
    ),
    from_due as (
        delete from jobqueue.due d where d.ctid = any(v_due)
        returning d.seq, d.fence, d.at, d.attempts, d.stalls, d.id
    ),
    gone as (
        select g.*, j.ttl, j.dead_letter_ttl from (
            select * from from_ready_0 union all select * from from_ready_1 union all select * from from_ready_2
            union all select * from from_ready_3 union all select * from from_ready_4
            union all select * from from_due
        ) g cross join lateral (
            select j.ttl, j.dead_letter_ttl from jobqueue.job j where j.queue = p_q and j.id = g.id offset 0
        ) j
    ),
    ended as (
        insert into jobqueue.outcome (
            queue, seq, fence, due, updated, expires, purge_at, attempts, stalls, state, id, data
        )
        select
            p_q, g.seq, g.fence, g.due, p_now, p_now + g.ttl, p_now + greatest(g.ttl, g.dead_letter_ttl), g.attempts,
            g.stalls, 6, g.id, p_error
        from gone g
    )
    select array_agg(g.seq), array_agg(g.id order by s.place) into v_ended, v_ids
    from gone g join unnest(v_seqs) with ordinality s(seq, place) on s.seq = g.seq;
    if v_groups is not null then
        perform jobqueue.end_lines(p_q, v_groups, v_priorities);
    end if;
    if v_ended is not null then
        perform jobqueue.tell(p_q, p_queue, v_ended);
    end if;
    -- Also of jobs that were cancelled.
    update jobqueue.detail x set start_before = null
    where x.queue = p_q and x.seq = any(v_seqs) and exists (
        select 1 from (select 1 from jobqueue.outcome o where o.queue = p_q and o.seq = x.seq offset 0) o
    );
    return coalesce(v_ids, '{}');
end $$;

-- Takes jobs from workers whose leases have run out, and fails those that have not started in time.
create function jobqueue.sweep(p_queue text, p_now bigint, p_limit int, p_error bytea, p_late bytea)
returns table (id text, state smallint, attempts int, stalls int, worker text, expired boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
    v_ids text[];
    v_states smallint[];
    v_attempts int[];
    v_stalls int[];
    v_workers text[];
    v_ended bigint[];
    v_often bigint[];
    v_over text[];
    v_groups text[];
    v_priorities int[];
    v_weights smallint[];
    v_slot smallint := (select t.last_value from jobqueue.ready_turn t);
    v_limits jobqueue.limits := jobqueue.lock_turns(v_q);
begin
    perform jobqueue.next_number();
    with expired as materialized (
        select l.* from jobqueue.lease l where l.queue = v_q and l.until <= v_now
        order by l.fence limit p_limit for update skip locked
    ),
    judged as materialized (
        select e.*, nextval('jobqueue.number') as new_fence from (
            select
                l.*, j.ttl, j.dead_letter_ttl,
                case when l.cancelling then 7 when l.stalls + 1 > j.max_stalls then 6 else 2 end::smallint as state
            from expired l cross join lateral (
                select j.* from jobqueue.job j where j.queue = v_q and j.id = l.id offset 0
            ) j
            order by l.fence offset 0
        ) e
    ),
    gone as (
        delete from jobqueue.lease l where l.fence = any(array(select e.fence from judged e))
    ),
    ended as (
        insert into jobqueue.outcome (
            queue, seq, fence, due, updated, expires, purge_at, attempts, stalls, state, cancelling, id,
            data
        )
        select
            v_q, e.seq, e.new_fence, e.due, v_now, v_now + e.ttl,
            v_now + greatest(e.ttl, case when e.state = 6 then e.dead_letter_ttl end), e.attempts, e.stalls + 1, e.state,
            e.cancelling, e.id, case when e.state = 6 then p_error end
        from judged e where e.state <> 2
    ),
    noted as (
        insert into jobqueue.attempt (queue, seq, fence, at, attempt, worker, error)
        select v_q, e.seq, e.fence, v_now, e.attempts, e.worker, p_error from judged e
    ),
    freed as (
        insert into jobqueue.ready (
            queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, group_name
        )
        select
            v_q, e.priority, -nextval('jobqueue.number'), e.seq, e.due, v_now, e.new_fence, e.attempts, e.stalls + 1,
            jobqueue.slot_of(e.group_name, v_slot), e.id, e.weight, e.group_name
        from (select e.* from judged e where e.state = 2 order by e.new_fence desc offset 0) e
    )
    select
        array_agg(e.id order by e.fence), array_agg(e.state order by e.fence), array_agg(e.attempts order by e.fence),
        array_agg(e.stalls + 1 order by e.fence), array_agg(e.worker order by e.fence),
        array_agg(e.seq) filter (where e.state <> 2), array_agg(e.seq) filter (where e.attempts + e.stalls >= 20),
        array_agg(e.group_name order by e.fence desc) filter (where e.state = 2 and e.group_name <> ''),
        array_agg(e.priority order by e.fence desc) filter (where e.state = 2 and e.group_name <> ''),
        array_agg(e.weight order by e.fence desc) filter (where e.state = 2 and e.group_name <> ''),
        array_agg(distinct e.group_name) filter (where e.group_name <> '')
    into v_ids, v_states, v_attempts, v_stalls, v_workers, v_ended, v_often, v_groups, v_priorities, v_weights, v_over
    from judged e;
    if v_ids is not null then
        perform jobqueue.runs_of_end(v_q, v_limits, v_over);
        if v_often is not null then
            perform jobqueue.trim_history(v_q, v_often);
        end if;
        if v_ended is not null then
            perform jobqueue.tell(v_q, p_queue, v_ended);
        end if;
        perform jobqueue.join_lines(v_q, v_groups, v_priorities, v_weights);
        if 2 = any(v_states) then
            perform jobqueue.wake(p_queue);
        elsif v_limits.limited then
            perform jobqueue.wake_for_room(v_q, p_queue, v_now, v_limits, '');
        end if;
        return query
        select t.id, t.state, t.attempts, t.stalls, t.worker, false
        from unnest(v_ids, v_states, v_attempts, v_stalls, v_workers)
            with ordinality t(id, state, attempts, stalls, worker, place)
        order by t.place;
    end if;
    p_limit := p_limit - coalesce(cardinality(v_ids), 0);
    if p_limit > 0 and jobqueue.may_have_late() then
        return query
        select t.id, 6::smallint, 0, 0, '', true
        from unnest(jobqueue.expire_jobs(v_q, p_queue, v_now, p_limit, p_late)) t(id);
    end if;
end $$;

-- Cancels waiting jobs, and asks the workers of running ones to end them. Returns the state of each job: 3 for one that
-- runs, 13 for one that was asked to end, 0 for one that is absent.
create function jobqueue.cancel_jobs(p_queue text, p_now bigint, p_ids text[], p_running boolean)
returns int[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
    v_seqs bigint[];
    v_ready_0 tid[];
    v_ready_1 tid[];
    v_ready_2 tid[];
    v_ready_3 tid[];
    v_ready_4 tid[];
    v_due tid[];
    v_ended bigint[];
    v_asked text[] := '{}';
    v_fences bigint[];
    v_states int[];
    v_run record;
    v_groups text[];
    v_priorities int[];
begin
    if v_q is null then
        return array_fill(0, array[cardinality(p_ids)]);
    end if;
    for v_turn in 1..100 loop  -- a job that an edit by hand has left nowhere would be looked for without end
        v_seqs := array(
            select j.seq from jobqueue.job j where j.queue = v_q and j.id = any(p_ids) order by j.seq
        );
        -- A row does not move while it is locked.
        select
            v_groups || array_agg(r.group_name) filter (where r.slot = 3),
            v_priorities || array_agg(r.priority) filter (where r.slot = 3),
            array_agg(r.at) filter (where r.slot = 0), array_agg(r.at) filter (where r.slot = 1),
            array_agg(r.at) filter (where r.slot = 2), array_agg(r.at) filter (where r.slot = 3),
            array_agg(r.at) filter (where r.slot = 4)
        into v_groups, v_priorities, v_ready_0, v_ready_1, v_ready_2, v_ready_3, v_ready_4
        from unnest(v_seqs) s(seq) cross join lateral (
            select r.ctid as at, r.slot, r.group_name, r.priority from jobqueue.ready r
            where r.queue = v_q and r.seq = s.seq offset 0 for update
        ) r;
        select array_agg(d.at) into v_due from unnest(v_seqs) s(seq) cross join lateral (
            select d.ctid as at from jobqueue.due d where d.queue = v_q and d.seq = s.seq offset 0 for update
        ) d;
        with from_ready_0 as (
            delete from jobqueue.ready_0 r where r.ctid = any(v_ready_0)
            returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
        ),
        from_ready_1 as (
            delete from jobqueue.ready_1 r where r.ctid = any(v_ready_1)
            returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
        ),
        from_ready_2 as (
            delete from jobqueue.ready_2 r where r.ctid = any(v_ready_2)
            returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
        ),
        from_ready_3 as (
            delete from jobqueue.ready_3 r where r.ctid = any(v_ready_3)
            returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
        ),
        from_ready_4 as (
            delete from jobqueue.ready_4 r where r.ctid = any(v_ready_4)
            returning r.seq, r.fence, r.due, r.attempts, r.stalls, r.id
        ),
        from_due as (
            delete from jobqueue.due d where d.ctid = any(v_due)
            returning d.seq, d.fence, d.at, d.attempts, d.stalls, d.id
        ),
        gone as (
            select g.*, j.ttl from (
                select * from from_ready_0 union all select * from from_ready_1 union all select * from from_ready_2
                union all select * from from_ready_3 union all select * from from_ready_4
                union all select * from from_due
            ) g cross join lateral (
                select j.ttl from jobqueue.job j where j.queue = v_q and j.id = g.id offset 0
            ) j
        ),
        ended as (
            insert into jobqueue.outcome (
                queue, seq, fence, due, updated, expires, purge_at, attempts, stalls, state, id
            )
            select v_q, g.seq, g.fence, g.due, v_now, v_now + g.ttl, v_now + g.ttl, g.attempts, g.stalls, 7, g.id
            from gone g
        )
        select array_agg(g.seq) into v_ended from gone g;
        if v_ended is not null then
            perform jobqueue.tell(v_q, p_queue, v_ended);
        end if;
        if p_running then
            -- In the order in which workers renew and end their runs: nobody waits in a circle.
            v_fences := array(
                select l.fence from jobqueue.lease l where l.seq = any(v_seqs)
                order by l.slot, l.fence for no key update
            );
            for v_run in
                update jobqueue.lease l set cancelling = true where l.fence = any(v_fences) and l.seq = any(v_seqs)
                returning l.id, l.worker, l.fence
            loop
                v_asked := v_asked || v_run.id;
                perform pg_notify(
                    jobqueue.channel('address', v_run.worker),
                    json_build_array('cancel', p_queue, v_run.id, v_run.fence)::text
                );
            end loop;
        end if;
        select array_agg(case when r.state = 3 and t.id = any(v_asked) then 13 else coalesce(r.state, 0) end
            order by t.place)
        into v_states
        from unnest(p_ids) with ordinality t(id, place)
        left join lateral (
            select r.* from jobqueue.record r where r.queue = v_q and r.id = t.id offset 0
        ) r on r.expires is null or r.expires > v_now;
        -- One that moved from one place to the other in these moments is looked for again.
        exit when not v_states && array[1, 2, 4] and not (p_running and 3 = any(v_states));
    end loop;
    -- Last of all: claims wait for these rows, and the above for what claims have in hand.
    if v_groups is not null then
        perform jobqueue.end_lines(v_q, v_groups, v_priorities);
    end if;
    return v_states;
end $$;

-- Sets when records of ended jobs expire. Returns a letter for each: U updated, N absent, L not ended.
create function jobqueue.set_ttl(p_queue text, p_now bigint, p_ids text[], p_ttls bigint[]) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
    v_kept bigint[];
    v_lengths bigint[];
    v_at tid[];
begin
    -- Locked first: then nobody changes them, and they do not move.
    select coalesce(array_agg(f.seq), '{}'), array_agg(f.ttl), array_agg(f.at) into v_kept, v_lengths, v_at from (
        select j.seq, g.ttl, o.at from (
            select distinct on (t.id) t.id, t.ttl
            from unnest(p_ids, p_ttls) with ordinality t(id, ttl, place) order by t.id, t.place desc
        ) g
        cross join lateral (
            select j.seq from jobqueue.job j where j.queue = v_q and j.id = g.id offset 0
        ) j
        cross join lateral (
            select o.ctid as at from jobqueue.outcome o
            where o.queue = v_q and o.seq = j.seq and o.expires > v_now offset 0 for update
        ) o
    ) f;
    update jobqueue.outcome o set (expires, purge_at) = (
        select v_now + t.ttl, greatest(v_now + t.ttl, case when o.state = 6 and j.dead_letter_ttl is not null then o.purge_at end)
        from unnest(v_kept, v_lengths) t(seq, ttl) cross join lateral (
            select j.dead_letter_ttl from jobqueue.job j where j.queue = v_q and j.id = o.id offset 0
        ) j
        where t.seq = o.seq
    )
    where o.ctid = any(v_at);
    return coalesce((
        select string_agg(case when j.seq = any(v_kept) then 'U' when j.seq is null or o.seq is not null then 'N'
            else 'L' end, '' order by t.place)
        from unnest(p_ids) with ordinality t(id, place)
        left join lateral (
            select j.seq from jobqueue.job j where j.queue = v_q and j.id = t.id offset 0
        ) j on true
        left join lateral (
            select o.seq from jobqueue.outcome o where o.queue = v_q and o.seq = j.seq offset 0
        ) o on true
    ), '');
end $$;

-- Deletes expired records; their number.
create function jobqueue.purge_records(v_q int, v_now bigint, p_limit int) returns int
language plpgsql volatile
as $$
declare
    v_at tid[];
    v_seqs bigint[];
    v_ids text[];
    v_free bigint[];
    v_count int;
begin
    -- A row does not move while it is locked.
    select array_agg(o.at), array_agg(o.seq), array_agg(o.id) into v_at, v_seqs, v_ids from (
        select o.ctid as at, o.seq, o.id from jobqueue.outcome o where o.queue = v_q and o.purge_at <= v_now
        order by o.purge_at limit p_limit for update skip locked
    ) o;
    if v_at is null then
        return 0;
    end if;
    -- A job that somebody has in hand is left to the next call: a transaction of a caller may be open for long.
    v_free := array(
        select j.seq from jobqueue.job j where j.queue = v_q and j.id = any(v_ids) and j.seq = any(v_seqs)
        for update skip locked
    );
    select array_agg(t.at), array_agg(t.seq), array_agg(t.id) into v_at, v_seqs, v_ids
    from unnest(v_at, v_seqs, v_ids) t(at, seq, id)
    where t.seq = any(v_free) or not exists (
        select 1 from (
            select j.seq from jobqueue.job j where j.queue = v_q and j.id = t.id offset 0
        ) j
        where j.seq = t.seq
    );
    if v_at is null then
        return 0;
    end if;
    delete from jobqueue.job j where j.queue = v_q and j.id = any(v_ids) and j.seq = any(v_seqs);
    delete from jobqueue.detail x where x.queue = v_q and x.seq = any(v_seqs);
    delete from jobqueue.attempt a where a.queue = v_q and a.seq = any(v_seqs);
    with gone as (
        delete from jobqueue.outcome o where o.ctid = any(v_at) returning o.state
    )
    select count(*) into v_count from gone g where g.state < 10;
    if v_count > 0 then
        with added as (
            delete from jobqueue.gone g where g.queue = v_q returning g.jobs
        )
        insert into jobqueue.gone (queue, jobs) select v_q, coalesce(sum(a.jobs), 0) + v_count from added a;
    end if;
    return v_count;
end $$;

-- Deletes expired records and forgets workers that were not seen; the number of records.
create function jobqueue.purge(p_queue text, p_now bigint, p_limit int, p_seen_for bigint) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
    v_count int := jobqueue.purge_records(v_q, v_now, p_limit);
begin
    -- Last of all, and nothing is waited for: claims wait for these rows.
    delete from jobqueue.worker w where w.ctid = any(array(
        select o.ctid from jobqueue.worker o where o.queue = v_q and o.seen + p_seen_for <= v_now for update skip locked
    ));
    perform jobqueue.tidy_turns(v_q, v_now, p_limit);
    return v_count;
end $$;

-- The queues of which a sweep would take a job or a purge delete a record.
create function jobqueue.to_sweep(p_queues text[], p_now bigint) returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_now bigint := jobqueue.instant(p_now);
begin
    return query
    select q.name from unnest(p_queues) t(name) join jobqueue.queue q on q.name = t.name
    where exists (select 1 from jobqueue.lease l where l.queue = q.queue and l.until <= v_now)
        or exists (select 1 from jobqueue.detail x where x.queue = q.queue and x.start_before <= v_now)
        or exists (select 1 from jobqueue.outcome o where o.queue = q.queue and o.purge_at <= v_now);
end $$;
