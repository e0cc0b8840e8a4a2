"""Finds faults of a server and of the data on it, for ``jobqueue doctor`` and ``jobqueue fsck``."""

from __future__ import annotations

from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.findings import Finding, Severity
from jobqueue.storage.postgres import migrations
from jobqueue.storage.postgres.faults import RIGHTS
from jobqueue.storage.postgres.listener import HEARD_WITHIN
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.postgres.open_store import OpenStore
from jobqueue.storage.postgres.target import Connection
from jobqueue.storage.values import MAX_DOCUMENT

__all__ = ["diagnose", "find_breaches", "hindrances"]

_SKEW = 1.0
_OLD = 60.0
"""Seconds after which an open transaction keeps too much from vacuum."""
_MANY_DEAD = 1_000_000
_FEW_LEFT = 10
_MOST_BREACHES = 1000


async def diagnose(session: OpenStore, schema: str) -> list[Finding]:
    """Judge the server, its settings, the schema, and what this user may do."""

    async def look(connection: Connection, _repeated: bool) -> list[Finding]:  # noqa: FBT001
        return [
            _version(connection),
            await _schema(connection, schema),
            await _rights(connection, schema),
            await _durability(connection),
            await _clock(connection),
            await _connections(connection),
            await _transactions(connection),
            await _dead_rows(connection, schema),
        ]

    return [*await session.pool.run(look), await _notifications(session)]


async def hindrances(session: OpenStore) -> list[Finding]:
    """Tell of transactions that have been open for long."""

    async def look(connection: Connection, _repeated: bool) -> Finding:  # noqa: FBT001
        return await _transactions(connection)

    found = await session.pool.run(look)
    return [] if found.severity is Severity.OK else [found]


def _version(connection: Connection) -> Finding:
    version = connection.get_server_version()
    return Finding("version", Severity.OK, f"PostgreSQL {version.major}.{version.minor}")


async def _schema(connection: Connection, schema: str) -> Finding:
    version = await migrations.version_of(connection, schema)
    return Finding("schema", Severity.OK, f"{schema!r} has version {version}, which is the latest")


_LACKING = """
with schema as (select n.oid from pg_namespace n where n.nspname = $1)
select 'the schema itself' from schema s where not has_schema_privilege(s.oid, 'usage')
union all
select c.relname from pg_class c
where c.relnamespace = (select s.oid from schema s) and c.relkind in ('r', 'p') and not (
    has_table_privilege(c.oid, 'select') and (c.relname = 'meta' or (
        has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update')
        and has_table_privilege(c.oid, 'delete')
    ))
)
union all
select c.relname from pg_class c where c.relnamespace = (select s.oid from schema s) and c.relkind = 'S'
and not (
    has_sequence_privilege(c.oid, 'usage') and has_sequence_privilege(c.oid, 'update')
    and has_sequence_privilege(c.oid, 'select')
)
union all
select p.proname || '()' from pg_proc p where p.pronamespace = (select s.oid from schema s)
and not has_function_privilege(p.oid, 'execute')
"""
_MOST_NAMED = 5


async def _rights(connection: Connection, schema: str) -> Finding:
    lacking = [row[0] for row in await connection.fetch(_LACKING, schema)]
    if lacking:
        named = ", ".join(lacking[:_MOST_NAMED])
        more = f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
        return Finding("rights", Severity.ERROR, f"not all rights on {named}{more}. {RIGHTS}")
    return Finding("rights", Severity.OK, "this user may do all that a queue does")


async def _durability(connection: Connection) -> Finding:
    if await connection.fetchval("show fsync") != "on":
        return Finding("durability", Severity.WARNING, "fsync is off: a power cut may destroy everything")
    commit = await connection.fetchval("show synchronous_commit")
    if commit == "off":
        text = "synchronous_commit is off: a crash loses the last jobs and outcomes that were acknowledged"
        return Finding("durability", Severity.WARNING, text)
    return Finding("durability", Severity.OK, f"fsync is on, synchronous_commit is {commit}")


async def _clock(connection: Connection) -> Finding:
    started = SYSTEM_CLOCK.time()
    server = float(await connection.fetchval("select extract(epoch from clock_timestamp())::float8"))
    skew = server - (started + SYSTEM_CLOCK.time()) / 2
    text = f"the server's clock, which decides, is {skew:+.3f} s from this one"
    return Finding("clock", Severity.WARNING if abs(skew) > _SKEW else Severity.OK, text)


_LEFT = """
select least(
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true), '0')::int - count(*),
    min(d.datconnlimit) filter (where d.datconnlimit >= 0) - count(*) filter (where a.datid = d.oid),
    min(r.rolconnlimit) filter (where r.rolconnlimit >= 0) - count(*) filter (where a.usesysid = r.oid)
)::int
from pg_stat_activity a
cross join (select * from pg_database where datname = current_database()) d
cross join (select * from pg_roles where rolname = current_user) r
where a.backend_type = 'client backend'
"""


async def _connections(connection: Connection) -> Finding:
    left = await connection.fetchval(_LEFT)
    few = Severity.WARNING if left < _FEW_LEFT else Severity.OK
    return Finding("connections", few, f"{left} are left to this user on this database")


# Whoever writes keeps rows from vacuum as well, not only whoever reads. The start of a transaction of another
# user is shown to members of pg_read_all_stats.
_OLDEST = """
select o.what, extract(epoch from clock_timestamp() - o.since)::float8 from (
    select format('process %s of user %s, %s', a.pid, a.usename, a.state) as what, a.xact_start as since
    from pg_stat_activity a
    where (a.backend_xmin is not null or a.backend_xid is not null) and a.pid <> pg_backend_pid()
    and a.datname = current_database()
    union all
    select format('prepared transaction %L', p.gid), p.prepared from pg_prepared_xacts p
    where p.database = current_database()
) o
where o.since is not null order by o.since limit 1
"""


async def _transactions(connection: Connection) -> Finding:
    found = await connection.fetchrow(_OLDEST)
    if found is not None and found[1] > _OLD:
        text = (
            f"a transaction has been open for {found[1]:.0f} s ({found[0]}): vacuum cannot remove rows that "
            "ended since. End it, or the connection: select pg_terminate_backend(PROCESS)"
        )
        return Finding("transactions", Severity.WARNING, text)
    return Finding("transactions", Severity.OK, "no other transaction has been open for long")


async def _dead_rows(connection: Connection, schema: str) -> Finding:
    rows = await connection.fetch(
        "select s.relname, s.n_dead_tup, 'autovacuum_enabled=false' = any(c.reloptions)"
        " from pg_stat_user_tables s join pg_class c on c.oid = s.relid"
        " where s.schemaname = $1 order by 2 desc",
        schema,
    )
    if await connection.fetchval("show autovacuum") != "on":
        return Finding("vacuum", Severity.WARNING, "autovacuum is off on this server: dead rows stay")
    if left_out := [name for name, _, off in rows if off]:
        text = f"autovacuum is off for {', '.join(left_out)}: dead rows stay"
        return Finding("vacuum", Severity.WARNING, text)
    dead = sum(count for _, count, _ in rows)
    if rows and rows[0][1] > _MANY_DEAD:
        text = (
            f"{rows[0][0]} has {rows[0][1]} dead rows: autovacuum does not keep up, or a transaction is open"
        )
        return Finding("vacuum", Severity.WARNING, text)
    return Finding("vacuum", Severity.OK, f"autovacuum is on, {dead} dead rows in all tables")


async def _notifications(session: OpenStore) -> Finding:
    try:
        heard = await session.listener.works()
    except TimeoutError:
        heard = False
    if heard:
        return Finding("notifications", Severity.OK, "a notification through another connection was heard")
    text = (
        f"no notification was heard within {HEARD_WITHIN:g} s, as behind a pooler in transaction mode: work "
        "and results are looked for every second. Give the queue a direct connection where latency matters"
    )
    return Finding("notifications", Severity.WARNING, text)


_BREACHES = """
select q.name, j.id, 'is in ' || (
    (r.seq is not null)::int + (l.seq is not null)::int + (d.seq is not null)::int + (o.seq is not null)::int
) || ' of ready, due, lease and outcome, not in one'
from {s}.job j
left join {s}.queue q on q.queue = j.queue
left join {s}.ready r on r.queue = j.queue and r.seq = j.seq
left join {s}.lease l on l.queue = j.queue and l.id = j.id and l.seq = j.seq
left join {s}.due d on d.queue = j.queue and d.seq = j.seq
left join {s}.outcome o on o.queue = j.queue and o.seq = j.seq
where 1 <> (
    (r.seq is not null)::int + (l.seq is not null)::int + (d.seq is not null)::int + (o.seq is not null)::int
)
union all
select q.name, j.id, 'has to start in time, which nobody looks after'
from {s}.detail x
join {s}.job j on j.queue = x.queue and j.seq = x.seq
left join {s}.queue q on q.queue = j.queue
left join {s}.ready r on r.queue = j.queue and r.seq = j.seq
left join {s}.due d on d.queue = j.queue and d.seq = j.seq
where x.start_within is not null and coalesce(r.fence, d.fence) = 0
and x.start_before is distinct from coalesce(r.due, d.at) + x.start_within
union all
select q.name, p.id, 'is in ' || p.place || ' without its job'
from (
    select queue, seq, id, 'ready' as place from {s}.ready
    union all select queue, seq, id, 'due' from {s}.due
    union all select queue, seq, id, 'lease' from {s}.lease
    union all select queue, seq, id, 'outcome' from {s}.outcome where state < 10
) p
left join {s}.queue q on q.queue = p.queue
left join {s}.job j on j.queue = p.queue and j.id = p.id and j.seq = p.seq
where j.id is null
union all
select q.name, p.id, 'has a number in ' || p.place || ' that no job has'
from (
    select queue, id, 'ready' as place, attempts, stalls, 2 as state from {s}.ready
    union all select queue, id, 'due', attempts, stalls, 1 from {s}.due
    union all select queue, id, 'lease', attempts, stalls, 3 from {s}.lease
    union all select queue, id, 'outcome', attempts, stalls, state % 10 from {s}.outcome where state < 20
    union all select queue, id, 'outcome', attempts, stalls, 0 from {s}.outcome where state >= 20
    union all select queue, id, 'job', max_attempts - 1, max_stalls, 1 from {s}.job
) p
left join {s}.queue q on q.queue = p.queue
where p.attempts not between 0 and 2000000000 or p.stalls not between 0 and 2000000000
or p.state not between 1 and 7 or p.place = 'outcome' and p.state < 5
union all
select q.name, r.id, case
    when (r.slot in (3, 4)) <> (r.group_name <> '') then 'stands in a line that is not that of its group'
    when r.group_name <> j.group_name then 'has another group than its job'
    when r.group_name <> '' and not q.grouped then 'has a group, which its queue does not know of'
    else 'stands in a line that takes no turns'
end
from {s}.ready r
join {s}.job j on j.queue = r.queue and j.id = r.id and j.seq = r.seq
join {s}.queue q on q.queue = r.queue
left join {s}.line n on n.queue = r.queue and n.group_name = r.group_name and n.priority = r.priority
where (r.slot in (3, 4)) <> (r.group_name <> '') or r.group_name <> j.group_name
or r.group_name <> '' and not q.grouped or r.slot = 3 and n.turn is null
union all
select q.name, l.id, 'runs and is not counted in its group'
from {s}.lease l
join {s}.job j on j.queue = l.queue and j.id = l.id and j.seq = l.seq
join {s}.queue q on q.queue = l.queue
where l.group_name <> j.group_name or l.group_name <> '' and not l.counted
union all
select q.name, n.group_name, 'is a group that waits for the end of a run and has none'
from {s}.line n
join {s}.queue q on q.queue = n.queue
where n.opens = 9007199254740992 and not exists (
    select 1 from {s}.lease l where l.queue = n.queue and l.group_name = n.group_name
)
union all
select 'documents of ' || d.space, d.name, case when d.version between 1 and n.last_value
    then 'is larger than a document may be' else 'has a version that was not given yet' end
from {s}.document d, {s}.number n
where d.version not between 1 and n.last_value or octet_length(d.data) > {largest}
limit {most}
"""


async def find_breaches(connection: Connection, schema: str) -> list[Finding]:
    """Compare all jobs with where they are, and judge the documents; one finding for each contradiction."""
    sql = _BREACHES.format(s=quoted(schema), largest=MAX_DOCUMENT, most=_MOST_BREACHES)
    # One statement sees one instant, so a queue at work has no breaches.
    rows = await connection.fetch(sql, timeout=None)
    return [Finding(f"{queue}: {id}", Severity.ERROR, problem) for queue, id, problem in rows]
