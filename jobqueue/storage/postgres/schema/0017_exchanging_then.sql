-- An exchange whose settlements insert jobs: all of it in one step.

-- Settles as settle_then does, and then promotes and claims as exchange does: what was inserted may be claimed at once.
create function jobqueue.exchange_then(
    p_queue text, p_now bigint, p_worker text, p_token bigint, p_repeated boolean, p_limit int, p_lease bigint,
    p_budget bigint, p_promote int, p_ids text[], p_fences bigint[], p_actions smallint[], p_data bytea[],
    p_ttls bigint[], p_delays bigint[], p_summaries bytea[], p_due_from bigint, p_most int[], p_least int[],
    p_low bigint[], p_high bigint[], p_then int[], p_new_ids text[], p_payloads bytea[],
    p_priorities int[], p_new_delays bigint[], p_run_ats bigint[], p_max_attempts int[], p_max_stalls int[],
    p_new_ttls bigint[], p_reuses smallint[], p_waits boolean[], p_headers bytea[], p_tasks text[], p_groups text[],
    p_letters bigint[]
) returns table (
    settled text, next_due bigint, more boolean, id text, payload bytea, fence bigint, attempts int, max_attempts int,
    ttl bigint, created bigint, headers bytea, task text, group_name text, seq bigint, due bigint, saved bytea,
    history_at bigint[], history_attempt int[], history_worker text[], history_error bytea[], reached bigint[],
    priorities int[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_letters text;
    v_commit text := current_setting('synchronous_commit');
begin
    v_letters := jobqueue.settle_then(
        p_queue, p_now, p_token, p_repeated, p_ids, p_fences, p_actions, p_data, p_ttls, p_delays, p_summaries,
        p_then, p_new_ids, p_payloads, p_priorities, p_new_delays, p_run_ats, p_max_attempts, p_max_stalls, p_new_ttls,
        p_reuses, p_waits, p_headers, p_tasks, p_groups, p_letters
    );
    return query
    select
        case when e.settled is not null then v_letters end, e.next_due, e.more, e.id, e.payload, e.fence, e.attempts,
        e.max_attempts, e.ttl, e.created, e.headers, e.task, e.group_name, e.seq, e.due, e.saved, e.history_at,
        e.history_attempt, e.history_worker, e.history_error, e.reached, e.priorities
    from jobqueue.exchange(
        p_queue, p_now, p_worker, p_token, p_repeated, p_limit, p_lease, p_budget, p_promote, '{}', '{}', '{}', '{}',
        '{}', '{}', '{}', p_due_from, p_most, p_least, p_low, p_high
    ) e;
    -- A claim alone is not flushed; this is more than a claim.
    perform set_config('synchronous_commit', v_commit, true);
end $$;
