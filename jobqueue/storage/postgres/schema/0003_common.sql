-- What the calls share: the time, numbers, queues, workers, those who wait and messages to them.

-- The time of a call: the server's, unless a test gives its own.
create function jobqueue.instant(p_now bigint) returns bigint
language sql volatile parallel safe
as $$ select coalesce(p_now, floor(extract(epoch from clock_timestamp()) * 1000)::bigint) $$;

-- Keeps the numbers above the clock in microseconds, so that they rise too when a server takes over that lacks the last
-- writes. ``p_ahead``: how far above at least, for a connection that may have met such a server. They are never much
-- further ahead, so that all that was lost is below.
create function jobqueue.keep_pace(p_ahead bigint default 0) returns void
language plpgsql volatile
as $$
declare
    v_least bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint + p_ahead;
    v_lock bigint := 'jobqueue.number'::regclass::oid::bigint;
begin
    if (select s.last_value < v_least from jobqueue.number s) then
        -- One at a time, and who waited looks again: a number that was drawn must not be drawn once more. The lock is
        -- no transaction's: that of a caller may last, and everybody needs numbers.
        perform pg_advisory_lock(v_lock);
        begin
            if (select s.last_value < v_least from jobqueue.number s) then
                perform setval('jobqueue.number', v_least + 1000000);
            end if;
        exception when query_canceled or others then
            perform pg_advisory_unlock(v_lock);
            raise;
        end;
        perform pg_advisory_unlock(v_lock);
    end if;
end $$;

-- Draws a number, after keep_pace if that is due.
create function jobqueue.next_number() returns bigint
language plpgsql volatile
as $$
declare
    v_number bigint := nextval('jobqueue.number');
begin
    if v_number < (extract(epoch from clock_timestamp()) * 1000000)::bigint then
        perform jobqueue.keep_pace();
        v_number := nextval('jobqueue.number');
    end if;
    return v_number;
end $$;

-- The channel on which messages of a kind about a name are sent. Only who may read the secret knows it.
create function jobqueue.channel(p_kind text, p_name text) returns text
language plpgsql stable
as $$
declare
    v_secret text := (select m.secret from jobqueue.meta m);
begin
    return 'jq_' || substr(
        encode(sha256(convert_to(v_secret || ':' || p_kind || ':' || p_name, 'UTF8')), 'hex'), 1, 40
    );
end $$;

create function jobqueue.wake(p_queue text) returns void
language plpgsql volatile
as $$
begin
    perform pg_notify(jobqueue.channel('work', p_queue), '');
end $$;

-- The number of a queue, made when it is used for the first time.
create function jobqueue.queue_number(p_queue text) returns int
language plpgsql volatile
as $$
declare
    v_q int;
begin
    loop
        select q.queue into v_q from jobqueue.queue q where q.name = p_queue;
        exit when v_q is not null;
        insert into jobqueue.queue (name) values (p_queue) on conflict do nothing returning queue into v_q;
        exit when v_q is not null;
    end loop;
    return v_q;
end $$;

-- Notes that a worker was seen: by the second, unless a test counts the milliseconds.
create function jobqueue.see(p_q int, p_worker text, p_at bigint, p_step bigint) returns void
language plpgsql volatile
as $$
declare
    v_seen bigint := (select w.seen from jobqueue.worker w where w.queue = p_q and w.name = p_worker);
begin
    if v_seen is null or v_seen < p_at - p_step or v_seen > p_at then
        insert into jobqueue.worker as w (queue, name, seen) values (p_q, p_worker, p_at)
        on conflict (queue, name) do update set seen = excluded.seen;
    end if;
end $$;

-- One value for all, as long as the batch.
create function jobqueue.filled(p_column anyarray, p_size int) returns anyarray
language sql immutable parallel safe
as $$
    select case when cardinality(p_column) = 1 and p_size > 1 then array_fill(p_column[1], array[p_size]) else p_column end
$$;

-- Registers an address at those of the jobs that live. The row that says where a job is stays locked until the end of
-- the transaction: whoever ends the job waits for that, and then finds the address.
create function jobqueue.add_waiters(p_q int, p_ids text[], p_address text) returns void
language plpgsql volatile
as $$
declare
    v_left bigint[];
    v_held bigint[] := '{}';
    v_some bigint[];
    v_excess record;
begin
    for turn in 1..10 loop
        select array_agg(j.seq order by j.seq) into v_left
        from jobqueue.job j
        where j.queue = p_q and j.id = any(p_ids) and j.seq <> all(v_held) and not exists (
            select 1 from (
                select 1 from jobqueue.outcome o where o.queue = j.queue and o.seq = j.seq offset 0
            ) o
        );
        exit when v_left is null;
        select array_agg(f.seq) into v_some from unnest(v_left) s(seq) cross join lateral (
            select r.seq from jobqueue.ready r where r.queue = p_q and r.seq = s.seq offset 0 for key share
        ) f;
        v_held := v_held || v_some;
        select array_agg(f.seq) into v_some from unnest(v_left) s(seq) cross join lateral (
            select l.seq from jobqueue.lease l where l.seq = s.seq offset 0 for key share
        ) f;
        v_held := v_held || v_some;
        select array_agg(f.seq) into v_some from unnest(v_left) s(seq) cross join lateral (
            select d.seq from jobqueue.due d where d.queue = p_q and d.seq = s.seq offset 0 for key share
        ) f;
        v_held := v_held || v_some;
    end loop;
    insert into jobqueue.waiter (seq, address, added)
    select distinct h.seq, p_address, nextval('jobqueue.number') from unnest(v_held) h(seq)
    on conflict do nothing;
    if (select count(*) from (select 1 from jobqueue.waiter w where w.seq = any(v_held) limit 100) w) < 100 then
        return;
    end if;
    for v_excess in
        select x.seq, x.address from (
            select
                w.seq, w.address, row_number() over newest as n,
                sum(octet_length(w.address)) over newest as bytes
            from jobqueue.waiter w where w.seq = any(v_held)
            window newest as (partition by w.seq order by w.added desc rows unbounded preceding)
        ) x
        where x.n > 1000 or x.bytes > 65536
    loop
        delete from jobqueue.waiter w where w.seq = v_excess.seq and w.address = v_excess.address;
    end loop;
end $$;

-- Tells the waiters of ended jobs. A message names jobs and says how they ended; results are read.
create function jobqueue.tell(p_q int, p_queue text, p_seqs bigint[]) returns void
language plpgsql volatile
as $$
declare
    v_message record;
begin
    for v_message in
        with gone as (
            delete from jobqueue.waiter w where w.seq = any(p_seqs) returning w.seq, w.address
        ),
        items as (
            select g.address, g.seq, json_build_array(o.id, o.seq, o.state, o.attempts)::text as item
            from gone g cross join lateral (
                select o.* from jobqueue.outcome o where o.queue = p_q and o.seq = g.seq offset 0
            ) o
        ),
        sized as (
            select i.*, sum(octet_length(i.item) + 1) over (partition by i.address order by i.seq) / 6000 as part
            from items i
        )
        select s.address, string_agg(s.item, ',' order by s.seq) as items
        from sized s group by s.address, s.part
    loop
        perform pg_notify(
            jobqueue.channel('address', v_message.address),
            format('["ended","%s",[%s]]', p_queue, v_message.items)
        );
    end loop;
end $$;

-- Whether any job of this schema ever had to start in time. An index that nothing was written to has one page.
create function jobqueue.may_have_late() returns boolean
language sql stable
as $$ select pg_relation_size('jobqueue.detail_late'::regclass) > current_setting('block_size')::bigint $$;
