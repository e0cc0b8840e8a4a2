-- Documents: small named values, compared before they are set.

create function jobqueue.read_documents(p_spaces text[], p_names text[])
returns table (place bigint, version bigint, data bytea)
language sql stable
as $$
    select t.place, d.version, d.data from unnest(p_spaces, p_names) with ordinality t(space, name, place)
    join jobqueue.document d on d.space = t.space and d.name = t.name
$$;

-- Makes changes in order; the version that each has made, null where another was there.
create function jobqueue.write_documents(p_space text, p_names text[], p_expected bigint[], p_data bytea[])
returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_answer bigint[] := '{}';
    v_found bigint;
    v_version bigint;
begin
    perform jobqueue.keep_pace();
    -- In the order of the names: two calls with the same ones never wait for each other.
    perform 1 from jobqueue.document d where d.space = p_space and d.name = any(p_names) order by d.name for update;
    for v_at in 1..cardinality(p_names) loop
        loop
            select d.version into v_found from jobqueue.document d
            where d.space = p_space and d.name = p_names[v_at] for update;
            v_version := null;
            exit when coalesce(v_found, 0) <> p_expected[v_at];
            v_version := nextval('jobqueue.number');
            if p_data[v_at] is null then
                delete from jobqueue.document d where d.space = p_space and d.name = p_names[v_at];
                exit;
            elsif v_found is not null then
                update jobqueue.document d set version = v_version, data = p_data[v_at]
                where d.space = p_space and d.name = p_names[v_at];
                exit;
            end if;
            insert into jobqueue.document (space, name, version, data)
            values (p_space, p_names[v_at], v_version, p_data[v_at]) on conflict do nothing;
            exit when found;
        end loop;
        v_answer := v_answer || v_version;
    end loop;
    return v_answer;
end $$;

create function jobqueue.list_documents(p_space text, p_after text, p_limit int, p_budget bigint)
returns table (name text, version bigint, data bytea, more boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    return query
    select x.name, x.version, x.data, x.n < x.found from (
        select d.*, row_number() over (order by d.name) as n, count(*) over () as found,
            sum(octet_length(d.data)) over (order by d.name rows unbounded preceding) as bytes
        from (
            select d.name, d.version, d.data from jobqueue.document d
            where d.space = p_space and d.name > p_after order by d.name limit p_limit + 1
        ) d
    ) x
    where x.n <= p_limit and (x.n = 1 or x.bytes <= p_budget)
    order by x.name;
end $$;
