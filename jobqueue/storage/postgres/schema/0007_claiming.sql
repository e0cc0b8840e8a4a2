-- Claiming jobs and renewing leases.

-- Moves due jobs to the back of ready. Those due before ``p_from`` were moved before.
create function jobqueue.promote(p_q int, p_now bigint, p_from bigint, p_limit int) returns void
language plpgsql volatile
as $$
declare
    v_at tid[];
    v_jobs jobqueue.due[];
    v_slot smallint := (select t.last_value from jobqueue.ready_turn t);
begin
    -- A row does not move while it is locked.
    select array_agg(p.at), array_agg(p.job) into v_at, v_jobs from (
        select d.ctid as at, d as job from jobqueue.due d where d.queue = p_q and d.at >= p_from and d.at <= p_now
        order by d.at, d.seq limit p_limit for update skip locked
    ) p;
    if v_at is not null then
        delete from jobqueue.due d where d.ctid = any(v_at);
        insert into jobqueue.ready (
            queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, group_name
        )
        select
            p_q, d.priority, nextval('jobqueue.number'), d.seq, d.at, d.updated, d.fence, d.attempts, d.stalls,
            jobqueue.slot_of(d.group_name, v_slot), d.id, d.weight, d.group_name
        from unnest(v_jobs) d;
        perform jobqueue.join_lines(
            p_q, array_agg(d.group_name order by d.n), array_agg(d.priority order by d.n),
            array_agg(d.weight order by d.n)
        )
        from (
            select (v_jobs[n.n]).group_name, (v_jobs[n.n]).priority, (v_jobs[n.n]).weight, n.n
            from generate_subscripts(v_jobs, 1) n(n)
        ) d
        where d.group_name <> '' having count(*) > 0;
    end if;
end $$;

-- Notes of those of the jobs that are leased now that they have started.
create function jobqueue.have_started(p_q int, p_jobs jobqueue.ready[]) returns void
language sql volatile
as $$
    update jobqueue.detail x set start_before = null
    where x.queue = p_q and x.seq = any(array(select j.seq from unnest(p_jobs) j)) and x.start_before is not null
    and exists (select 1 from jobqueue.lease l where l.seq = x.seq)
$$;

-- Settles, promotes, fails what has not started in time, and claims. The first row has the letters of the settlements,
-- when the next job is due, and how far the claim has come; a row for each claimed job follows. ``more`` of the first row says that the queue is paused.
--
-- Jobs are taken from spans of the line in their order. A span is one priority (``p_most`` = ``p_least``) from a place
-- on to another, or all priorities between two. A claim with one span over everything finds all there is; narrower ones
-- pass by what was claimed before, whose rows stay in the index until vacuum may remove them.
-- ``p_due_from``: jobs due before it were moved to the line before.
-- ``reached``: the clock in microseconds, which is below all places that are given from now on; the milliseconds below
-- which no due job is left; how many microseconds picking took; then, if there may be more, priority and place of the
-- last job that was picked. ``priorities``: of the jobs picked. ``expired``: ids of the jobs that have failed, up to
-- ``p_expire``, with ``p_late`` for their error.
-- In a queue with limits or groups a last row without a job follows: when the next job may start, where limits keep them
-- back, and in ``more`` whether the claim was cut short by ``p_budget``.
create function jobqueue.exchange(
    p_queue text, p_now bigint, p_worker text, p_token bigint, p_repeated boolean, p_limit int, p_lease bigint,
    p_budget bigint, p_promote int, p_ids text[], p_fences bigint[], p_actions smallint[], p_data bytea[],
    p_ttls bigint[], p_delays bigint[], p_summaries bytea[], p_due_from bigint, p_most int[], p_least int[],
    p_low bigint[], p_high bigint[], p_expire int, p_late bytea
) returns table (
    settled text, next_due bigint, more boolean, id text, payload bytea, fence bigint, attempts int, max_attempts int,
    ttl bigint, created bigint, headers bytea, task text, group_name text, seq bigint, due bigint, saved bytea,
    history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[], reached bigint[],
    priorities int[], expired text[]
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
    v_q int;
    v_began timestamptz := clock_timestamp();
    v_at tid[];
    v_picked jobqueue.ready[];
    v_again bigint[];
    v_slot smallint := (select t.last_value from jobqueue.lease_turn t);
    v_timed boolean;
    v_rules jsonb;
    v_grouped boolean;
    v_limited boolean;
    v_limits jobqueue.limits;
    v_wanted int := p_limit;
    v_held bigint;
    v_taken int;
begin
    if p_limit > 0 then
        -- From here to the end of the transaction the rules stay: see set_rules.
        perform pg_advisory_xact_lock_shared(
            ('jobqueue.queue'::regclass::oid::bigint - 2147483648)::int, hashtext(p_queue)
        );
    end if;
    select q.queue, q.rules, q.grouped into v_q, v_rules, v_grouped from jobqueue.queue q where q.name = p_queue;
    if v_q is null then
        v_q := jobqueue.queue_number(p_queue);
        v_grouped := false;
    end if;
    more := false;
    v_limited := v_rules is not null or v_grouped;
    if v_limited then
        v_limits := jobqueue.lock_turns(v_q);
        more := v_limits.paused;
        v_limited := v_limits.limited or v_grouped;
        perform jobqueue.runs_end(v_q, v_limits, p_fences);
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
        if v_limited and settled <> '' then
            perform jobqueue.wake_for_room(v_q, p_queue, v_now, v_limits, '');
        end if;
        reached := null;  -- what the first call has seen is not known
        return next;
        return query
        select
            null::text, null::bigint, true, l.id, j.payload, l.fence, l.attempts, j.max_attempts, j.ttl, j.created,
            j.headers, j.task, j.group_name, l.seq, l.due, x.saved,
            h.history_at, h.history_attempt, h.history_worker, h.history_error, null::bigint[], null::int[], null::text[]
        from jobqueue.lease l join jobqueue.job j on j.queue = v_q and j.id = l.id
        left join jobqueue.detail x on x.queue = v_q and x.seq = l.seq
        left join lateral jobqueue.history(v_q, l.seq) h on true
        where p_limit > 0 and l.queue = v_q and l.token = p_token order by l.fence;
        return;
    end if;
    if more then
        reached := null;
        return next;
        return;
    end if;
    v_timed := jobqueue.may_have_late();
    if v_timed then
        expired := jobqueue.expire_jobs(v_q, p_queue, v_now, p_expire, p_late);
    end if;
    if v_grouped then
        reached := null;
        return next;
        return query select * from jobqueue.claim_in_turns(
            v_q, p_queue, v_now, p_worker, p_token, p_limit, p_lease, p_budget, v_limits, v_timed, settled <> ''
        );
        return;
    end if;
    if v_limited then
        v_held := jobqueue.held(v_q);
        p_limit := (jobqueue.admit(
            v_limits.running, v_limits.pause, v_limits.tolerance, v_held, jobqueue.tat_of(v_q, ''), v_now, p_limit
        )).granted;
        if p_limit = 0 then
            reached := null;
            return next;
            return query select * from jobqueue.note_starts(
                v_q, p_queue, p_worker, v_now, v_limits, v_wanted, 0, v_held, false, settled <> ''
            );
            return;
        end if;
    end if;
    v_began := clock_timestamp();
    -- A row does not move while it is locked.
    select
        array_agg(p.at), array_agg(p.job), array_agg((p.job).seq) filter (where (p.job).fence > 0),
        array_agg((p.job).priority)
    into v_at, v_picked, v_again, priorities
    from (
        select f.at, f.job
        from unnest(p_most, p_least, p_low, p_high) l(most, least, low, high)
        cross join lateral (
            select x.at, x.job from (
                select r.ctid as at, r as job from jobqueue.ready r
                where l.most = l.least and r.queue = v_q and r.priority = l.most
                and r.place >= l.low and r.place < l.high and r.slot < 3
                order by r.place limit p_limit for no key update skip locked
            ) x
            union all
            select x.at, x.job from (
                select r.ctid as at, r as job from jobqueue.ready r
                where l.most > l.least and r.queue = v_q and r.priority <= l.most and r.priority >= l.least
                and r.slot < 3
                order by r.priority desc, r.place limit p_limit for no key update skip locked
            ) x
        ) f
        limit p_limit
    ) p;
    reached[3] := (extract(epoch from clock_timestamp() - v_began) * 1000000)::bigint;
    if cardinality(v_at) = p_limit then
        reached := reached || array[v_picked[p_limit].priority::bigint, v_picked[p_limit].place];
    end if;
    if v_timed then
        -- What could not be failed, as somebody else had it in hand, must not start either.
        select array_agg(v_at[n.n] order by n.n), array_agg(v_picked[n.n] order by n.n),
            array_agg((v_picked[n.n]).priority)
        into v_at, v_picked, priorities
        from generate_subscripts(v_at, 1) n(n) where not exists (
            select 1 from jobqueue.detail x
            where x.queue = v_q and x.seq = (v_picked[n.n]).seq and x.start_before <= v_now
        );
    end if;
    priorities := array(select distinct t.priority from unnest(priorities) t(priority));
    return next;
    if v_at is null then
        if v_limited then
            return query select * from jobqueue.note_starts(
                v_q, p_queue, p_worker, v_now, v_limits, v_wanted, 0, v_held, false, settled <> ''
            );
        end if;
        return;
    end if;
    if v_again is null then
        -- The same without what only a job has that was claimed before: most never were.
        return query
        with sized as materialized (
            select
                p.*, j.*, sum(octet_length(j.payload) + octet_length(j.headers)) over (order by p.n rows unbounded preceding)
                    as bytes
            from unnest(v_at, v_picked) with ordinality
                p(at, queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, in_group, n)
            cross join lateral (
                select j.payload, j.max_attempts, j.ttl, j.created, j.headers, j.task, j.group_name
                from jobqueue.job j where j.queue = v_q and j.id = p.id offset 0
            ) j
        ),
        taken as materialized (
            select s.*, nextval('jobqueue.number') as new_fence
            from (select s.* from sized s where s.n = 1 or s.bytes <= p_budget order by s.n offset 0) s
        ),
        gone_0 as (
            delete from jobqueue.ready_0 r where r.ctid = any(array(select t.at from taken t where t.slot = 0))
        ),
        gone_1 as (
            delete from jobqueue.ready_1 r where r.ctid = any(array(select t.at from taken t where t.slot = 1))
        ),
        gone_2 as (
            delete from jobqueue.ready_2 r where r.ctid = any(array(select t.at from taken t where t.slot = 2))
        ),
        held as (
            insert into jobqueue.lease (
                queue, until, seq, fence, token, due, updated, priority, attempts, stalls, slot, counted, id, worker
            )
            select
                v_q, v_now + p_lease, t.seq, t.new_fence, p_token, t.due, v_now, t.priority, t.attempts + 1, t.stalls,
                v_slot, v_limited, t.id, p_worker
            from taken t
        )
        select
            null::text, null::bigint, (select count(*) from taken) < cardinality(v_at), t.id, t.payload,
            t.new_fence, t.attempts + 1, t.max_attempts, t.ttl, t.created, t.headers, t.task, t.group_name, t.seq, t.due,
            null::bytea, null::bigint[], null::int[], null::text[], null::bytea[], null::bigint[], null::int[], null::text[]
        from taken t order by t.n;
        get diagnostics v_taken = row_count;
        if v_timed then
            perform jobqueue.have_started(v_q, v_picked);
        end if;
        if v_limited then
            return query select * from jobqueue.note_starts(
                v_q, p_queue, p_worker, v_now, v_limits, v_wanted, v_taken, v_held, v_taken < cardinality(v_at), settled <> ''
            );
        end if;
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
            p(at, queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, in_group, n)
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
    gone_0 as (
        delete from jobqueue.ready_0 r where r.ctid = any(array(select t.at from taken t where t.slot = 0))
    ),
    gone_1 as (
        delete from jobqueue.ready_1 r where r.ctid = any(array(select t.at from taken t where t.slot = 1))
    ),
    gone_2 as (
        delete from jobqueue.ready_2 r where r.ctid = any(array(select t.at from taken t where t.slot = 2))
    ),
    held as (
        insert into jobqueue.lease (
            queue, until, seq, fence, token, due, updated, priority, attempts, stalls, slot, counted, id, worker
        )
        select
            v_q, v_now + p_lease, t.seq, t.new_fence, p_token, t.due, v_now, t.priority, t.attempts + 1, t.stalls,
            v_slot, v_limited, t.id, p_worker
        from taken t
    )
    select
        null::text, null::bigint, (select count(*) from taken) < cardinality(v_at), t.id, t.payload,
        t.new_fence, t.attempts + 1, t.max_attempts, t.ttl, t.created, t.headers, t.task, t.group_name, t.seq, t.due,
        t.saved, t.history_at, t.history_attempt, t.history_worker, t.history_error, null::bigint[], null::int[], null::text[]
    from taken t order by t.n;
    get diagnostics v_taken = row_count;
    if v_timed then
        perform jobqueue.have_started(v_q, v_picked);
    end if;
    update jobqueue.detail x set progress = null
    where x.queue = v_q and x.seq = any(v_again) and x.progress is not null
    and exists (select 1 from jobqueue.lease l where l.seq = x.seq);
    if v_limited then
        return query select * from jobqueue.note_starts(
            v_q, p_queue, p_worker, v_now, v_limits, v_wanted, v_taken, v_held, v_taken < cardinality(v_at), settled <> ''
        );
    end if;
end $$;

-- Settles as settle_then does, and then promotes and claims as exchange does: what was inserted may be claimed at once.
create function jobqueue.exchange_then(
    p_queue text, p_now bigint, p_worker text, p_token bigint, p_repeated boolean, p_limit int, p_lease bigint,
    p_budget bigint, p_promote int, p_ids text[], p_fences bigint[], p_actions smallint[], p_data bytea[],
    p_ttls bigint[], p_delays bigint[], p_summaries bytea[], p_due_from bigint, p_most int[], p_least int[],
    p_low bigint[], p_high bigint[], p_expire int, p_late bytea, p_then int[], p_new_ids text[], p_payloads bytea[],
    p_priorities int[], p_new_delays bigint[], p_run_ats bigint[], p_max_attempts int[], p_max_stalls int[],
    p_new_ttls bigint[], p_reuses smallint[], p_waits boolean[], p_headers bytea[], p_tasks text[], p_groups text[],
    p_letters bigint[], p_expires bigint[], p_weights smallint[]
) returns table (
    settled text, next_due bigint, more boolean, id text, payload bytea, fence bigint, attempts int, max_attempts int,
    ttl bigint, created bigint, headers bytea, task text, group_name text, seq bigint, due bigint, saved bytea,
    history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[], reached bigint[],
    priorities int[], expired text[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_letters text;
    v_commit text := current_setting('synchronous_commit');
begin
    if p_limit > 0 then
        -- Before that of lock_turns: whoever wants both takes them in this order.
        perform pg_advisory_xact_lock_shared(
            ('jobqueue.queue'::regclass::oid::bigint - 2147483648)::int, hashtext(p_queue)
        );
    end if;
    v_letters := jobqueue.settle_then(
        p_queue, p_now, p_token, p_repeated, p_ids, p_fences, p_actions, p_data, p_ttls, p_delays, p_summaries,
        p_then, p_new_ids, p_payloads, p_priorities, p_new_delays, p_run_ats, p_max_attempts, p_max_stalls, p_new_ttls,
        p_reuses, p_waits, p_headers, p_tasks, p_groups, p_letters, p_expires, p_weights
    );
    return query
    select
        case when e.settled is not null then v_letters end, e.next_due, e.more, e.id, e.payload, e.fence, e.attempts,
        e.max_attempts, e.ttl, e.created, e.headers, e.task, e.group_name, e.seq, e.due, e.saved, e.history_at,
        e.history_attempt, e.history_worker, e.history_error, e.reached, e.priorities, e.expired
    from jobqueue.exchange(
        p_queue, p_now, p_worker, p_token, p_repeated, p_limit, p_lease, p_budget, p_promote, '{}', '{}', '{}', '{}',
        '{}', '{}', '{}', p_due_from, p_most, p_least, p_low, p_high, p_expire, p_late
    ) e;
    -- A claim alone is not flushed; this is more than a claim.
    perform set_config('synchronous_commit', v_commit, true);
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
