-- The memory of calls whose answer depends on whether they are made for the first time.
--
-- Insertions, claims and settlements are recognised by what they wrote (tokens, fences). What deletes a record leaves
-- nothing behind to be recognised by: these calls note their answer, and are given it again when they are repeated.

create table jobqueue.answer (
    token bigint primary key,
    at bigint not null,
    value jsonb not null
);
create index answer_at on jobqueue.answer (at);
comment on table jobqueue.answer is 'Answers of calls that may be repeated, for an hour, which is longer than any is';

-- The answer that a call has given already; null on the first try. It and its repetition never run at the same time.
create function jobqueue.recall(p_token bigint) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(p_token);
    return (select a.value from jobqueue.answer a where a.token = p_token);
end $$;

-- Notes an answer and returns it. Forgets a few that are old, so that there are never many.
create function jobqueue.remember(p_token bigint, p_value jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_now bigint := jobqueue.instant(null);
begin
    if p_value is null then
        return null;
    end if;
    insert into jobqueue.answer (token, at, value) values (p_token, v_now, p_value);
    delete from jobqueue.answer a using (
        select o.token from jobqueue.answer o where o.at < v_now - 3600000
        order by o.at limit 10 for update skip locked
    ) old
    where a.token = old.token;
    return p_value;
end $$;
