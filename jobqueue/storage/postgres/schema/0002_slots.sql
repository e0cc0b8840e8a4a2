-- Slots of ready and lease taking turns.

-- Empties the slot of a table whose turn is over; or, if it is empty, gives it the turn when the other one has grown to
-- ``p_bytes``. Returns what came of it: 'small' there is nothing to do, 'turned', 'emptied', 'full' the slot has many rows
-- that live, 'busy' somebody has it locked for longer than a moment, 'early' somebody else has looked just now.
--
-- It runs as the owner of the tables: TRUNCATE is a right of its own, which users of the queue need not have.
create function jobqueue.take_turn(p_table text, p_bytes bigint) returns text
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set enable_indexscan = off
set enable_indexonlyscan = off
as $$
declare
    v_ready boolean := p_table = 'ready';
    v_slots regclass[] := case when v_ready then array['jobqueue.ready_0'::regclass, 'jobqueue.ready_1'::regclass]
        else array['jobqueue.lease_0'::regclass, 'jobqueue.lease_1'::regclass] end;
    v_turn regclass := case when v_ready then 'jobqueue.ready_turn'::regclass else 'jobqueue.lease_turn'::regclass end;
    v_next regclass := case when v_ready then 'jobqueue.ready_next'::regclass else 'jobqueue.lease_next'::regclass end;
    v_at bigint := jobqueue.instant(null);
    v_wait bigint;
    v_now smallint;
    v_new regclass;
    v_old regclass;
    v_large boolean;
    v_alive int;
begin
    -- Who has waited for a lock must see what was committed meanwhile.
    if current_setting('transaction_isolation') <> 'read committed' or not pg_try_advisory_xact_lock(v_turn::oid::bigint)
    then
        return 'early';
    end if;
    v_now := case when v_ready then (select t.last_value from jobqueue.ready_turn t)
        else (select t.last_value from jobqueue.lease_turn t) end;
    v_new := v_slots[1 + v_now];
    v_old := v_slots[2 - v_now];
    -- To truncate costs the catalog a few dead rows. While these cannot be removed either, it is done less and less often.
    v_large := pg_relation_size(v_new)
        >= p_bytes * least(32, greatest(1, pg_stat_get_dead_tuples('pg_catalog.pg_class'::regclass) / 1000));
    if pg_relation_size(v_old) = 0 then
        if v_large then
            perform setval(v_turn, 1 - v_now);
        end if;
        return case when v_large then 'turned' else 'small' end;
    end if;
    v_wait := case when v_ready then (select n.last_value from jobqueue.ready_next n)
        else (select n.last_value from jobqueue.lease_next n) end - v_at;
    if v_wait between 1 and 10000 then
        return 'early';
    end if;
    -- Counted, since what the server estimates may be wrong for long where tables are truncated; the larger the slot, the
    -- more seldom.
    perform setval(v_next, v_at + least(10000, 500 + pg_relation_size(v_old) / 8192));
    execute format('select count(*) from (select 1 from only %s limit 1001) r', v_old) into v_alive;
    if v_alive > 1000 then
        return 'full';
    end if;
    begin
        execute format('lock table only %s in access exclusive mode', v_old);
    exception when lock_not_available then
        -- Others queue behind whoever waits for it, so that this is seldom tried.
        perform setval(v_next, v_at + 2500);
        return 'busy';
    end;
    -- The few rows that stay for longer than others move on. Nobody waits for them, or looks at one slot only.
    if v_ready then
        update jobqueue.ready r set slot = v_now where r.slot = 1 - v_now;
    else
        update jobqueue.lease l set slot = v_now where l.slot = 1 - v_now;
    end if;
    -- It takes its turn later: or new rows would have to wait for the end of this transaction.
    execute format('truncate table only %s', v_old);
    if current_setting('server_version_num')::int >= 150000 then
        -- Or the server may forget that the rows are gone, and counts them as dead until autovacuum comes.
        perform pg_stat_force_next_flush();
    end if;
    return 'emptied';
end $$;
