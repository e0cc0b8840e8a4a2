-- Named locks. A released one stays, expired: its next term must be larger.

-- Takes a lock; its term, null if another owner holds it.
create function jobqueue.lock_acquire(p_name text, p_owner text, p_ttl bigint, p_now bigint) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now bigint := jobqueue.instant(p_now);
    v_term bigint;
begin
    perform jobqueue.keep_pace();
    insert into jobqueue.lock as k (name, owner, term, until)
    values (p_name, p_owner, nextval('jobqueue.number'), v_now + p_ttl)
    on conflict (name) do update set
        owner = excluded.owner,
        term = case when k.until <= v_now then nextval('jobqueue.number') else k.term end,
        until = excluded.until
    where k.until <= v_now or k.owner = excluded.owner
    returning k.term into v_term;
    return v_term;
end $$;

create function jobqueue.lock_renew(p_name text, p_owner text, p_ttl bigint, p_now bigint) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now bigint := jobqueue.instant(p_now);
begin
    update jobqueue.lock k set until = v_now + p_ttl
    where k.name = p_name and k.owner = p_owner and k.until > v_now;
    return found;
end $$;

create function jobqueue.lock_release(p_name text, p_owner text, p_now bigint) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update jobqueue.lock k set until = 0
    where k.name = p_name and k.owner = p_owner and k.until > jobqueue.instant(p_now);
    if not found then
        return false;
    end if;
    perform pg_notify(jobqueue.channel('lock', p_name), '');
    return true;
end $$;

create function jobqueue.lock_holder(p_name text, p_now bigint) returns table (owner text, term bigint, until bigint)
language sql volatile
as $$
    select k.owner, k.term, k.until from jobqueue.lock k
    where k.name = p_name and k.until > jobqueue.instant(p_now)
$$;
