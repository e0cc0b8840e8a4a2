-- What an edit by hand leaves behind.

-- Deletes the places of jobs that are in a second one, of jobs that have ended, and in the line those without a job; lowers
-- counts that cannot be raised. Only an edit by hand makes such rows. A call that meets one fails, together with all else
-- that it does, or finds nothing else: who has met that calls this.
create function jobqueue.mend(p_queue text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_q int := (select q.queue from jobqueue.queue q where q.name = p_queue);
begin
    delete from jobqueue.lease l using jobqueue.outcome o where l.queue = v_q and o.queue = v_q and o.seq = l.seq;
    delete from jobqueue.ready r using jobqueue.outcome o where r.queue = v_q and o.queue = v_q and o.seq = r.seq;
    delete from jobqueue.due d using jobqueue.outcome o where d.queue = v_q and o.queue = v_q and o.seq = d.seq;
    delete from jobqueue.lease l using jobqueue.lease m where l.queue = v_q and m.seq = l.seq and m.fence > l.fence;
    delete from jobqueue.ready r using jobqueue.lease l where r.queue = v_q and l.queue = v_q and l.seq = r.seq;
    delete from jobqueue.due d using jobqueue.lease l where d.queue = v_q and l.queue = v_q and l.seq = d.seq;
    delete from jobqueue.ready r using jobqueue.ready s where r.queue = v_q and s.queue = v_q and s.seq = r.seq
    and s.place < r.place;
    delete from jobqueue.due d using jobqueue.ready r where d.queue = v_q and r.queue = v_q and r.seq = d.seq;
    delete from jobqueue.ready r where r.queue = v_q and not exists (
        select 1 from jobqueue.job j where j.queue = v_q and j.id = r.id
    );
    delete from jobqueue.line l where l.queue = v_q and not exists (
        select 1 from jobqueue.ready_3 r
        where r.queue = v_q and r.group_name = l.group_name and r.priority = l.priority
    );
    perform jobqueue.join_lines(
        v_q, array_agg(r.group_name order by r.place), array_agg(r.priority order by r.place),
        array_agg(r.weight order by r.place)
    )
    from jobqueue.ready_3 r where r.queue = v_q;
    update jobqueue.line l set opens = null where l.queue = v_q and l.opens is not null;
    update jobqueue.ready r set attempts = 2000000000 where r.queue = v_q and r.attempts > 2000000000;
    update jobqueue.due d set attempts = 2000000000 where d.queue = v_q and d.attempts > 2000000000;
    update jobqueue.lease l set stalls = 2000000000 where l.queue = v_q and l.stalls > 2000000000;
end $$;
