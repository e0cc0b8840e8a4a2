-- Inserting jobs that replace those of their ids that wait.

-- Makes a job that waits the new one; null if none waits. It keeps its seq, its creation, what it has been through and its
-- waiters. The row that says where it is decides every race, as ever.
create function jobqueue.replace_job(
    p_q int, p_queue text, p_now bigint, p_reply text, p_new jobqueue.new_job, p_debounce boolean, p_slot smallint
) returns jobqueue.due
language plpgsql volatile
as $$
declare
    v_seq bigint := (select j.seq from jobqueue.job j where j.queue = p_q and j.id = p_new.id);
    v_ready jobqueue.ready;
    v_job jobqueue.due;
    v_due bigint := p_new.due;
begin
    delete from jobqueue.ready r where r.queue = p_q and r.seq = v_seq returning r.* into v_ready;
    if v_ready.seq is not null then
        v_job := row(
            p_q, v_ready.due, v_ready.seq, p_now, v_ready.fence, v_ready.priority, v_ready.attempts, v_ready.stalls,
            v_ready.id, v_ready.weight, v_ready.group_name
        );
    else
        delete from jobqueue.due d where d.queue = p_q and d.seq = v_seq returning d.* into v_job;
        if v_job.seq is null then
            return null;
        end if;
    end if;
    if p_debounce then
        v_due := greatest(v_due, v_job.at);
    end if;
    update jobqueue.job j set
        priority = p_new.priority, due = v_due, max_attempts = p_new.max_attempts, max_stalls = p_new.max_stalls,
        ttl = p_new.ttl, dead_letter_ttl = p_new.dead_letter_ttl, payload = p_new.payload, headers = p_new.headers,
        task = p_new.task, group_name = p_new.group_name, weight = p_new.weight
    where j.queue = p_q and j.id = p_new.id;
    update jobqueue.detail x set
        saved = null, start_within = p_new.start_within,
        start_before = case when v_job.fence = 0 then v_due + p_new.start_within end
    where x.queue = p_q and x.seq = v_seq
    and (x.saved is not null or x.start_within is not null or p_new.start_within is not null);
    if not found and p_new.start_within is not null then
        insert into jobqueue.detail (queue, seq, start_within, start_before)
        values (p_q, v_seq, p_new.start_within, case when v_job.fence = 0 then v_due + p_new.start_within end);
    end if;
    if v_due <= p_now then
        insert into jobqueue.ready (
            queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, group_name
        )
        select
            p_q, p_new.priority,
            case when (v_ready.priority, v_ready.group_name) = (p_new.priority, p_new.group_name) then v_ready.place
                else nextval('jobqueue.number') end,
            v_seq, v_due, p_now, v_job.fence, v_job.attempts, v_job.stalls,
            jobqueue.slot_of(p_new.group_name, p_slot), p_new.id, p_new.weight, p_new.group_name;
        if p_new.group_name <> '' and p_slot < 2 then
            perform jobqueue.join_lines(p_q, array[p_new.group_name], array[p_new.priority], array[p_new.weight]);
        end if;
        perform jobqueue.wake(p_queue);
    else
        insert into jobqueue.due (
            queue, at, seq, updated, fence, priority, attempts, stalls, id, weight, group_name
        )
        values (
            p_q, v_due, v_seq, p_now, v_job.fence, p_new.priority, v_job.attempts, v_job.stalls, p_new.id, p_new.weight,
            p_new.group_name
        );
        if jobqueue.is_next(p_q, array[v_seq]) then
            perform jobqueue.wake(p_queue);
        end if;
    end if;
    if v_ready.group_name <> '' and p_slot < 2 then
        perform jobqueue.end_lines(p_q, array[v_ready.group_name], array[v_ready.priority]);
    end if;
    if p_new.waits and p_reply is not null then
        perform jobqueue.add_waiters(p_q, array[p_new.id], p_reply);
    end if;
    v_job.at := v_due;
    return v_job;
end $$;

-- Inserts a batch as insert_jobs does, in which jobs may replace others. ``p_conflicts``: 1 found as ever, 2 replaced,
-- 3 replaced, and due no earlier than before. Status 5: replaced. It answers without data: what has some is status 4.
create function jobqueue.insert_replacing(
    p_queue text, p_now bigint, p_token bigint, p_reply text, p_room int,
    p_ids text[], p_payloads bytea[], p_priorities int[], p_delays bigint[], p_run_ats bigint[],
    p_max_attempts int[], p_max_stalls int[], p_ttls bigint[], p_reuses smallint[], p_waits boolean[],
    p_headers bytea[], p_tasks text[], p_groups text[], p_letters bigint[], p_expires bigint[], p_weights smallint[],
    p_conflicts smallint[], p_inside boolean default false
) returns table (place int, status smallint, seq bigint, state smallint, attempts int)
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
    v_q int := jobqueue.queue_number(p_queue);
    v_slot smallint := case when p_inside then 2::smallint
        else (select t.last_value from jobqueue.ready_turn t)::smallint end;
    v_at int;
    v_job jobqueue.due;
begin
    if array_remove(p_groups, '') <> '{}' then
        perform jobqueue.use_groups(v_q);
    end if;
    perform jobqueue.next_number();
    -- In the order of the ids: two batches that replace the same jobs never wait for each other.
    perform 1 from jobqueue.job j where j.queue = v_q and j.id = any(p_ids) order by j.id for no key update;
    for v_at in 1..cardinality(p_ids) loop
        v_job := null;
        if p_conflicts[v_at] > 1 then
            v_job := jobqueue.replace_job(v_q, p_queue, v_now, p_reply, row(
                v_at, 0, coalesce(p_run_ats[v_at], v_now + p_delays[v_at]), p_ids[v_at], p_payloads[v_at],
                p_priorities[v_at], p_max_attempts[v_at], p_max_stalls[v_at], p_ttls[v_at], p_reuses[v_at], p_waits[v_at],
                p_headers[v_at], p_tasks[v_at], p_groups[v_at], p_letters[v_at], p_expires[v_at], p_weights[v_at]
            )::jobqueue.new_job, p_conflicts[v_at] = 3, v_slot);
        end if;
        if v_job.seq is not null then
            place := v_at;
            status := 5;
            seq := v_job.seq;
            state := case when v_job.at <= v_now then 2 when v_job.attempts > 0 then 4 else 1 end;
            attempts := v_job.attempts;
            return next;
            continue;
        end if;
        return query
        select v_at, i.status, coalesce(i.seqs[1], i.seq), i.state, i.attempts
        from jobqueue.insert_jobs(
            p_queue, p_now, p_token, false, p_reply, p_room, -1, p_ids[v_at:v_at], p_payloads[v_at:v_at],
            p_priorities[v_at:v_at], p_delays[v_at:v_at], p_run_ats[v_at:v_at], p_max_attempts[v_at:v_at],
            p_max_stalls[v_at:v_at], p_ttls[v_at:v_at], p_reuses[v_at:v_at], p_waits[v_at:v_at], p_headers[v_at:v_at],
            p_tasks[v_at:v_at], p_groups[v_at:v_at], p_letters[v_at:v_at], p_expires[v_at:v_at],
            p_weights[v_at:v_at], case when p_inside then 2::smallint end
        ) i;
    end loop;
end $$;
