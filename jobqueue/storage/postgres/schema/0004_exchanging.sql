-- Handing in runs, claiming jobs and renewing leases.
--
-- Actions: 1 complete, 2 fail, 3 retry, 4 release, 5 cancel.

create type jobqueue.run as (
    place bigint, action int, data bytea, ttl bigint, delay bigint, summary bytea, lease jobqueue.lease
);

-- Writes settlements. Returns a letter for each: N accepted now, A accepted before, X cancelled, L lost. A repeated call
-- may find what it has ended itself as expired.
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
begin
    with given as materialized (
        select distinct on (t.fence, t.id) t.*
        from unnest(p_ids, p_fences, p_actions, p_data, p_ttls, p_delays, p_summaries)
            with ordinality t(id, fence, action, data, ttl, delay, summary, place)
        order by t.fence, t.id, t.place
    ),
    gone as (
        delete from jobqueue.lease l
        where l.fence = any(p_fences) and l.queue = p_q and (l.fence, l.id) in (select g.fence, g.id from given g)
        returning l.*
    ),
    runs as materialized (
        select
            g.place, case when l.cancelling then 5 else g.action end as action, g.data, g.ttl, g.delay, g.summary,
            row(l.*)::jobqueue.lease as lease
        from gone l join given g on g.fence = l.fence and g.id = l.id
    ),
    -- Most runs complete. What the others need is in a statement of its own: a large one takes long to begin.
    completed as (
        insert into jobqueue.outcome (
            queue, seq, fence, due, updated, expires, purge_at, attempts, stalls, state, id, data
        )
        select
            p_q, (r.lease).seq, (r.lease).fence, (r.lease).due, p_now, p_now + r.ttl, p_now + r.ttl,
            (r.lease).attempts, (r.lease).stalls, 5, (r.lease).id, r.data
        from runs r where r.action = 1
    )
    select
        array_agg(r.place), array_agg(case when r.action = 5 then 'X' else 'N' end),
        array_agg((r.lease).seq) filter (where r.action in (1, 2, 5)),
        array_agg(row(r.*)::jobqueue.run) filter (where r.action <> 1)
    into v_places, v_letters, v_ended, v_others
    from runs r;
    if v_others is not null then
        perform jobqueue.settle_others(p_q, p_queue, p_now, v_others);
    end if;
    if v_ended is not null then
        perform jobqueue.tell(p_q, p_queue, v_ended);
    end if;
    if cardinality(v_places) = cardinality(p_ids) then
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
begin
    with runs as materialized (
        select
            r.action, r.data, r.ttl, r.delay, r.summary, (r.lease).seq, (r.lease).fence, (r.lease).due,
            (r.lease).priority, (r.lease).attempts, (r.lease).stalls, (r.lease).cancelling, (r.lease).id,
            (r.lease).worker
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
        insert into jobqueue.due (queue, at, seq, updated, fence, priority, attempts, stalls, id)
        select p_q, p_now + r.delay, r.seq, p_now, r.fence, r.priority, r.attempts, r.stalls, r.id
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
        insert into jobqueue.ready (queue, priority, place, seq, due, updated, fence, attempts, stalls, id)
        select p_q, f.priority, -nextval('jobqueue.number'), f.seq, f.due, p_now, f.fence, f.attempts - 1, f.stalls, f.id
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
    if v_freed or jobqueue.is_next(p_q, v_later) then
        perform jobqueue.wake(p_queue);
    end if;
end $$;

-- Moves due jobs to the back of ready. Those due before ``p_from`` were moved before.
create function jobqueue.promote(p_q int, p_now bigint, p_from bigint, p_limit int) returns void
language plpgsql volatile
as $$
declare
    v_at tid[];
    v_jobs jobqueue.due[];
begin
    -- A row does not move while it is locked.
    select array_agg(p.at), array_agg(p.job) into v_at, v_jobs from (
        select d.ctid as at, d as job from jobqueue.due d where d.queue = p_q and d.at >= p_from and d.at <= p_now
        order by d.at, d.seq limit p_limit for update skip locked
    ) p;
    if v_at is not null then
        delete from jobqueue.due d where d.ctid = any(v_at);
        insert into jobqueue.ready (queue, priority, place, seq, due, updated, fence, attempts, stalls, id)
        select p_q, d.priority, nextval('jobqueue.number'), d.seq, d.at, d.updated, d.fence, d.attempts, d.stalls, d.id
        from unnest(v_jobs) d;
    end if;
end $$;

-- Settles, promotes and claims. The first row has the letters of the settlements, when the next job is due, and how far
-- the claim has come; a row for each claimed job follows.
--
-- Jobs are taken from spans of the line in their order. A span is one priority (``p_most`` = ``p_least``) from a place
-- on to another, or all priorities between two. A claim with one span over everything finds all there is; narrower ones
-- pass by what was claimed before, whose rows stay in the index until vacuum may remove them.
-- ``p_due_from``: jobs due before it were moved to the line before.
-- ``reached``: the clock in microseconds, which is below all places that are given from now on; the milliseconds below
-- which no due job is left; how many microseconds picking took; then, if there may be more, priority and place of the
-- last job that was picked. ``priorities``: of the jobs picked.
create function jobqueue.exchange(
    p_queue text, p_now bigint, p_worker text, p_token bigint, p_repeated boolean, p_limit int, p_lease bigint,
    p_budget bigint, p_promote int, p_ids text[], p_fences bigint[], p_actions smallint[], p_data bytea[],
    p_ttls bigint[], p_delays bigint[], p_summaries bytea[], p_due_from bigint, p_most int[], p_least int[],
    p_low bigint[], p_high bigint[]
) returns table (
    settled text, next_due bigint, more boolean, id text, payload bytea, fence bigint, attempts int, max_attempts int,
    ttl bigint, created bigint, headers bytea, task text, group_name text, seq bigint, due bigint, saved bytea,
    history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[], reached bigint[],
    priorities int[]
)
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
    v_began timestamptz := clock_timestamp();
    v_at tid[];
    v_picked jobqueue.ready[];
    v_again bigint[];
begin
    if v_q is null then
        v_q := jobqueue.queue_number(p_queue);
    end if;
    perform jobqueue.see(v_q, p_worker, v_now, case when p_now is null then 1000 else 0 end);
    if p_limit > 0 then
        -- The call and its repetition never claim at the same time.
        perform pg_advisory_xact_lock(p_token);
        perform jobqueue.next_number();
    end if;
    settled := '';
    if cardinality(p_ids) > 0 then
        settled := jobqueue.settle(v_q, p_queue, v_now, p_repeated, p_ids, p_fences, p_actions, p_data, p_ttls,
            p_delays, p_summaries);
    else
        -- A claim that a crash takes back is made again: its jobs are ready. A settlement flushes the claims before it.
        perform set_config('synchronous_commit', 'off', true);
    end if;
    next_due := (
        select d.at from jobqueue.due d where d.queue = v_q and d.at >= p_due_from order by d.at, d.seq limit 1
    );
    reached := array[(extract(epoch from v_began) * 1000000)::bigint, v_now, null];
    if p_limit > 0 and next_due <= v_now then
        perform jobqueue.promote(v_q, v_now, p_due_from, p_promote);
        next_due := (
            select d.at from jobqueue.due d where d.queue = v_q and d.at >= p_due_from order by d.at, d.seq limit 1
        );
        if next_due <= v_now then
            reached[2] := next_due;
        end if;
    end if;
    next_due := case when next_due is not null then greatest(0, next_due - v_now) end;
    if p_limit = 0 or p_repeated and exists (
        select 1 from jobqueue.lease l where l.queue = v_q and l.token = p_token
    ) then
        reached := null;  -- what the first call has seen is not known
        return next;
        return query
        select
            null::text, null::bigint, true, l.id, j.payload, l.fence, l.attempts, j.max_attempts, j.ttl, j.created,
            j.headers, j.task, j.group_name, l.seq, l.due, x.saved,
            h.history_at, h.history_attempt, h.history_worker, h.history_error, null::bigint[], null::int[]
        from jobqueue.lease l join jobqueue.job j on j.queue = v_q and j.id = l.id
        left join jobqueue.detail x on x.queue = v_q and x.seq = l.seq
        left join lateral jobqueue.history(v_q, l.seq) h on true
        where p_limit > 0 and l.queue = v_q and l.token = p_token order by l.fence;
        return;
    end if;
    v_began := clock_timestamp();
    -- A row does not move while it is locked.
    select array_agg(p.at), array_agg(p.job), array_agg((p.job).seq) filter (where (p.job).fence > 0)
    into v_at, v_picked, v_again
    from (
        select f.at, f.job
        from unnest(p_most, p_least, p_low, p_high) l(most, least, low, high)
        cross join lateral (
            select x.at, x.job from (
                select r.ctid as at, r as job from jobqueue.ready r
                where l.most = l.least and r.queue = v_q and r.priority = l.most
                and r.place >= l.low and r.place < l.high
                order by r.place limit p_limit for no key update skip locked
            ) x
            union all
            select x.at, x.job from (
                select r.ctid as at, r as job from jobqueue.ready r
                where l.most > l.least and r.queue = v_q and r.priority <= l.most and r.priority >= l.least
                order by r.priority desc, r.place limit p_limit for no key update skip locked
            ) x
        ) f
        limit p_limit
    ) p;
    reached[3] := (extract(epoch from clock_timestamp() - v_began) * 1000000)::bigint;
    if cardinality(v_at) = p_limit then
        reached := reached || array[v_picked[p_limit].priority::bigint, v_picked[p_limit].place];
    end if;
    priorities := array(select distinct r.priority from unnest(v_picked) r);
    return next;
    if v_at is null then
        return;
    end if;
    return query
    with sized as materialized (
        select
            p.*, j.*, x.saved, h.history_at, h.history_attempt, h.history_worker, h.history_error,
            sum(
                octet_length(j.payload) + octet_length(j.headers) + coalesce(octet_length(x.saved), 0)
                + coalesce(h.history_bytes, 0)
            ) over (order by p.n rows unbounded preceding) as bytes
        from unnest(v_at, v_picked) with ordinality
            p(at, queue, priority, place, seq, due, updated, fence, attempts, stalls, id, n)
        cross join lateral (
            select j.payload, j.max_attempts, j.ttl, j.created, j.headers, j.task, j.group_name
            from jobqueue.job j where j.queue = v_q and j.id = p.id offset 0
        ) j
        -- Who was never claimed has neither.
        left join lateral (
            select x.saved from jobqueue.detail x
            where x.queue = v_q and x.seq = case when p.fence > 0 then p.seq end offset 0
        ) x on true
        cross join lateral jobqueue.history(v_q, case when p.fence > 0 then p.seq end) h
    ),
    taken as materialized (
        select s.*, nextval('jobqueue.number') as new_fence
        from (select s.* from sized s where s.n = 1 or s.bytes <= p_budget order by s.n offset 0) s
    ),
    gone as (
        delete from jobqueue.ready r where r.ctid = any(array(select t.at from taken t))
    ),
    held as (
        insert into jobqueue.lease (
            queue, until, seq, fence, token, due, updated, priority, attempts, stalls, id, worker
        )
        select
            v_q, v_now + p_lease, t.seq, t.new_fence, p_token, t.due, v_now, t.priority, t.attempts + 1, t.stalls, t.id,
            p_worker
        from taken t
    )
    select
        null::text, null::bigint, (select count(*) from taken) < cardinality(v_at), t.id, t.payload,
        t.new_fence, t.attempts + 1, t.max_attempts, t.ttl, t.created, t.headers, t.task, t.group_name, t.seq, t.due,
        t.saved, t.history_at, t.history_attempt, t.history_worker, t.history_error, null::bigint[], null::int[]
    from taken t order by t.n;
    if v_again is not null then
        update jobqueue.detail x set progress = null
        where x.queue = v_q and x.seq = any(v_again) and x.progress is not null
        and exists (select 1 from jobqueue.lease l where l.seq = x.seq);
    end if;
end $$;

-- Renews leases. Returns a letter for each: H held, C held and to be cancelled, L lost.
create function jobqueue.extend_leases(
    p_queue text, p_now bigint, p_worker text, p_ids text[], p_fences bigint[], p_progress bytea[],
    p_saved bytea[], p_lease bigint
) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
set enable_nestloop = off
as $$
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := jobqueue.queue_number(p_queue);
    v_letters text;
begin
    if cardinality(p_ids) = 0 and p_lease = 0 then
        delete from jobqueue.worker w where w.queue = v_q and w.name = p_worker;
        return '';
    end if;
    perform jobqueue.see(v_q, p_worker, v_now, case when p_now is null then 1000 else 0 end);
    if not exists (select 1 from unnest(p_saved) t(saved) where t.saved is not null) then
        -- A crash that takes it back gives the job to another worker at the worst, as if it had come late.
        perform set_config('synchronous_commit', 'off', true);
    end if;
    with given as materialized (
        select t.* from unnest(p_ids, p_fences, p_progress, p_saved)
            with ordinality t(id, fence, progress, saved, place)
    ),
    renewed as (
        update jobqueue.lease l set until = v_now + p_lease, updated = v_now
        where l.fence = any(p_fences) and l.queue = v_q and (l.fence, l.id) in (select g.fence, g.id from given g)
        returning l.id, l.fence, l.seq, l.cancelling
    ),
    told as (
        insert into jobqueue.detail as x (queue, seq, progress, saved)
        select
            v_q, r.seq, (array_agg(g.progress order by g.place desc) filter (where g.progress is not null))[1],
            (array_agg(g.saved order by g.place desc) filter (where g.saved is not null))[1]
        from renewed r join given g on g.id = r.id and g.fence = r.fence
        where g.progress is not null or g.saved is not null
        group by r.seq
        on conflict (queue, seq) do update set
            progress = coalesce(excluded.progress, x.progress), saved = coalesce(excluded.saved, x.saved)
    )
    select string_agg(case when r.cancelling then 'C' when r.id is not null then 'H' else 'L' end, '' order by g.place)
    into v_letters
    from given g left join renewed r on r.id = g.id and r.fence = g.fence;
    return coalesce(v_letters, '');
end $$;

-- Writes settlements that insert jobs when they are accepted, each before the next one is written; released jobs go to
-- the front together, after all others. ``p_then``: for each job to insert, the place of its settlement.
create function jobqueue.settle_then(
    p_queue text, p_now bigint, p_token bigint, p_repeated boolean, p_ids text[], p_fences bigint[],
    p_actions smallint[], p_data bytea[], p_ttls bigint[], p_delays bigint[], p_summaries bytea[], p_then int[],
    p_new_ids text[], p_payloads bytea[], p_priorities int[], p_new_delays bigint[], p_run_ats bigint[],
    p_max_attempts int[], p_max_stalls int[], p_new_ttls bigint[], p_reuses smallint[], p_waits boolean[],
    p_headers bytea[], p_tasks text[], p_groups text[], p_letters bigint[]
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
begin
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
            array_agg(p_letters[t.n] order by t.n)
        )
        from unnest(p_new_ids) with ordinality t(id, n)
        where p_then[t.n] = any(v_part) and v_answer[p_then[t.n]] = 'N'
        having count(*) > 0;
    end loop;
    return array_to_string(v_answer, '');
end $$;
