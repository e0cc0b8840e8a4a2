-- Tables in slots, which are emptied in turn.
--
-- A row of ready or lease lives for moments, and is dead until vacuum may remove it: for as long as any transaction of
-- the database is open. So each of these tables has two slots. New rows go to the one whose turn it is; when that has
-- grown, the other one, whose rows have all been deleted by then, is truncated and takes its turn. Nothing but the room
-- that is taken depends on a slot: whatever reads or deletes looks into all of them.
--
-- What a transaction of a caller inserts goes to a third slot of ready, which is never truncated: such a transaction may
-- stay open for long, and who waits for it would keep others waiting.
--
-- A statement locks all slots before it takes its snapshot, and until its transaction ends. So a slot that is emptied
-- under an exclusive lock is full or empty to a statement, and never in between.

alter table jobqueue.ready rename to old_ready;
alter table jobqueue.lease rename to old_lease;
alter index jobqueue.ready_line rename to old_ready_line;
alter index jobqueue.ready_seq rename to old_ready_seq;
alter index jobqueue.lease_pkey rename to old_lease_pkey;
alter index jobqueue.lease_seq rename to old_lease_seq;
drop view jobqueue.record;
drop function jobqueue.settle_others(int, text, bigint, jobqueue.run[]);
drop type jobqueue.run;

create sequence jobqueue.ready_turn minvalue 0 maxvalue 1;
create sequence jobqueue.lease_turn minvalue 0 maxvalue 1;
comment on sequence jobqueue.ready_turn is 'The slot of new rows. A sequence, since it has no rows that die';
comment on sequence jobqueue.lease_turn is 'The slot of new rows';
create sequence jobqueue.ready_next minvalue 0;
create sequence jobqueue.lease_next minvalue 0;
comment on sequence jobqueue.ready_next is 'The instant before which nobody tries again to empty a slot';
comment on sequence jobqueue.lease_next is 'The instant before which nobody tries again to empty a slot';

create table jobqueue.ready (
    queue int not null,
    priority int not null,
    place bigint not null,
    seq bigint not null,
    due bigint not null,
    updated bigint not null,
    fence bigint not null default 0,
    attempts int not null default 0,
    stalls int not null default 0,
    slot smallint not null,
    id text collate "C" not null
) partition by list (slot);
create table jobqueue.ready_0 partition of jobqueue.ready for values in (0);
create table jobqueue.ready_1 partition of jobqueue.ready for values in (1);
create table jobqueue.ready_2 partition of jobqueue.ready for values in (2);
create index ready_line on jobqueue.ready (queue, priority desc, place);
create index ready_seq on jobqueue.ready (queue, seq);
comment on column jobqueue.ready.place is 'Order within the priority; negative for what was released or recovered';

create table jobqueue.lease (
    queue int not null,
    until bigint not null,
    seq bigint not null,
    fence bigint not null,
    token bigint not null,
    due bigint not null,
    updated bigint not null,
    priority int not null,
    attempts int not null,
    stalls int not null,
    slot smallint not null,
    cancelling boolean not null default false,
    id text collate "C" not null,
    worker text collate "C" not null
) partition by list (slot);
create table jobqueue.lease_0 partition of jobqueue.lease for values in (0) with (fillfactor = 70);
create table jobqueue.lease_1 partition of jobqueue.lease for values in (1) with (fillfactor = 70);
create index lease_fence on jobqueue.lease (fence);
create index lease_seq on jobqueue.lease (seq);
comment on column jobqueue.lease.token is 'Names the call that claimed the job: a repeated call gets its claims again';

insert into jobqueue.ready (queue, priority, place, seq, due, updated, fence, attempts, stalls, slot, id)
select r.queue, r.priority, r.place, r.seq, r.due, r.updated, r.fence, r.attempts, r.stalls, 0, r.id
from jobqueue.old_ready r;
insert into jobqueue.lease (
    queue, until, seq, fence, token, due, updated, priority, attempts, stalls, slot, cancelling, id, worker
)
select
    l.queue, l.until, l.seq, l.fence, l.token, l.due, l.updated, l.priority, l.attempts, l.stalls, 0, l.cancelling, l.id,
    l.worker
from jobqueue.old_lease l;
drop table jobqueue.old_ready;
drop table jobqueue.old_lease;

-- Rows of these live for moments: vacuum by their number, not by the share of a table that is empty at most times.
alter table jobqueue.ready_0 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.ready_1 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.ready_2 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.lease_0 set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.lease_1 set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

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
    j.headers, j.task, j.group_name, j.token
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
