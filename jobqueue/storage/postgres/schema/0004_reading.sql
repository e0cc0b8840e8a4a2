-- Reading: every job as a record.

create view jobqueue.record as
select
    j.queue, j.id, j.seq,
    case
        when o.seq is not null then o.state
        when l.seq is not null then 3::smallint
        when r.seq is not null then 2::smallint
        when d.attempts > 0 then 4::smallint
        when d.seq is not null then 1::smallint
        -- To a caller's transaction with an older snapshot a slot that was truncated since is empty.
        else 2::smallint
    end as state,
    j.priority,
    coalesce(o.due, l.due, r.due, d.at, j.due) as due,
    j.created,
    coalesce(o.updated, l.updated, r.updated, d.updated, j.created) as updated,
    coalesce(o.attempts, l.attempts, r.attempts, d.attempts, 0) as attempts,
    j.max_attempts,
    coalesce(o.stalls, l.stalls, r.stalls, d.stalls, 0) as stalls,
    j.max_stalls, j.ttl,
    coalesce(o.fence, l.fence, r.fence, d.fence, 0) as fence,
    l.worker,
    l.until,
    coalesce(o.cancelling, l.cancelling, false) as cancelling,
    case when o.state = 5 then o.data end as result,
    case when o.seq is null then x.error when o.state = 6 then o.data end as error,
    x.progress,
    o.expires,
    o.purge_at,
    case when o.state in (5, 7) then null else j.payload end as payload,
    j.headers, j.task, j.group_name, j.token,
    x.start_within
-- Each looked up by its key, whatever the statistics say: at most times these tables are empty.
from jobqueue.job j
left join lateral (
    select r.* from jobqueue.ready r where r.queue = j.queue and r.seq = j.seq offset 0
) r on true
left join lateral (select l.* from jobqueue.lease l where l.seq = j.seq offset 0) l on true
left join lateral (select d.* from jobqueue.due d where d.queue = j.queue and d.seq = j.seq offset 0) d on true
left join lateral (
    select o.* from jobqueue.outcome o where o.queue = j.queue and o.seq = j.seq offset 0
) o on true
left join lateral (
    select x.* from jobqueue.detail x where x.queue = j.queue and x.seq = j.seq offset 0
) x on true;

-- The failed attempts and stalls of a job, oldest first.
create function jobqueue.history(p_q int, p_seq bigint) returns table (
    history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[], history_bytes bigint
)
language sql stable
as $$
    select
        array_agg(a.at order by a.fence), array_agg(a.attempt order by a.fence), array_agg(a.worker order by a.fence),
        array_agg(a.error order by a.fence), sum(octet_length(a.error))
    from jobqueue.attempt a where a.queue = p_q and a.seq = p_seq
$$;

-- Keeps the last attempts of jobs that have many.
create function jobqueue.trim_history(p_q int, p_seqs bigint[]) returns void
language plpgsql volatile
as $$
begin
    delete from jobqueue.attempt a
    where (a.queue, a.seq, a.fence) in (
        select p_q, x.seq, x.fence from (
            select b.seq, b.fence, row_number() over (partition by b.seq order by b.fence desc) as n
            from jobqueue.attempt b where b.queue = p_q and b.seq = any(p_seqs)
        ) x where x.n > 20
    );
end $$;

create function jobqueue.read_jobs(
    p_queue text, p_now bigint, p_ids text[], p_reply text, p_payload boolean, p_letters boolean, p_budget bigint
) returns table (
    place bigint, id text, seq bigint, state smallint, priority int, due bigint, created bigint, updated bigint,
    attempts int, max_attempts int, stalls int, max_stalls int, ttl bigint, fence bigint, worker text, until bigint,
    cancelling boolean, result bytea, error bytea, progress bytea, expires bigint, payload bytea, headers bytea,
    task text, group_name text, history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[],
    start_within bigint
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
begin
    if p_reply is not null and v_q is not null then
        -- A claim and this may each hold what the other waits for: then this is made again.
        perform set_config('lock_timeout', '100ms', true);
        perform jobqueue.add_waiters(v_q, p_ids, p_reply);
    end if;
    return query
    select
        x.place, x.id, x.seq, x.state, x.priority, x.due, x.created, x.updated, x.attempts, x.max_attempts, x.stalls,
        x.max_stalls, x.ttl, x.fence, x.worker, x.until, x.cancelling, x.result, x.error, x.progress, x.expires,
        case when p_payload then x.payload end, x.headers, x.task, x.group_name,
        x.history_at, x.history_attempt, x.history_worker, x.history_error, x.start_within
    from (
        select t.place, r.*, h.*, sum(
            coalesce(octet_length(r.headers), 0) + coalesce(h.history_bytes, 0) +
            coalesce(octet_length(r.result), 0) + coalesce(octet_length(r.error), 0)
            + coalesce(octet_length(r.progress), 0)
            + case when p_payload then coalesce(octet_length(r.payload), 0) else 0 end
        ) over (order by t.place rows unbounded preceding) as bytes
        from unnest(p_ids) with ordinality t(wanted, place)
        left join lateral (
            select r.* from jobqueue.record r where r.queue = v_q and r.id = t.wanted offset 0
        ) r on r.expires is null or r.expires > v_now or p_letters and r.state = 6 and r.purge_at > v_now
        left join lateral jobqueue.history(v_q, r.seq) h on r.fence > 0
    ) x
    where x.place = 1 or x.bytes <= p_budget
    order by x.place;
end $$;

-- The results and errors of ended jobs, for messages that named them; not the longest.
create function jobqueue.read_outcomes(p_queue text, p_seqs bigint[], p_longest int)
returns table (seq bigint, data bytea)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
begin
    return query
    select s.seq, case when octet_length(o.data) <= p_longest then o.data end
    from unnest(p_seqs) s(seq) cross join lateral (
        select o.data from jobqueue.outcome o where o.queue = v_q and o.seq = s.seq offset 0
    ) o;
end $$;

create function jobqueue.list_jobs(
    p_queue text, p_now bigint, p_state smallint, p_after bigint, p_limit int, p_budget bigint
) returns table (
    found bigint, id text, seq bigint, state smallint, priority int, due bigint, created bigint, updated bigint,
    attempts int, max_attempts int, stalls int, max_stalls int, ttl bigint, fence bigint, worker text, until bigint,
    cancelling boolean, error bytea, progress bytea, expires bigint, task text, group_name text, start_within bigint
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
begin
    return query
    select
        x.found, x.id, x.seq, x.state, x.priority, x.due, x.created, x.updated, x.attempts, x.max_attempts, x.stalls,
        x.max_stalls, x.ttl, x.fence, x.worker, x.until, x.cancelling, x.error, x.progress, x.expires,
        x.task, x.group_name, x.start_within
    from (
        select r.*, count(*) over () as found, row_number() over line as n, sum(
            coalesce(octet_length(r.error), 0) + coalesce(octet_length(r.progress), 0)
        ) over line as bytes
        from (
            -- Of these only the one for the state is carried out.
            (select r.id from jobqueue.ready r
            where p_state = 2 and r.queue = v_q and r.seq > p_after order by r.seq limit p_limit)
            union all
            (select l.id from jobqueue.lease l
            where p_state = 3 and l.queue = v_q and l.seq > p_after order by l.seq limit p_limit)
            union all
            (select d.id from jobqueue.due d
            where p_state = 1 and d.queue = v_q and d.seq > p_after and d.attempts = 0 order by d.seq limit p_limit)
            union all
            (select d.id from jobqueue.due d
            where p_state = 4 and d.queue = v_q and d.seq > p_after and d.attempts > 0 order by d.seq limit p_limit)
            union all
            (select o.id from jobqueue.outcome o
            where p_state = 5 and o.queue = v_q and o.seq > p_after and o.state = 5 and o.expires > v_now
            order by o.seq limit p_limit)
            union all
            (select o.id from jobqueue.outcome o
            where p_state in (6, 7) and o.queue = v_q and o.state = p_state and o.state <> 5 and o.seq > p_after
            and o.purge_at > v_now
            order by o.seq limit p_limit)
        ) f
        cross join lateral (
            select r.* from jobqueue.record r where r.queue = v_q and r.id = f.id offset 0
        ) r
        window line as (order by r.seq rows unbounded preceding)
    ) x
    where x.n = 1 or x.bytes <= p_budget
    order by x.seq;
end $$;

-- When the oldest among the next ready job of each priority was created; null if none is ready.
create function jobqueue.oldest_ready(p_q int) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    return (
        with recursive line as (
            (
                select r.priority, r.id from jobqueue.ready r where r.queue = p_q and r.slot <> 3
                order by r.priority desc, r.place limit 1
            )
            union all
            select n.priority, n.id from line l cross join lateral (
                select r.priority, r.id from jobqueue.ready r
                where r.queue = p_q and r.slot <> 3 and r.priority < l.priority order by r.priority desc, r.place limit 1
            ) n
        ),
        front as (
            select l.id from line l
            union all
            select r.id from (
                select distinct on (g.priority) g.group_name, g.priority from jobqueue.line g where g.queue = p_q
                order by g.priority, g.turn
            ) g
            cross join lateral (
                select r.id from jobqueue.ready_3 r
                where r.group_name = g.group_name and r.queue = p_q and r.priority = g.priority order by r.place limit 1
            ) r
        )
        select min((select j.created from jobqueue.job j where j.queue = p_q and j.id = f.id)) from front f
    );
end $$;

create function jobqueue.count_jobs(p_queue text, p_now bigint) returns table (
    scheduled bigint, queued bigint, processing bigint, failing bigint, completed bigint, failed bigint,
    cancelled bigint, oldest bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- A queue may have nearly all rows of a table or nearly none: one plan for both would read them all.
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
begin
    return query
    select
        w.scheduled, (select count(*) from jobqueue.ready r where r.queue = v_q),
        (select count(*) from jobqueue.lease l where l.queue = v_q), w.failing,
        e.completed, e.failed, e.cancelled, jobqueue.oldest_ready(v_q)
    from (
        select count(*) filter (where d.attempts = 0) as scheduled, count(*) filter (where d.attempts > 0) as failing
        from jobqueue.due d where d.queue = v_q
    ) w cross join (
        select count(*) filter (where o.state = 5) as completed, count(*) filter (where o.state = 6) as failed,
            count(*) filter (where o.state = 7) as cancelled
        from jobqueue.outcome o where o.queue = v_q and o.purge_at > v_now
    ) e;
end $$;

-- The same of several queues, small ones as a rule: to plan this takes longer than to count the jobs of a few.
create function jobqueue.count_jobs_of(p_queues text[], p_now bigint) returns table (
    name text, scheduled bigint, queued bigint, processing bigint, failing bigint, completed bigint, failed bigint,
    cancelled bigint, oldest bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := jobqueue.instant(p_now);
    v_qs int[] := array(select q.queue from jobqueue.queue q where q.name = any(p_queues));
begin
    return query
    select
        q.name, coalesce(d.scheduled, 0), coalesce(r.jobs, 0), coalesce(l.jobs, 0), coalesce(d.failing, 0),
        coalesce(e.completed, 0), coalesce(e.failed, 0), coalesce(e.cancelled, 0), jobqueue.oldest_ready(q.queue)
    from jobqueue.queue q
    left join (
        select r.queue, count(*) as jobs from jobqueue.ready r where r.queue = any(v_qs) group by r.queue
    ) r on r.queue = q.queue
    left join (
        select l.queue, count(*) as jobs from jobqueue.lease l where l.queue = any(v_qs) group by l.queue
    ) l on l.queue = q.queue
    left join (
        select d.queue, count(*) filter (where d.attempts = 0) as scheduled,
            count(*) filter (where d.attempts > 0) as failing
        from jobqueue.due d where d.queue = any(v_qs) group by d.queue
    ) d on d.queue = q.queue
    left join (
        select o.queue, count(*) filter (where o.state = 5) as completed, count(*) filter (where o.state = 6) as failed,
            count(*) filter (where o.state = 7) as cancelled
        from jobqueue.outcome o where o.queue = any(v_qs) and o.purge_at > v_now group by o.queue
    ) e on e.queue = q.queue
    where q.queue = any(v_qs);
end $$;

-- Milliseconds until an exchange could claim something; null if nothing waits. Ready jobs of a paused queue do not count.
create function jobqueue.work_in(p_queue text, p_now bigint) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_q int;
    v_rules jsonb;
    v_grouped boolean;
    v_limits jobqueue.limits;
    v_now bigint := jobqueue.instant(p_now);
    v_opens bigint;
begin
    select q.queue, q.rules, q.grouped into v_q, v_rules, v_grouped from jobqueue.queue q where q.name = p_queue;
    if v_rules is not null or v_grouped then
        v_limits := jobqueue.read_rules(v_rules, v_grouped);
        if not v_limits.paused then
            v_opens := jobqueue.opens_in(v_q, v_now, v_limits);
        end if;
    else
        perform 1 from jobqueue.ready r where r.queue = v_q and r.slot < 3 order by r.priority desc, r.place limit 1;
        if found then
            v_opens := 0;
        end if;
    end if;
    if v_opens = 0 then
        return 0;
    end if;
    return least(v_opens, (
        select greatest(0, d.at - v_now) from jobqueue.due d where d.queue = v_q order by d.at, d.seq limit 1
    ));
end $$;

-- Volatile: it must not look with a snapshot from before it has locked the slots.
create function jobqueue.queue_names() returns setof text
language sql volatile
set search_path = pg_catalog, pg_temp
-- One row of each queue is looked up; `exists` would be answered from a hash of all rows.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
    select q.name from jobqueue.queue q
    where (select true from jobqueue.ready r where r.queue = q.queue limit 1)
        or (select true from jobqueue.due d where d.queue = q.queue limit 1)
        or (select true from jobqueue.lease l where l.queue = q.queue limit 1)
        or (select true from jobqueue.outcome o where o.queue = q.queue and o.state < 10 limit 1)
$$;

create function jobqueue.list_workers(p_queues text[], p_now bigint, p_seen_for bigint)
returns table (queue text, name text, seen bigint, running bigint)
language sql volatile
as $$
    select q.name, w.name, w.seen, coalesce(l.jobs, 0)
    from jobqueue.queue q join jobqueue.worker w on w.queue = q.queue
    left join (
        select l.queue, l.worker, count(*) as jobs from jobqueue.lease l
        where l.queue in (select q.queue from jobqueue.queue q where q.name = any(p_queues)) group by l.queue, l.worker
    ) l on l.queue = w.queue and l.worker = w.name
    where q.name = any(p_queues) and w.seen + p_seen_for > jobqueue.instant(p_now)
$$;

-- How many jobs have ended, also those whose records are deleted.
create function jobqueue.count_ended(p_queues text[]) returns table (name text, jobs bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    v_qs int[] := array(select q.queue from jobqueue.queue q where q.name = any(p_queues));
begin
    return query
    select q.name, coalesce(o.jobs, 0) + coalesce(g.jobs, 0)::bigint
    from jobqueue.queue q
    left join (
        select o.queue, count(*) as jobs from jobqueue.outcome o
        where o.queue = any(v_qs) and o.state < 10 group by o.queue
    ) o on o.queue = q.queue
    left join (
        select g.queue, sum(g.jobs) as jobs from jobqueue.gone g where g.queue = any(v_qs) group by g.queue
    ) g on g.queue = q.queue
    where q.queue = any(v_qs);
end $$;
