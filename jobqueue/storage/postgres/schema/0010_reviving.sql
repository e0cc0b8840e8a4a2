-- Running failed jobs again, and deleting records before their time.

-- Makes failed jobs due again as new incarnations; whether it did, for each.
create function jobqueue.revive(p_queue text, p_now bigint, p_ids text[], p_delay bigint) returns boolean[]
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
    v_places bigint[];
    v_ids text[];
    v_seqs bigint[];
    v_priorities int[];
    v_fences bigint[];
    v_weights smallint[];
    v_groups text[];
    v_at tid[];
    v_new bigint[];
    v_slot smallint := (select t.last_value from jobqueue.ready_turn t);
begin
    perform jobqueue.keep_pace();
    -- Jobs before outcomes, and in the order of the ids, as whoever deletes them. Others are not touched: one that comes now
    -- would be locked too late.
    v_ids := array(
        select j.id from jobqueue.job j where j.queue = v_q and j.id = any(p_ids) order by j.id for no key update
    );
    -- Locked first: then nobody changes them, and they do not move.
    select array_agg(f.place), array_agg(f.id), array_agg(f.seq), array_agg(f.priority), array_agg(f.fence),
        array_agg(f.weight), array_agg(f.group_name), array_agg(f.at)
    into v_places, v_ids, v_seqs, v_priorities, v_fences, v_weights, v_groups, v_at
    from (
        select g.place, g.id, j.seq, j.priority, j.weight, j.group_name, o.fence, o.at
        from (
            select t.id, min(t.place) as place from unnest(p_ids) with ordinality t(id, place)
            where t.id = any(v_ids) group by t.id order by t.id
        ) g
        cross join lateral (
            select j.seq, j.priority, j.weight, j.group_name from jobqueue.job j where j.queue = v_q and j.id = g.id offset 0
        ) j
        cross join lateral (
            select o.fence, o.ctid as at from jobqueue.outcome o
            where o.queue = v_q and o.seq = j.seq and o.state = 6 and o.purge_at > v_now offset 0 for update
        ) o
    ) f;
    with numbered as materialized (
        select f.*, nextval('jobqueue.number') as new_seq from (
            select t.* from unnest(v_places, v_ids, v_seqs, v_priorities, v_fences, v_weights, v_groups)
                t(place, id, seq, priority, fence, weight, group_name)
            order by t.place offset 0
        ) f
    ),
    gone as (
        delete from jobqueue.outcome o where o.ctid = any(v_at)
    ),
    renamed as (
        update jobqueue.job j set seq = (select n.new_seq from numbered n where n.id = j.id)
        where j.queue = v_q and j.id = any(v_ids)
    ),
    kept as (
        update jobqueue.attempt a set seq = (select n.new_seq from numbered n where n.seq = a.seq)
        where a.queue = v_q and a.seq = any(v_seqs)
    ),
    cleared as (
        delete from jobqueue.detail x where x.queue = v_q and x.seq = any(v_seqs)
    ),
    back as (
        insert into jobqueue.ready (queue, priority, place, seq, due, updated, fence, slot, id, weight, group_name)
        select
            v_q, n.priority, n.new_seq, n.new_seq, v_now, v_now, n.fence, jobqueue.slot_of(n.group_name, v_slot), n.id,
            n.weight, n.group_name
        from numbered n where p_delay <= 0
    ),
    later as (
        insert into jobqueue.due (queue, at, seq, updated, fence, priority, id, weight, group_name)
        select v_q, v_now + p_delay, n.new_seq, v_now, n.fence, n.priority, n.id, n.weight, n.group_name
        from numbered n where p_delay > 0
    )
    select coalesce(array_agg(n.place), '{}'), array_agg(n.new_seq), array_agg(n.group_name order by n.place),
        array_agg(n.priority order by n.place), array_agg(n.weight order by n.place)
    into v_places, v_new, v_groups, v_priorities, v_weights from numbered n;
    if p_delay <= 0 then
        perform jobqueue.join_lines(v_q, v_groups, v_priorities, v_weights);
    end if;
    if v_new is not null and (p_delay <= 0 or jobqueue.is_next(v_q, v_new)) then
        perform jobqueue.wake(p_queue);
    end if;
    return (
        select array_agg(t.place = any(v_places) order by t.place) from unnest(p_ids) with ordinality t(id, place)
    );
end $$;

-- As revive; a payload replaces that of each job that it makes due.
create function jobqueue.revive_with(
    p_queue text, p_now bigint, p_ids text[], p_delay bigint, p_payload bytea
) returns boolean[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
declare
    v_revived boolean[] := jobqueue.revive(p_queue, p_now, p_ids, p_delay);
begin
    if p_payload is not null and true = any(v_revived) then
        -- Nobody sees them before this transaction ends.
        update jobqueue.job j set payload = p_payload
        where j.queue = (select q.queue from jobqueue.queue q where q.name = p_queue) and j.id = any(array(
            select t.id from unnest(p_ids, v_revived) t(id, revived) where t.revived
        ));
    end if;
    return v_revived;
end $$;

-- Deletes ended and waiting jobs; whether it did, for each.
create function jobqueue.forget(p_queue text, p_now bigint, p_ids text[]) returns boolean[]
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
    v_places bigint[] := '{}';
    v_ids text[];
    v_job record;
begin
    -- Jobs before lines, as in revive, and in the order of the ids: nobody waits in a circle. Others are not touched: one
    -- that comes now would be locked too late.
    v_ids := array(select j.id from jobqueue.job j where j.queue = v_q and j.id = any(p_ids) order by j.id for update);
    -- First they end as any other, so that whoever waits is told.
    if v_ids <> '{}' then
        perform jobqueue.cancel_jobs(p_queue, p_now, v_ids, false);
    end if;
    for v_job in
        select g.place, j.id, j.seq
        from (select t.id, min(t.place) as place from unnest(p_ids) with ordinality t(id, place) group by t.id) g
        cross join lateral (
            select j.id, j.seq from jobqueue.job j where j.queue = v_q and j.id = g.id offset 0
        ) j
        where j.id = any(v_ids) and exists (
            select 1 from (
                select o.purge_at from jobqueue.outcome o where o.queue = v_q and o.seq = j.seq offset 0
            ) o
            where o.purge_at > v_now
        )
        order by j.id
    loop
        if jobqueue.drop_job(v_q, v_job.id, v_job.seq) then
            v_places := v_places || v_job.place;
        end if;
    end loop;
    return (
        select array_agg(t.place = any(v_places) order by t.place) from unnest(p_ids) with ordinality t(id, place)
    );
end $$;
