-- Groups and their turns.
--
-- The ready jobs of one group and priority are its line, and have one row in line as long as there are any. The lines that
-- may start jobs are the ring, by priority and turn, the lowest first: one that begins, and one that has taken its turn, gets
-- the highest. The lines of a group that was found to be at its limit leave the ring and keep their turns: nobody looks at
-- them before a run of the group ends or its rate opens.
--
-- Who puts a job into a line has the row locked, for key share, until its transaction ends; a row is only deleted by somebody
-- who could lock it for update, and then has found no job. So no job is ever in a line without a row; a row without jobs may
-- stay for a while. Turns change under lock_turns only.

-- Where a job goes that is ready.
create function jobqueue.slot_of(p_group text, p_slot smallint) returns smallint
language sql immutable parallel safe
as $$ select case when p_group = '' then p_slot when p_slot = 2 then 4 else 3 end::smallint $$;

-- Notes that a queue has jobs with groups, before the first one is seen by anybody.
create function jobqueue.use_groups(p_q int) returns void
language plpgsql volatile
as $$
begin
    if not (select q.grouped from jobqueue.queue q where q.queue = p_q) then
        update jobqueue.queue q set grouped = true where q.queue = p_q and not q.grouped;
    end if;
end $$;

-- Has a line for each of these jobs, in their order; those without a group are passed over.
create function jobqueue.join_lines(p_q int, p_groups text[], p_priorities int[], p_weights smallint[]) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
declare
    v_groups text[];
    v_priorities int[];
    v_weights smallint[];
begin
    select
        array_agg(t.group_name order by t.n), array_agg(t.priority order by t.n), array_agg(t.weight order by t.n)
    into v_groups, v_priorities, v_weights
    from (
        select distinct on (t.group_name, t.priority) t.*
        from unnest(p_groups, p_priorities, p_weights) with ordinality t(group_name, priority, weight, n)
        where t.group_name <> '' order by t.group_name, t.priority, t.n
    ) t;
    loop
        exit when v_groups is null;
        -- In the order of their names: two that lock the same ones never wait for each other.
        select
            array_agg(t.group_name order by t.n), array_agg(t.priority order by t.n), array_agg(t.weight order by t.n)
        into v_groups, v_priorities, v_weights
        from (
            select o.*, f.found from (
                select t.* from unnest(v_groups, v_priorities, v_weights) with ordinality t(group_name, priority, weight, n)
                order by t.group_name, t.priority offset 0
            ) o
            left join lateral (
                select true as found from jobqueue.line l
                where l.group_name = o.group_name and l.queue = p_q and l.priority = o.priority offset 0 for key share
            ) f on true
            offset 0
        ) t
        where t.found is null;
        exit when v_groups is null;
        -- And in the order of the jobs they begin.
        insert into jobqueue.line (queue, priority, turn, weight, group_name)
        select p_q, t.priority, t.turn, t.weight, t.group_name from (
            select t.*, nextval('jobqueue.number') as turn from (
                select t.* from unnest(v_groups, v_priorities, v_weights) with ordinality t(group_name, priority, weight, n)
                order by t.n offset 0
            ) t offset 0
        ) t
        order by t.group_name, t.priority
        on conflict do nothing;
    end loop;
end $$;

-- Puts jobs of which some have groups, and that were just inserted, into their lines if they are due. A job says what it
-- weighs as long as it lives, in case it is run again when it has failed.
create function jobqueue.line_up(
    p_q int, p_now bigint, p_slot smallint, p_ids text[], p_seqs bigint[], p_priorities int[], p_dues bigint[],
    p_groups text[], p_weights smallint[]
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_weight smallint;
begin
    for v_weight in select distinct t.weight from unnest(p_weights) t(weight) where t.weight <> 1 loop
        update jobqueue.job j set weight = v_weight
        where j.queue = p_q and j.id = any(array(
            select t.id from unnest(p_ids, p_weights) t(id, weight) where t.weight = v_weight
        )) and j.seq = any(p_seqs);
    end loop;
    insert into jobqueue.ready (queue, priority, place, seq, due, updated, slot, id, weight, group_name)
    select
        p_q, t.priority, t.seq, t.seq, t.due, p_now, jobqueue.slot_of(t.group_name, p_slot), t.id, t.weight, t.group_name
    from unnest(p_ids, p_seqs, p_priorities, p_dues, p_groups, p_weights) t(id, seq, priority, due, group_name, weight)
    where t.due <= p_now;
    if p_slot < 2 then
        perform jobqueue.join_lines(
            p_q, array_agg(t.group_name order by t.seq), array_agg(t.priority order by t.seq),
            array_agg(t.weight order by t.seq)
        )
        from unnest(p_seqs, p_priorities, p_dues, p_groups, p_weights) t(seq, priority, due, group_name, weight)
        where t.due <= p_now and t.group_name <> '';
    end if;
end $$;

-- Deletes lines that have no jobs any more, except those that somebody is just putting a job into.
create function jobqueue.end_lines(p_q int, p_groups text[], p_priorities int[]) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
declare
    v_at tid[];
begin
    select array_agg(f.at) into v_at
    from (
        select distinct t.group_name, t.priority from unnest(p_groups, p_priorities) t(group_name, priority)
        where t.group_name <> ''
    ) t
    cross join lateral (
        select l.ctid as at from jobqueue.line l
        where l.group_name = t.group_name and l.queue = p_q and l.priority = t.priority and (
            select count(*) from (
                select 1 from jobqueue.ready_3 r
                where r.group_name = l.group_name and r.queue = p_q and r.priority = l.priority
                order by r.place limit 1
            ) r
        ) = 0
        offset 0 for update skip locked
    ) f;
    if v_at is not null then
        -- Looked at once more: whoever had it locked may have put a job into it.
        delete from jobqueue.line l where l.ctid = any(v_at) and (
            select count(*) from (
                select 1 from jobqueue.ready_3 r
                where r.group_name = l.group_name and r.queue = p_q and r.priority = l.priority
                order by r.place limit 1
            ) r
        ) = 0;
    end if;
end $$;

-- Has lines take part again that wait for an instant between two.
create function jobqueue.reopen(p_q int, p_from bigint, p_to bigint) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_at tid[] := array(
        select l.ctid from jobqueue.line l where l.queue = p_q and l.opens between p_from and p_to order by l.opens
    );
begin
    if v_at <> '{}' then
        update jobqueue.line l set opens = null where l.ctid = any(v_at);
    end if;
end $$;

-- Notes that runs of groups end, under lock_turns: these groups may start jobs again. That a group may not is only a note,
-- so that it does not matter if one of the runs is lost.
create function jobqueue.runs_of_end(p_q int, p_limits jobqueue.limits, p_groups text[]) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    if p_limits.group_running is not null and p_groups <> '{}' then
        update jobqueue.line l set opens = null
        where l.queue = p_q and l.opens = 9007199254740992 and l.group_name = any(p_groups);
    end if;
end $$;

-- As runs_of_end, before runs are ended.
create function jobqueue.runs_end(p_q int, p_limits jobqueue.limits, p_fences bigint[]) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
begin
    if p_limits.grouped and p_limits.group_running is not null and exists (
        select 1 from jobqueue.line l where l.queue = p_q and l.opens = 9007199254740992
    ) then
        perform jobqueue.runs_of_end(p_q, p_limits, array(
            select distinct h.group_name from jobqueue.lease h where h.fence = any(p_fences) and h.group_name <> ''
        ));
    end if;
end $$;

-- Puts what transactions of callers have inserted into the lines, in the order in which they did.
create function jobqueue.file_arrivals(p_q int) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_at tid[];
    v_jobs jobqueue.ready[];
begin
    select array_agg(a.at order by (a.job).place), array_agg(a.job order by (a.job).place) into v_at, v_jobs from (
        select r.ctid as at, r::jobqueue.ready as job from jobqueue.ready_4 r where r.queue = p_q
        order by r.place limit 1000 for update skip locked
    ) a;
    if v_at is null then
        return;
    end if;
    delete from jobqueue.ready_4 r where r.ctid = any(v_at);
    insert into jobqueue.ready (
        queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, group_name
    )
    select
        j.queue, j.priority, j.place, j.seq, j.due, j.updated, j.fence, j.attempts, j.stalls, 3, j.id, j.weight,
        j.group_name
    from unnest(v_jobs) j;
    perform jobqueue.join_lines(
        p_q, array_agg(j.group_name order by j.place), array_agg(j.priority order by j.place),
        array_agg(j.weight order by j.place)
    )
    from unnest(v_jobs) j;
end $$;

-- Jobs in the order of their turns, with what take_turns needs to know. Of each job: where it is; its line, by twice its
-- number, or an odd number if it has no group; the round of turns; of its line where the row is, the jobs of the first round
-- and of each further one, and how many were looked at. ``contested``: how many without a group start while another could.
-- ``lines`` is null, as is all that it does not need, if each of the jobs is the one that its line may start in its turn.
create type jobqueue.turns as (
    priority int, at tid[], jobs jobqueue.ready[], lines int[], rounds int[], rows tid[], firsts int[], weights int[],
    known int[], again bigint[], contested int
);

-- How many jobs of a group may start now, and if none: when its rate opens, or 2^53 for when a run ends.
create function jobqueue.group_opens(
    p_q int, p_group text, p_now bigint, p_limits jobqueue.limits, p_want int
) returns bigint[]
language plpgsql volatile
as $$
declare
    v_held bigint := case when p_limits.group_running is null then 0 else jobqueue.held(p_q, p_group) end;
    v_tat bigint := case when p_limits.group_pause is null then 0 else jobqueue.tat_of(p_q, p_group) end;
    v_granted bigint;
    v_after bigint;
begin
    select a.granted, a.tat into v_granted, v_after from jobqueue.admit(
        p_limits.group_running, p_limits.group_pause, p_limits.group_tolerance, v_held, v_tat, p_now, p_want
    ) a;
    if v_after < v_tat then  -- the clock was set back
        perform jobqueue.set_tat(p_q, p_group, v_after);
        v_tat := v_after;
    end if;
    return array[v_granted, case when v_granted = 0 then coalesce(jobqueue.opens_at(
        p_limits.group_running, p_limits.group_pause, p_limits.group_tolerance, v_held, v_tat
    ), 9007199254740992) end];
end $$;

-- Whether the time of a job to start is over; only asked where there are such jobs.
create function jobqueue.is_late(p_q int, p_seq bigint, p_now bigint) returns boolean
language plpgsql volatile
as $$
begin
    return exists (
        select 1 from jobqueue.detail x where x.queue = p_q and x.seq = p_seq and x.start_before <= p_now
    );
end $$;

-- Chooses the next jobs of a queue with groups, up to ``p_room``, all of one priority; null: none may start. Groups that may
-- not start any leave the ring. ``p_held``: leases of the queue. ``p_without``: groups to pass over; '' for the jobs without
-- one.
create function jobqueue.pick_in_turns(
    p_q int, p_now bigint, p_limits jobqueue.limits, p_room int, p_timed boolean, p_held bigint, p_without text[]
) returns jobqueue.turns
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
declare
    v_turns jobqueue.turns;
    v_ring int;
    v_plain int;
    v_turn bigint;
    v_groups text[];
    v_rows tid[];
    v_lefts int[];
    v_hints int[];
    v_granted bigint[];
    v_parked text[];
    v_opens bigint[];
    v_capped boolean;
    v_last bigint;
    v_before int;
    v_each int;
    v_found int[];
    v_simple boolean;
    v_end int[];
    -- A group has no more leases than the queue: often that tells that none of them is near its limit.
    v_counted boolean := p_limits.group_running - p_held < p_room;
begin
    loop
        v_ring := (
            select l.priority from jobqueue.line l
            where l.queue = p_q and l.opens is null and l.group_name <> all(p_without)
            order by l.priority desc, l.turn limit 1
        );
        v_plain := case when '' <> all(p_without) then (
            select r.priority from jobqueue.ready r where r.queue = p_q and r.slot < 3
            order by r.priority desc, r.place limit 1
        ) end;
        if v_ring is null and v_plain is null then
            return null;
        end if;
        v_turns.priority := greatest(v_ring, v_plain);
        if v_ring is null or v_plain > v_ring then
            -- Nobody else may start a job of this priority.
            select
                array_agg(x.at), array_agg(x.job), array_agg(1), array_agg(0), array_agg(null::tid), array_agg(1),
                array_agg(1), array_agg(0),
                array_agg((x.job).seq) filter (where (x.job).fence > 0)
            into v_turns.at, v_turns.jobs, v_turns.lines, v_turns.rounds, v_turns.rows, v_turns.firsts, v_turns.weights,
                v_turns.known, v_turns.again
            from (
                select r.ctid as at, r as job from jobqueue.ready r
                where r.queue = p_q and r.priority = v_plain and r.slot < 3
                and not (p_timed and jobqueue.is_late(p_q, r.seq, p_now))
                order by r.place limit p_room for no key update skip locked
            ) x;
            v_turns.contested := 0;
            if v_turns.at is not null then
                return v_turns;
            end if;
            p_without := p_without || ''::text;  -- all in somebody else's hand
            continue;
        end if;
        v_turn := case when v_plain = v_ring then coalesce((
            select t.turn from jobqueue.plain_turn t where t.queue = p_q and t.priority = v_ring
        ), 0) end;
        -- Who may start how many. There may be more lines than there are jobs wanted.
        select
            array_agg(g.group_name) filter (where g.granted > 0), array_agg(g.at) filter (where g.granted > 0),
            array_agg(g.left_over) filter (where g.granted > 0), array_agg(g.weight) filter (where g.granted > 0),
            array_agg(g.granted) filter (where g.granted > 0),
            array_agg(g.group_name) filter (where g.granted = 0), array_agg(g.opens) filter (where g.granted = 0),
            count(*) = p_room, max(g.turn), count(*) filter (where g.granted > 0 and g.turn < v_turn)
        into v_groups, v_rows, v_lefts, v_hints, v_granted, v_parked, v_opens, v_capped, v_last, v_before
        from (
            select
                l.*, case
                    when p_limits.group_pause is not null then l.may[1]
                    when v_counted then greatest(0, least(p_room, p_limits.group_running - l.held))
                    else p_room
                end as granted,
                coalesce(l.may[2], 9007199254740992) as opens
            from (
                select
                    l.ctid as at, l.group_name, l.turn, l.left_over, l.weight,
                    case when p_limits.group_pause is not null then
                        jobqueue.group_opens(p_q, l.group_name, p_now, p_limits, p_room)
                    end as may,
                    case when p_limits.group_pause is null and v_counted then (
                        select count(*) from jobqueue.lease h
                        where h.counted and h.queue = p_q and h.group_name = l.group_name
                    ) end as held
                from jobqueue.line l
                where l.queue = p_q and l.priority = v_ring and l.opens is null and l.group_name <> all(p_without)
                order by l.turn limit p_room offset 0
            ) l
        ) g;
        if v_parked is not null then
            update jobqueue.line l set opens = v_opens[array_position(v_parked, l.group_name)]
            where l.queue = p_q and l.group_name = any(v_parked) and l.opens is null;
        end if;
        if v_capped and v_turn > v_last then
            v_turn := null;  -- others come before
        end if;
        continue when v_groups is null;  -- who is left has no group, or comes later
        v_found := null;
        if v_turn is null and cardinality(v_groups) = p_room and 1 = all(v_hints) and 0 = all(v_lefts) then
            -- One job of each in a turn that begins with it, as in most queues with many groups.
            v_turns.lines := null;
            select
                array_agg(f.at), array_agg(f.job), array_agg(g.line), array_agg(o.known),
                array_agg((f.job).seq) filter (where f.fence > 0), count(*) = p_room and bool_and(f.weight = 1)
            into v_turns.at, v_turns.jobs, v_turns.rows, v_turns.known, v_turns.again, v_simple
            from unnest(v_groups, v_rows) g(group_name, line)
            cross join lateral (
                -- Its first job, and whether another one follows.
                select (array_agg(o.at))[1] as at, count(*)::int as known from (
                    select r.ctid as at from jobqueue.ready_3 r
                    where r.queue = p_q and r.group_name = g.group_name and r.priority = v_ring
                    and not (p_timed and jobqueue.is_late(p_q, r.seq, p_now))
                    order by r.place limit 2
                ) o
            ) o
            cross join lateral (
                -- Where it is looked for says nothing of a row that was changed meanwhile.
                select r.ctid as at, r::jobqueue.ready as job, r.weight, r.fence from jobqueue.ready_3 r
                where r.ctid = o.at and r.queue = p_q and r.group_name = g.group_name and r.priority = v_ring
                offset 0 for no key update skip locked
            ) f;
            if v_simple then
                return v_turns;
            end if;
        end if;
        v_each := cardinality(v_groups) + case when v_turn is null then 0 else 1 end;
        v_each := case when v_each >= p_room then 1 else (p_room + v_each - 1) / v_each + 1 end;
        with fetched as materialized (
            select t.n, f.k, f.at, f.job, t.line, t.left_over, t.granted, t.most
            from (
                select
                    2 * g.n::int as n, g.group_name, g.line, g.left_over, g.granted::int as granted,
                    least(g.granted, greatest(v_each, g.left_over, g.weight))::int as most
                from unnest(v_groups, v_rows, v_lefts, v_hints, v_granted) with ordinality
                    g(group_name, line, left_over, weight, granted, n)
            ) t
            cross join lateral (
                select x.at, x.job, row_number() over (order by (x.job).place)::int as k from (
                    select r.ctid as at, r::jobqueue.ready as job from jobqueue.ready_3 r
                    where r.queue = p_q and r.group_name = t.group_name and r.priority = v_ring
                    and not (p_timed and jobqueue.is_late(p_q, r.seq, p_now))
                    order by r.place limit t.most + 1 for no key update skip locked
                ) x
            ) f
            union all
            select 2 * v_before + 1, x.k, x.at, x.job, null, 1, p_room + 1, v_each
            from (
                select x.at, x.job, row_number() over (order by (x.job).place)::int as k from (
                    select r.ctid as at, r as job from jobqueue.ready r
                    where v_turn is not null and r.queue = p_q and r.priority = v_ring and r.slot < 3
                    and not (p_timed and jobqueue.is_late(p_q, r.seq, p_now))
                    order by r.place limit v_each + 1 for no key update skip locked
                ) x
            ) x
        ),
        -- Of a turn that has begun there is something left; the first job of any other says how long it is.
        begun as (
            select f.*, coalesce(
                nullif(f.left_over, 0), max((f.job).weight) filter (where f.k = 1) over (partition by f.n)
            )::int as first, count(*) over (partition by f.n)::int as known
            from fetched f
        ),
        weighed as (
            select b.*, case when b.n % 2 = 1 then 1 else coalesce(
                max((b.job).weight) filter (where b.k = b.first + 1) over (partition by b.n), 1
            )::int end as weight
            from begun b
        ),
        placed as materialized (
            select w.*, case when w.k <= w.first then 0 else 1 + (w.k - w.first - 1) / w.weight end as round
            from weighed w
        ),
        -- From where on it is not known who comes next.
        bound as materialized (
            select b.round, b.n, b.k from (
                select p.round, p.n, p.k from placed p
                where p.k > p.most and p.most < p.granted
                or p.n % 2 = 0 and p.k > p.first and (p.k - p.first - 1) % p.weight = 0 and (p.job).weight <> p.weight
                union all
                select 1, 0, 0 where v_capped
            ) b
            order by 1, 2, 3 limit 1
        ),
        -- The last place at which a job of a group could start. Whether a later one without a group takes its turn by that
        -- is not known as long as there may be other lines.
        last_one as materialized (
            select p.round, p.n from placed p where p.n % 2 = 0 and (p.k <= p.most or p.most < p.granted)
            order by p.round desc, p.n desc limit 1
        ),
        chosen as materialized (
            select p.* from placed p left join bound b on true left join last_one e on true
            where p.k <= p.most and (b.n is null or (p.round, p.n, p.k) < (b.round, b.n, b.k))
            and (not v_capped or p.n % 2 = 0 or e.n is null or (p.round, p.n) < (e.round, e.n))
            order by p.round, p.n, p.k limit p_room
        )
        select
            array_agg(c.at), array_agg(c.job), array_agg(c.n), array_agg(c.round), array_agg(c.line), array_agg(c.first),
            array_agg(c.weight), array_agg(c.known), array_agg((c.job).seq) filter (where (c.job).fence > 0),
            (select array_agg(distinct p.n) from placed p),
            (select array[e.round, e.n] from last_one e)
        into v_turns.at, v_turns.jobs, v_turns.lines, v_turns.rounds, v_turns.rows, v_turns.firsts, v_turns.weights,
            v_turns.known, v_turns.again, v_found, v_end
        from (select * from chosen c order by c.round, c.n, c.k) c;
        -- How many of the jobs without a group start while another one could.
        v_turns.contested := (
            select count(*) from unnest(v_turns.lines, v_turns.rounds) t(n, round)
            where t.n % 2 = 1 and (v_capped or (t.round, t.n) < (v_end[1], v_end[2]))
        );
        -- A line whose jobs are gone, or all in somebody else's hand.
        v_parked := array(
            select t.group_name from unnest(v_groups) with ordinality t(group_name, n)
            where v_found is null or 2 * t.n <> all(v_found)
        );
        if v_parked <> '{}' then
            perform jobqueue.end_lines(p_q, v_parked, array_fill(v_ring, array[cardinality(v_parked)]));
            p_without := p_without || v_parked;
        end if;
        if v_turns.at is not null then
            return v_turns;
        end if;
        if v_turn is not null then
            p_without := p_without || ''::text;
        end if;
    end loop;
end $$;

-- Has the lines of the first ``p_taken`` jobs take their turns, several at once if they have started several jobs. Returns
-- the groups that have no more jobs, and the turn of the jobs without a group if they have taken one.
create function jobqueue.take_rounds(
    p_turns jobqueue.turns, p_groups text[], p_taken int, out ended text[], out plain_turn bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
begin
    with took as (
        select
            t.n, count(*)::int as jobs, max(t.at) as at, max(t.group_name) as group_name, max(t.first) as first,
            max(t.weight) as weight, max(t.known) as known
        from unnest(
            p_turns.lines[1:p_taken], p_turns.rows[1:p_taken], p_turns.firsts[1:p_taken], p_turns.weights[1:p_taken],
            p_turns.known[1:p_taken], p_groups[1:p_taken]
        ) t(n, at, first, weight, known, group_name)
        group by t.n
    ),
    -- In which round each has taken its last turn.
    rounds as (
        select t.*, case
            when t.n % 2 = 1 then nullif(least(t.jobs, p_turns.contested), 0) - 1
            when t.jobs >= t.first then (t.jobs - t.first) / t.weight
        end as round
        from took t
    ),
    -- Then it went behind all others.
    moved as materialized (
        select
            r.n, r.jobs = r.known and r.n % 2 = 0 as ended, r.group_name, r.at, r.weight,
            case
                when r.jobs < r.first then r.first - r.jobs
                when (r.jobs - r.first) % r.weight > 0 then r.weight - (r.jobs - r.first) % r.weight
                else 0
            end as left_over,
            case when r.round is not null then nextval('jobqueue.number') end as turn
        from (select r.* from rounds r order by r.round, r.n offset 0) r
    ),
    changed as (
        update jobqueue.line l set
            turn = coalesce(m.turn, l.turn), left_over = m.left_over, weight = m.weight
        from moved m where l.ctid = m.at and m.n % 2 = 0 and not m.ended
    )
    select array_agg(m.group_name) filter (where m.ended), max(m.turn) filter (where m.n % 2 = 1)
    into ended, plain_turn
    from moved m;
end $$;

-- Notes that the first ``p_taken`` of the chosen jobs have started: lines have taken their turns, and rates were used.
create function jobqueue.take_turns(
    p_q int, p_now bigint, p_limits jobqueue.limits, p_turns jobqueue.turns, p_taken int
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
declare
    v_groups text[] := array(select j.group_name from unnest(p_turns.jobs) j);
    v_ended text[];
    v_plain_turn bigint;
    v_group record;
begin
    if p_turns.lines is null then
        with moved as materialized (
            select t.at, nextval('jobqueue.number') as turn from (
                select t.at from unnest(p_turns.rows[1:p_taken], p_turns.known[1:p_taken]) with ordinality t(at, known, n)
                where t.known > 1 order by t.n offset 0
            ) t
        )
        update jobqueue.line l set turn = m.turn from moved m where l.ctid = m.at;
        v_ended := nullif(array(
            select t.group_name from unnest(v_groups[1:p_taken], p_turns.known[1:p_taken]) t(group_name, known)
            where t.known = 1
        ), '{}');
    else
        select o.ended, o.plain_turn into v_ended, v_plain_turn
        from jobqueue.take_rounds(p_turns, v_groups, p_taken) o;
    end if;
    if v_plain_turn is not null then
        insert into jobqueue.plain_turn (queue, priority, turn) values (p_q, p_turns.priority, v_plain_turn)
        on conflict (queue, priority) do update set turn = excluded.turn;
    end if;
    if v_ended is not null then
        perform jobqueue.end_lines(p_q, v_ended, array_fill(p_turns.priority, array[cardinality(v_ended)]));
        -- Somebody is just putting a job into it: it is behind all others all the same.
        update jobqueue.line l set turn = nextval('jobqueue.number'), left_over = 0
        where l.group_name = any(v_ended) and l.queue = p_q and l.priority = p_turns.priority;
    end if;
    if p_limits.group_pause is not null then
        for v_group in
            select t.name, count(*) as jobs from unnest(v_groups[1:p_taken]) t(name) where t.name <> '' group by t.name
        loop
            perform jobqueue.set_tat(p_q, v_group.name, (jobqueue.admit(
                null, p_limits.group_pause, p_limits.group_tolerance, 0, jobqueue.tat_of(p_q, v_group.name), p_now,
                v_group.jobs
            )).tat);
        end loop;
    end if;
end $$;

-- What follows the jobs that a claim hands out in a queue with limits or groups: one row, as `exchange` says. ``p_held``:
-- leases before.
create function jobqueue.note_starts(
    p_q int, p_queue text, p_worker text, p_now bigint, p_limits jobqueue.limits, p_wanted int, p_taken int, p_held bigint,
    p_cut boolean, p_settled boolean
) returns table (
    settled text, next_due bigint, more boolean, id text, payload bytea, fence bigint, attempts int, max_attempts int,
    ttl bigint, created bigint, headers bytea, task text, group_name text, seq bigint, due bigint, saved bytea,
    history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[], reached bigint[],
    priorities int[], expired text[]
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    v_tat bigint;
    v_after bigint;
begin
    if p_limits.pause is not null then
        v_tat := jobqueue.tat_of(p_q, '');
        v_after := (jobqueue.admit(
            p_limits.running, p_limits.pause, p_limits.tolerance, p_held, v_tat, p_now, p_taken
        )).tat;
        if v_after <> v_tat then  -- without a start: the clock was set back
            perform jobqueue.set_tat(p_q, '', v_after);
        end if;
    end if;
    more := p_cut;
    if p_taken < p_wanted and not p_cut then
        next_due := nullif(jobqueue.opens_in(p_q, p_now, p_limits), 0);
    elsif p_settled then
        perform jobqueue.wake_for_room(p_q, p_queue, p_now, p_limits, p_worker);
    end if;
    return next;
end $$;

-- Claims in a queue with groups: rows as those of `exchange` after its first one.
create function jobqueue.claim_in_turns(
    p_q int, p_queue text, p_now bigint, p_worker text, p_token bigint, p_limit int, p_lease bigint, p_budget bigint,
    p_limits jobqueue.limits, p_timed boolean, p_settled boolean
) returns table (
    settled text, next_due bigint, more boolean, id text, payload bytea, fence bigint, attempts int, max_attempts int,
    ttl bigint, created bigint, headers bytea, task text, group_name text, seq bigint, due bigint, saved bytea,
    history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[], reached bigint[],
    priorities int[], expired text[]
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_slot smallint := (select t.last_value from jobqueue.lease_turn t);
    v_held bigint := jobqueue.held(p_q);
    v_room int := (jobqueue.admit(
        p_limits.running, p_limits.pause, p_limits.tolerance, v_held, jobqueue.tat_of(p_q, ''), p_now, p_limit
    )).granted;
    v_turns jobqueue.turns;
    v_taken int := 0;
    v_count int;
    v_cut boolean := false;
begin
    if v_room > 0 then
        if exists (select 1 from jobqueue.ready_4 r where r.queue = p_q) then
            perform jobqueue.file_arrivals(p_q);
        end if;
        -- Whose rate has opened since; and after the clock was set back, who cannot have to wait for so long.
        if p_limits.group_pause is not null then
            perform jobqueue.reopen(p_q, 0, p_now);
            perform jobqueue.reopen(
                p_q, p_now + (p_limits.group_tolerance + p_limits.group_pause) / 1000 + 2, 9007199254740991
            );
        end if;
    end if;
    -- The jobs of one priority at a time, or fewer: up to where it is known who comes next.
    while v_taken < v_room and not v_cut loop
        v_turns := jobqueue.pick_in_turns(
            p_q, p_now, p_limits, v_room - v_taken, p_timed, v_held + v_taken, '{}'
        );
        exit when v_turns.at is null;
        return query
        with sized as (
            select
                p.*, j.*, case when p.fence > 0 then (
                    select x.saved from jobqueue.detail x where x.queue = p_q and x.seq = p.seq
                ) end as saved,
                sum(
                    octet_length(j.payload) + octet_length(j.headers) + case when p.fence = 0 then 0 else coalesce((
                        select octet_length(x.saved) from jobqueue.detail x where x.queue = p_q and x.seq = p.seq
                    ), 0) + coalesce((select h.history_bytes from jobqueue.history(p_q, p.seq) h), 0) end
                ) over (rows unbounded preceding) as bytes
            from unnest(v_turns.at, v_turns.jobs) with ordinality
                p(at, queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id, weight, in_group, n)
            cross join lateral (
                select j.payload, j.max_attempts, j.ttl, j.created, j.headers, j.task, j.group_name
                from jobqueue.job j where j.queue = p_q and j.id = p.id offset 0
            ) j
        ),
        taken as materialized (
            select s.*, nextval('jobqueue.number') as new_fence
            from (select s.* from sized s where s.n = 1 or s.bytes <= p_budget offset 0) s
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
        gone_3 as (
            delete from jobqueue.ready_3 r where r.ctid = any(array(select t.at from taken t where t.slot = 3))
        ),
        leased as (
            insert into jobqueue.lease (
                queue, until, seq, fence, token, due, updated, priority, attempts, stalls, slot, counted, weight, id, worker,
                group_name
            )
            select
                p_q, p_now + p_lease, t.seq, t.new_fence, p_token, t.due, p_now, t.priority, t.attempts + 1, t.stalls,
                v_slot, true, t.weight, t.id, p_worker, t.in_group
            from taken t
        )
        select
            null::text, null::bigint, false, t.id, t.payload,
            t.new_fence, t.attempts + 1, t.max_attempts, t.ttl, t.created, t.headers, t.task, t.group_name, t.seq, t.due,
            t.saved,
            case when t.fence > 0 then (select h.history_at from jobqueue.history(p_q, t.seq) h) end,
            case when t.fence > 0 then (select h.history_attempt from jobqueue.history(p_q, t.seq) h) end,
            case when t.fence > 0 then (select h.history_worker from jobqueue.history(p_q, t.seq) h) end,
            case when t.fence > 0 then (select h.history_error from jobqueue.history(p_q, t.seq) h) end,
            null::bigint[], null::int[], null::text[]
        from taken t order by t.n;
        get diagnostics v_count = row_count;
        if v_count = 0 then
            perform jobqueue.mend(p_queue);  -- places without a job, which only an edit by hand leaves behind
            exit;
        end if;
        perform jobqueue.take_turns(p_q, p_now, p_limits, v_turns, v_count);
        if p_timed then
            perform jobqueue.have_started(p_q, v_turns.jobs);
        end if;
        if v_turns.again is not null then
            update jobqueue.detail x set progress = null
            where x.queue = p_q and x.seq = any(v_turns.again) and x.progress is not null
            and exists (select 1 from jobqueue.lease l where l.seq = x.seq);
        end if;
        v_taken := v_taken + v_count;
        v_cut := v_count < cardinality(v_turns.at);
    end loop;
    return query select * from jobqueue.note_starts(
        p_q, p_queue, p_worker, p_now, p_limits, p_limit, v_taken, v_held, v_cut, p_settled
    );
end $$;

-- Deletes what is left of groups that are done.
create function jobqueue.tidy_turns(p_q int, p_now bigint, p_limit int) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    delete from jobqueue.pace p where p.ctid = any(array(
        select o.ctid from jobqueue.pace o where o.queue = p_q and o.tat <= p_now * 1000
        order by o.tat limit p_limit for update skip locked
    ));
    if not exists (select 1 from jobqueue.line l where l.queue = p_q limit 1) then
        delete from jobqueue.plain_turn t where t.ctid = any(array(
            select o.ctid from jobqueue.plain_turn o where o.queue = p_q for update skip locked
        ));
    end if;
end $$;
