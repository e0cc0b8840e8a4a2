"""The SQL of the ledger, with names for its schema and for what several statements share.

Several live rows may have one id for a moment: each enqueue writes one before the store says whether the job
is new. One that is not is dropped soon. So a row is *confirmed* when something was told of it, or when it is
old enough to have been dropped. Of the rows of an id that the store has lost, the latest confirmed one comes
back, or the first of all if none is: never two, and never none.
"""

from __future__ import annotations

from typing import Final

from jobqueue.storage.postgres.migrations import quoted

__all__ = [
    "BEAT",
    "CLEAN",
    "COUNTS",
    "DROP",
    "ENDED",
    "GRACE",
    "HISTORY",
    "JOBS",
    "KNOWN",
    "NOTE_DOUBT",
    "NOTE_EPOCH",
    "NOTE_SERVER",
    "ORIGINS",
    "OUTCOMES",
    "OUTLIVE",
    "PAGE",
    "RECORD",
    "REQUEUE",
    "SUPERSEDED",
    "WRITE",
    "WRITE_AGAIN",
    "statement",
]

GRACE: Final = 15_000
"""Milliseconds that a job may be in the ledger alone: its enqueue is still on the way to the store."""
_MOST_KEPT = 100
"""Largest number of changes in one job's history: the first and the last ones."""
_SHARED = {
    "now": "(extract(epoch from clock_timestamp()) * 1000)::bigint",
    "fresh": "(c.seq is null or c.seq > j.past_seq)",
    "confirmed": "({0}.history <> '[]' or {0}.created <= n.now - " + str(GRACE) + ")",
    "half": str(_MOST_KEPT // 2),
    "most": str(_MOST_KEPT),
}

WRITE = """
insert into {s}.job (token, queue, id, state, priority, due, max_attempts, max_stalls, ttl,
                     dead_letter_ttl, payload, headers, task, group_name, weight, start_within, created,
                     updated)
select u.token, k.queue, u.id, case when d.due > n.now then 1 else 2 end, k.priority, d.due, k.max_attempts,
       k.max_stalls, k.ttl, k.dead_letter_ttl, u.payload, coalesce(u.headers, ''), k.task, k.group_name,
       k.weight, k.start_within, n.now - k.ago, n.now
from (select {now} as now) n,
     unnest($1::text::uuid[], $2::text[], $3::bytea[], $4::bytea[], $5::int[])
         u (token, id, payload, headers, kind)
     join unnest($6::text[], $7::int[], $8::bigint[], $9::bigint[], $10::int[], $11::int[], $12::bigint[],
                 $13::bigint[], $14::text[], $15::text[], $16::int[], $17::bigint[], $18::bigint[])
          with ordinality
          k (queue, priority, run_at, delay, max_attempts, max_stalls, ttl, dead_letter_ttl, task, group_name,
             weight, start_within, ago, kind) on k.kind = coalesce(u.kind, 1),
     lateral (select coalesce(k.run_at, n.now - k.ago + k.delay) as due) d
"""
"""What several jobs have in common, as jobs of one queue mostly do, is sent once for all of them. No headers
at all, and one kind only, are arrays without elements: these cost the most."""

WRITE_AGAIN = WRITE + "on conflict (token) do nothing"
"""The same for jobs that may have been written before."""

RECORD = """
update {s}.job j set
    state = case when {fresh} then coalesce(c.state, j.state) else j.state end,
    attempts = case when {fresh} then coalesce(c.attempts, j.attempts) else j.attempts end,
    worker = coalesce(c.worker, j.worker),
    error = coalesce(c.error, j.error),
    outcome = case when not {fresh} then j.outcome when c.revives is not null then c.outcome
                   else coalesce(c.outcome, j.outcome) end,
    due = case when {fresh} then coalesce(c.due, j.due) else j.due end,
    expires = case when not {fresh} then j.expires when c.ttl is not null then n.now + c.ttl
                   when c.revives is not null then null else j.expires end,
    payload = case when {fresh} and c.state in (5, 7) then '' else coalesce(c.payload, j.payload) end,
    start_within = case when c.revives is null then j.start_within end,
    past_seq = greatest(j.past_seq, c.revives),
    fence = case when {fresh} then coalesce(c.fence, j.fence) else j.fence end,
    updated = n.now,
    history = case when j.history @> c.history then j.history else (
        select jsonb_agg(e.entry order by e.place)
        from (select x.entry, x.place, count(*) over () as total
              from jsonb_array_elements(j.history || c.history) with ordinality x (entry, place)
              where x.place <= jsonb_array_length(j.history)
                 or not j.history @> jsonb_build_array(x.entry)) e
        where e.total <= {most} or e.place <= {half} or e.place > e.total - {half}) end
from (select {now} as now) n,
     unnest($1::uuid[], $2::smallint[], $3::int[], $4::text[], $5::text[], $6::bytea[], $7::bigint[],
            $8::bytea[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::jsonb[])
     c (token, state, attempts, worker, error, outcome, due, payload, ttl, seq, fence, revives, history)
where j.token = c.token and (j.state < 5 or j.state = 6 and c.revives is not null or c.state is null)
"""
"""Repeated, it appends nothing twice."""

OUTLIVE = """
update {s}.job j set
    state = 8, updated = n.now,
    history = j.history || jsonb_build_array(jsonb_build_array(n.now, 'replaced', '', j.attempts, ''))
from (select {now} as now) n, {s}.job o
where o.token = any($1::uuid[]) and j.queue = o.queue and j.id = o.id and j.state < 5
  and (j.created, j.token) < (o.created, o.token)
"""

DROP = "delete from {s}.job where token = any($1::uuid[]) and requeued = 0 and state < 5"

KNOWN = """
select * from (
    select distinct on (j.id) j.id, j.token, j.state, j.attempts, j.created, j.updated,
                              coalesce(j.expires, 0) as expires, j.fence,
                              coalesce(octet_length(j.outcome), 0) as size
    from {s}.job j, (select {now} as now) n
    where j.queue = $1 and j.id = any($2::text[]) and not j.token = any($3::uuid[]) and not (
        j.state < 5 and not {confirmed:j} and exists (
            select 1 from {s}.job o where o.queue = j.queue and o.id = j.id and o.state < 5
                                      and (o.created, o.token) < (j.created, j.token)))
    order by j.id, j.created desc, j.token desc) last
where state < 5 or (state in (5, 6) and expires > {now})
"""

ENDED = """
select token, state, coalesce(octet_length(outcome), 0) as size
from {s}.job where token = any($1::uuid[]) and state in (5, 6, 7)
"""

OUTCOMES = "select token, outcome from {s}.job where token = any($1::uuid[])"

PAGE = """
select token, queue, id, state, attempts, due, created from {s}.job
where state < 5 and token > $1 and created <= {now} - $2 and ($4::text is null or queue = $4)
order by token limit $3
"""

JOBS = """
select token, id, payload, priority, due, max_attempts, max_stalls, ttl, headers, task, group_name,
       dead_letter_ttl, weight, case when fence = 0 then start_within end as start_within
from {s}.job where token = any($1::uuid[])
"""

REQUEUE = """
update {s}.job j set
    requeued = j.requeued + 1, updated = n.now, state = case when j.due > n.now then 1 else 2 end,
    max_attempts = greatest(1, j.max_attempts - greatest(0, j.attempts)), attempts = 0, past_seq = 0,
    history = case when jsonb_array_length(j.history) < {most} then j.history else j.history - {half} end
              || jsonb_build_array(jsonb_build_array(n.now, 'requeued', '', j.attempts, ''))
from (select {now} as now) n
where j.token = any($1::uuid[]) and j.state < 5 and ({confirmed:j} or not exists (
    select 1 from {s}.job o where o.queue = j.queue and o.id = j.id and o.state < 5
                              and (o.created, o.token) < (j.created, j.token)))
returning j.token, octet_length(j.payload) + octet_length(j.headers) as size
"""
"""What is left of its attempts is all that it has from then on: the store counts anew."""

SUPERSEDED = """
select j.token from {s}.job j, (select {now} as now) n
where j.token = any($1::uuid[]) and j.state < 5 and exists (
    select 1 from {s}.job o where o.queue = j.queue and o.id = j.id
                              and (o.created, o.token) > (j.created, j.token)
                              and (o.state between 5 and 7 or o.state < 5 and {confirmed:o}))
"""

ORIGINS = "select token, created from {s}.job where token = any($1::uuid[])"

HISTORY = """
select created, history from {s}.job where queue = $1 and id = $2 order by created desc, token desc limit $3
"""

COUNTS = "select state, count(*) as jobs from {s}.job where $1::text is null or queue = $1 group by state"

CLEAN = """
delete from {s}.job where token in (
    select token from {s}.job
    where state >= 5 and updated < {now} - $1 and coalesce(expires, 0) < {now} order by updated limit $2)
"""

BEAT = "select {now} as now, epoch, version, lost_at, restored, stuck from {s}.store"

NOTE_DOUBT = """
update {s}.store set doubt_until = greatest(doubt_until, (
    select max(j.expires) from {s}.job j where j.state in (5, 6) and j.expires > {now}))
where lost_at > 0
"""
"""It reads all outcomes: once for each loss, by whoever mends it."""

NOTE_EPOCH = """
update {s}.store
set epoch = $1, version = $2, lost_at = case when $3 then greatest(lost_at + 1, {now}) else lost_at end,
    doubt_until = case when $3 then greatest(doubt_until, {now} + $4) else doubt_until end
"""

NOTE_SERVER = """
insert into {s}.server as k (queue, epoch, asked, losses) values ($1, $2, $3, case when $4 then 1 else 0 end)
on conflict (queue) do update
set epoch = excluded.epoch, asked = excluded.asked, losses = k.losses + excluded.losses
returning losses, mended
"""


def statement(sql: str, schema: str) -> str:
    """Return a statement on the tables of a schema."""
    for row in ("j", "o"):
        sql = sql.replace(f"{{confirmed:{row}}}", _SHARED["confirmed"].format(row))
    for name, text in _SHARED.items():
        sql = sql.replace(f"{{{name}}}", text)
    return sql.replace("{s}", quoted(schema))
