-- Inserting.

create type jobqueue.new_job as (
    place int, seq bigint, due bigint, id text, payload bytea, priority int, max_attempts int, max_stalls int,
    ttl bigint, reuse smallint, waits boolean, headers bytea, task text, group_name text, dead_letter_ttl bigint,
    start_within bigint, weight smallint
);

-- Creates those of the jobs whose ids are free, and returns their places in the batch. For a few: see insert_jobs.
create function jobqueue.create_jobs(
    p_q int, p_queue text, p_now bigint, p_token bigint, p_reply text, p_jobs jobqueue.new_job[],
    p_slot smallint
) returns int[]
language plpgsql volatile
as $$
declare
    v_seqs bigint[];
    v_made jobqueue.new_job[] := p_jobs;
    v_places int[];
    v_later bigint[];
    v_waiting bigint[];
    v_timed boolean;
begin
    with made as (
        -- In the order of the ids: two batches with the same ones never wait for each other.
        insert into jobqueue.job (
            queue, id, seq, token, created, priority, due, max_attempts, max_stalls, ttl, payload, headers, task,
            group_name, dead_letter_ttl, weight
        )
        select p_q, n.id, n.seq, p_token, p_now, n.priority, n.due, n.max_attempts, n.max_stalls, n.ttl, n.payload,
            n.headers, n.task, n.group_name, n.dead_letter_ttl, n.weight
        from unnest(p_jobs) n order by n.id, n.place
        on conflict do nothing
        returning seq
    )
    select array_agg(m.seq) into v_seqs from made m;
    if v_seqs is null then
        return '{}';
    end if;
    if cardinality(v_seqs) < cardinality(p_jobs) then
        v_made := array(select n from unnest(p_jobs) n where n.seq = any(v_seqs));
    end if;
    select
        array_agg(n.place), array_agg(n.seq) filter (where n.due > p_now),
        array_agg(n.seq) filter (where n.waits and p_reply is not null), bool_or(n.start_within is not null)
    into v_places, v_later, v_waiting, v_timed
    from unnest(v_made) n;
    if v_timed then
        insert into jobqueue.detail (queue, seq, start_within, start_before)
        select p_q, n.seq, n.start_within, n.due + n.start_within from unnest(v_made) n where n.start_within is not null;
    end if;
    if v_later is null or cardinality(v_later) < cardinality(v_made) then
        insert into jobqueue.ready (queue, priority, place, seq, due, updated, slot, id, weight, group_name)
        select
            p_q, n.priority, n.seq, n.seq, n.due, p_now, jobqueue.slot_of(n.group_name, p_slot), n.id, n.weight,
            n.group_name
        from unnest(v_made) n where n.due <= p_now;
        if p_slot < 2 then
            perform jobqueue.join_lines(
                p_q, array_agg(n.group_name order by n.place), array_agg(n.priority order by n.place),
                array_agg(n.weight order by n.place)
            )
            from unnest(v_made) n where n.due <= p_now and n.group_name <> '' having count(*) > 0;
        end if;
        perform jobqueue.wake(p_queue);
    end if;
    if v_later is not null then
        insert into jobqueue.due (queue, at, seq, updated, priority, id, weight, group_name)
        select p_q, n.due, n.seq, p_now, n.priority, n.id, n.weight, n.group_name
        from unnest(v_made) n where n.due > p_now;
        if jobqueue.is_next(p_q, v_later) then
            perform jobqueue.wake(p_queue);
        end if;
    end if;
    if v_waiting is not null then
        insert into jobqueue.waiter (seq, address, added) select w.seq, p_reply, w.seq from unnest(v_waiting) w(seq);
    end if;
    return v_places;
end $$;

-- Whether one of the jobs is due before all others that wait for their time.
create function jobqueue.is_next(p_q int, p_seqs bigint[]) returns boolean
language plpgsql volatile
as $$
begin
    return p_seqs is not null and (
        select d.seq = any(p_seqs) from jobqueue.due d where d.queue = p_q order by d.at, d.seq limit 1
    );
end $$;

-- Deletes what is left of an ended job; whether it was still there. With ``p_now`` one that has just ended keeps its
-- outcome for a minute, under a state of its own: whoever waited for it is told, and may not have read it yet.
create function jobqueue.drop_job(p_q int, p_id text, p_seq bigint, p_now bigint default null) returns boolean
language plpgsql volatile
as $$
begin
    delete from jobqueue.job j where j.queue = p_q and j.id = p_id and j.seq = p_seq;
    if not found then
        return false;
    end if;
    update jobqueue.outcome o set state = o.state + 10, expires = p_now, purge_at = p_now + 60000
    where o.queue = p_q and o.seq = p_seq and o.updated > p_now - 60000;
    if not found then
        delete from jobqueue.outcome o where o.queue = p_q and o.seq = p_seq;
    end if;
    insert into jobqueue.gone (queue, jobs) values (p_q, 1);
    delete from jobqueue.detail x where x.queue = p_q and x.seq = p_seq;
    delete from jobqueue.attempt a where a.queue = p_q and a.seq = p_seq;
    return true;
end $$;

-- Inserts a batch. Status: 1 created, 2 found, 3 full, 4 found and its data is too large for this answer. Callers of one
-- batch must not wait for the id of one of them for long: see held_ids.
-- Of the columns of a batch all but ids and payloads may have one value for all.
-- ``p_slot``: where new rows of ready go, if not to the slot whose turn it is.
-- ``seqs``: of all jobs in their order, in one row, if all were created and none has to wait for its time.
create function jobqueue.insert_jobs(
    p_queue text, p_now bigint, p_token bigint, p_repeated boolean, p_reply text, p_room int, p_budget bigint,
    p_ids text[], p_payloads bytea[], p_priorities int[], p_delays bigint[], p_run_ats bigint[],
    p_max_attempts int[], p_max_stalls int[], p_ttls bigint[], p_reuses smallint[], p_waits boolean[],
    p_headers bytea[], p_tasks text[], p_groups text[], p_letters bigint[], p_expires bigint[],
    p_weights smallint[], p_slot smallint default null
) returns table (
    place int, status smallint, seq bigint, state smallint, data bytea, attempts int, seqs bigint[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
set lock_timeout = '50ms'
as $$
#variable_conflict use_column
declare
    v_now bigint := jobqueue.instant(p_now);
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
    v_slot smallint := coalesce(p_slot, (select t.last_value from jobqueue.ready_turn t));
    v_size int := cardinality(p_ids);
    v_jobs jobqueue.new_job[];
    v_seqs bigint[];
    v_new_seqs bigint[];
    v_later bigint[];
    v_all boolean;
    v_made int[] := '{}';
    v_room int;
    v_new jobqueue.new_job;
    v_old record;
    v_bytes bigint := 0;
    v_grouped boolean := array_remove(p_groups, '') <> '{}';
begin
    if v_q is null then
        v_q := jobqueue.queue_number(p_queue);
    end if;
    if v_grouped then
        perform jobqueue.use_groups(v_q);
    end if;
    perform jobqueue.next_number();
    if p_room is not null then
        -- Whoever counts does so alone, until the end of the transaction, so that many may stand in line.
        perform set_config('lock_timeout', '5s', true);
        perform 1 from jobqueue.queue q where q.queue = v_q for update;
        perform set_config('lock_timeout', '50ms', true);
        v_room := p_room
            - (select count(*) from (select 1 from jobqueue.ready r where r.queue = v_q limit p_room) r)
            - (select count(*) from (select 1 from jobqueue.due d where d.queue = v_q limit p_room) d);
    end if;
    if v_room is null or v_room >= v_size then
        with given as materialized (
            select t.*, nextval('jobqueue.number') as seq, coalesce(t.run_at, v_now + t.delay) as due
            from unnest(
                p_ids, p_payloads, jobqueue.filled(p_priorities, v_size), jobqueue.filled(p_delays, v_size),
                jobqueue.filled(p_run_ats, v_size), jobqueue.filled(p_max_attempts, v_size),
                jobqueue.filled(p_max_stalls, v_size), jobqueue.filled(p_ttls, v_size),
                jobqueue.filled(p_headers, v_size), jobqueue.filled(p_tasks, v_size), jobqueue.filled(p_groups, v_size),
                jobqueue.filled(p_letters, v_size)
            ) with ordinality t(
                id, payload, priority, delay, run_at, max_attempts, max_stalls, ttl, headers, task, group_name,
                dead_letter_ttl, place
            )
        ),
        made as (
            -- In the order of the ids: two batches with the same ones never wait for each other.
            insert into jobqueue.job (
                queue, id, seq, token, created, priority, due, max_attempts, max_stalls, ttl, payload, headers, task,
                group_name, dead_letter_ttl
            )
            select v_q, g.id, g.seq, p_token, v_now, g.priority, g.due, g.max_attempts, g.max_stalls, g.ttl, g.payload,
                g.headers, g.task, g.group_name, g.dead_letter_ttl
            from given g order by g.id, g.place
            on conflict do nothing
            returning seq, priority, due, id
        ),
        lined as (
            insert into jobqueue.ready (queue, priority, place, seq, due, updated, slot, id)
            select v_q, m.priority, m.seq, m.seq, m.due, v_now, v_slot, m.id
            from made m where m.due <= v_now and not v_grouped
        )
        select
            (select array_agg(g.seq order by g.place) from given g), array_agg(m.seq),
            array_agg(m.seq) filter (where m.due > v_now)
        into v_seqs, v_new_seqs, v_later
        from made m;
        v_all := cardinality(v_new_seqs) = v_size;
        if cardinality(v_new_seqs) > coalesce(cardinality(v_later), 0) then
            perform jobqueue.wake(p_queue);
        end if;
        if v_grouped and v_new_seqs is not null then
            perform jobqueue.line_up(
                v_q, v_now, v_slot, array_agg(t.id), array_agg(t.seq), array_agg(t.priority), array_agg(t.due),
                array_agg(t.group_name), array_agg(t.weight)
            )
            from (
                select t.*, coalesce(t.run_at, v_now + t.delay) as due from unnest(
                    p_ids, v_seqs, jobqueue.filled(p_priorities, v_size), jobqueue.filled(p_delays, v_size),
                    jobqueue.filled(p_run_ats, v_size), jobqueue.filled(p_groups, v_size),
                    jobqueue.filled(p_weights, v_size)
                ) t(id, seq, priority, delay, run_at, group_name, weight)
                where v_all or t.seq = any(v_new_seqs)
                order by t.seq
            ) t;
        end if;
        if v_later is not null then
            insert into jobqueue.due (queue, at, seq, updated, priority, id, weight, group_name)
            select v_q, coalesce(t.run_at, v_now + t.delay), t.seq, v_now, t.priority, t.id, t.weight, t.group_name
            from unnest(
                v_seqs, p_ids, jobqueue.filled(p_priorities, v_size), jobqueue.filled(p_delays, v_size),
                jobqueue.filled(p_run_ats, v_size), jobqueue.filled(p_weights, v_size), jobqueue.filled(p_groups, v_size)
            ) t(seq, id, priority, delay, run_at, weight, group_name)
            where coalesce(t.run_at, v_now + t.delay) > v_now and (v_all or t.seq = any(v_new_seqs));
            if jobqueue.is_next(v_q, v_later) then
                perform jobqueue.wake(p_queue);
            end if;
        end if;
        if array_remove(p_expires, null) <> '{}' and v_new_seqs is not null then
            insert into jobqueue.detail (queue, seq, start_within, start_before)
            select v_q, t.seq, t.start_within, coalesce(t.run_at, v_now + t.delay) + t.start_within
            from unnest(
                v_seqs, jobqueue.filled(p_delays, v_size), jobqueue.filled(p_run_ats, v_size),
                jobqueue.filled(p_expires, v_size)
            ) t(seq, delay, run_at, start_within)
            where t.start_within is not null and (v_all or t.seq = any(v_new_seqs));
        end if;
        if p_reply is not null and v_new_seqs is not null then
            insert into jobqueue.waiter (seq, address, added)
            select t.seq, p_reply, t.seq from unnest(v_seqs, jobqueue.filled(p_waits, v_size)) t(seq, waits)
            where t.waits and (v_all or t.seq = any(v_new_seqs));
        end if;
        if v_all and v_later is null then
            place := 0;
            status := 1;
            state := 2;
            attempts := 0;
            seqs := v_seqs;
            return next;
            return;
        end if;
        return query
        select
            t.place::int, 1::smallint, t.seq,
            case when coalesce(t.run_at, v_now + t.delay) <= v_now then 2 else 1 end::smallint, null::bytea, 0,
            null::bigint[]
        from unnest(v_seqs, jobqueue.filled(p_delays, v_size), jobqueue.filled(p_run_ats, v_size))
            with ordinality t(seq, delay, run_at, place)
        where v_all or t.seq = any(v_new_seqs);
        if v_all then
            return;
        end if;
        v_made := array(
            select t.place::int from unnest(v_seqs) with ordinality t(seq, place) where t.seq = any(v_new_seqs)
        );
        v_room := v_room - cardinality(v_made);
    end if;
    -- What is left was found, or has no room: one by one.
    select array_agg(row(
        n.place, n.seq, coalesce(n.run_at, v_now + n.delay), n.id, n.payload, n.priority, n.max_attempts, n.max_stalls,
        n.ttl, n.reuse, n.waits, n.headers, n.task, n.group_name, n.dead_letter_ttl, n.start_within, n.weight
    )::jobqueue.new_job order by n.place)
    into v_jobs
    from (
        select t.*, coalesce(v_seqs[t.place], nextval('jobqueue.number')) as seq
        from unnest(
            p_ids, p_payloads, jobqueue.filled(p_priorities, v_size), jobqueue.filled(p_delays, v_size),
            jobqueue.filled(p_run_ats, v_size), jobqueue.filled(p_max_attempts, v_size),
            jobqueue.filled(p_max_stalls, v_size), jobqueue.filled(p_ttls, v_size),
            jobqueue.filled(p_reuses, v_size), jobqueue.filled(p_waits, v_size), jobqueue.filled(p_headers, v_size),
            jobqueue.filled(p_tasks, v_size), jobqueue.filled(p_groups, v_size), jobqueue.filled(p_letters, v_size),
            jobqueue.filled(p_expires, v_size), jobqueue.filled(p_weights, v_size)
        ) with ordinality t(
            id, payload, priority, delay, run_at, max_attempts, max_stalls, ttl, reuse, waits, headers, task,
            group_name, dead_letter_ttl, start_within, weight, place
        )
    ) n;
    for v_new in
        select n.* from unnest(v_jobs) n where n.place <> all(v_made)
        order by case when p_room is null then n.id end, n.place
    loop
        loop
            select r.seq, r.state, r.expires, r.attempts, r.token, o.data into v_old
            from jobqueue.record r left join lateral (
                select o.data from jobqueue.outcome o where o.queue = v_q and o.seq = r.seq offset 0
            ) o on true
            where r.queue = v_q and r.id = v_new.id;
            place := v_new.place;
            data := null;
            if found and p_repeated and v_old.token = p_token and not exists (
                select 1 from unnest(v_jobs) n where n.id = v_new.id and n.place < v_new.place
            ) then
                status := 1;  -- by this call, when it was made for the first time
                seq := v_old.seq;
                state := case when v_new.due <= v_now then 2 else 1 end;
                attempts := 0;
            elsif found and not (v_old.state > 4 and (
                v_old.state = 7 or v_old.expires <= v_now or v_new.reuse = 3 or v_new.reuse = 2 and v_old.state = 6
            )) then
                if v_old.state <= 4 and v_new.waits and p_reply is not null then
                    perform jobqueue.add_waiters(v_q, array[v_new.id], p_reply);
                    select r.seq, r.state, r.expires, r.attempts, r.token, o.data into v_old
                    from jobqueue.record r left join lateral (
                        select o.data from jobqueue.outcome o where o.queue = v_q and o.seq = r.seq offset 0
                    ) o on true
                    where r.queue = v_q and r.id = v_new.id;
                    continue when not found or v_old.state = 7;
                end if;
                v_bytes := v_bytes + coalesce(octet_length(v_old.data), 0);
                status := case when v_bytes > p_budget and v_old.data is not null then 4 else 2 end;
                seq := v_old.seq;
                state := v_old.state;
                data := case when status = 2 then v_old.data end;
                attempts := v_old.attempts;
            elsif v_room <= 0 then
                status := 3;
                seq := 0;
                state := 2;
                attempts := 0;
            elsif found and not jobqueue.drop_job(v_q, v_new.id, v_old.seq, v_now) then
                continue;
            elsif jobqueue.create_jobs(v_q, p_queue, v_now, p_token, p_reply, array[v_new], v_slot) = '{}' then
                continue;
            else
                status := 1;
                seq := v_new.seq;
                state := case when v_new.due <= v_now then 2 else 1 end;
                attempts := 0;
                v_room := v_room - 1;
            end if;
            return next;
            exit;
        end loop;
    end loop;
end $$;
