-- Inserting inside of a transaction of the caller, which may stay open for long.

-- Inserts a batch as insert_jobs does. The job exists if and only if the transaction commits, and so does the wake-up.
-- Nothing is locked that others need, except the ids; whoever wants one of these waits, for a bounded time, alone.
create function jobqueue.insert_inside(
    p_queue text, p_now bigint, p_token bigint, p_room int, p_budget bigint,
    p_ids text[], p_payloads bytea[], p_priorities int[], p_delays bigint[], p_run_ats bigint[],
    p_max_attempts int[], p_max_stalls int[], p_ttls bigint[], p_reuses smallint[], p_waits boolean[],
    p_headers bytea[], p_tasks text[], p_groups text[], p_letters bigint[], p_expires bigint[],
    p_weights smallint[]
) returns table (
    place int, status smallint, seq bigint, state smallint, data bytea, attempts int, seqs bigint[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
    v_room int := p_room;
begin
    -- Where all have room nobody has to count alone, which would last until the transaction ends.
    if p_room is not null and v_q is not null and p_room >= cardinality(p_ids)
        + (select count(*) from (select 1 from jobqueue.ready r where r.queue = v_q limit p_room) r)
        + (select count(*) from (select 1 from jobqueue.due d where d.queue = v_q limit p_room) d)
    then
        v_room := null;
    end if;
    return query select * from jobqueue.insert_jobs(
        p_queue, p_now, p_token, false, null, v_room, p_budget, p_ids, p_payloads, p_priorities, p_delays, p_run_ats,
        p_max_attempts, p_max_stalls, p_ttls, p_reuses, p_waits, p_headers, p_tasks, p_groups, p_letters, p_expires,
        p_weights, 2::smallint
    );
end $$;

-- Which of these ids open transactions of others hold: they have inserted, deleted or locked the job, so that an insert
-- has to wait for their end. Each is tried, which leaves nothing behind.
create function jobqueue.held_ids(p_queue text, p_ids text[]) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set lock_timeout = '10ms'
as $$
declare
    v_q int := jobqueue.queue_number(p_queue);
    v_id text;
    v_seq bigint;
    v_held text[] := '{}';
begin
    for v_id in select distinct t.id from unnest(p_ids) t(id) order by t.id loop
        begin
            insert into jobqueue.job (
                queue, id, seq, token, created, priority, due, max_attempts, max_stalls, ttl, payload
            )
            values (v_q, v_id, 0, 0, 0, 0, 0, 1, 0, 0, '')
            on conflict do nothing;
            select j.seq into v_seq from jobqueue.job j where j.queue = v_q and j.id = v_id for update;
            perform 1 from jobqueue.ready r where r.queue = v_q and r.seq = v_seq for update;
            perform 1 from jobqueue.due d where d.queue = v_q and d.seq = v_seq for update;
            perform 1 from jobqueue.lease l where l.seq = v_seq for key share;
            raise sqlstate 'JQ001';  -- takes it back
        exception
            when sqlstate 'JQ001' then
                null;
            when lock_not_available then
                v_held := v_held || v_id;
        end;
    end loop;
    return v_held;
end $$;
