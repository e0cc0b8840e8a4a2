-- Running failed jobs again with another payload.

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
