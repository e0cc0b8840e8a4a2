-- The tables. Instants and durations are whole milliseconds.
--
-- A job is written once (job), and so is its end (outcome). While it lives it has exactly one row more, narrow and
-- short-lived, which says where it is: in ready, due or lease. Who deletes that row moves the job on, so a row lock on
-- it decides every race. A few jobs also have rows in detail and attempt: those that failed, stalled, told progress, or
-- have to start in time.
--
-- Indexes for look-ups by key begin with the column that tells rows apart: one that begins with the queue would be used
-- for the queue alone. Where two cost the same, as on an empty table, the planner takes the younger: so that by seq is
-- the last.
--
-- States: 1 scheduled, 2 queued, 3 processing, 4 failing, 5 completed, 6 failed, 7 cancelled.

create sequence jobqueue.number;
comment on sequence jobqueue.number is
    'Numbers of incarnations, places in line, fences and terms. Kept above the microseconds since 1970: see keep_pace';

create table jobqueue.meta (
    only_row boolean primary key default true check (only_row),
    version int not null,
    secret text not null
);
comment on column jobqueue.meta.version is 'Number of the last schema file that was applied';
comment on column jobqueue.meta.secret is 'Makes names of channels that nobody can guess who may not read this';

create table jobqueue.queue (
    queue int generated always as identity primary key,
    name text collate "C" not null unique,
    rules jsonb,
    grouped boolean not null default false
);
comment on column jobqueue.queue.rules is 'What may be claimed, in the form of jobqueue/storage/rules.py; null: everything';
comment on column jobqueue.queue.grouped is
    'Whether a job with a group was ever inserted: its claims, and what ends its runs, hold a lock then. See lock_turns';

create table jobqueue.job (
    queue int not null,
    id text collate "C" not null,
    seq bigint not null,
    token bigint not null,
    created bigint not null,
    priority int not null,
    due bigint not null,
    max_attempts int not null,
    max_stalls int not null,
    ttl bigint not null,
    dead_letter_ttl bigint,
    payload bytea not null,
    headers bytea not null default '',
    task text collate "C" not null default '',
    group_name text collate "C" not null default '',
    weight smallint not null default 1,
    primary key (id, queue),
    -- A worker that is given such a time could not hand its job in, nor those that it hands in together with it.
    constraint job_ttl check (ttl between 0 and 1000000000000000)
);
comment on column jobqueue.job.token is 'Names the call that created the job: a repeated call recognises its own jobs';
comment on column jobqueue.job.due is 'When it was due at first';

-- The tables ready and lease are in slots, which are emptied in turn: see take_turn.
--
-- A row of them lives for moments, and is dead until vacuum may remove it: for as long as any transaction of the
-- database is open. So each of these tables has two slots. New rows go to the one whose turn it is; when that has
-- grown, the other one, whose rows have all been deleted by then, is truncated and takes its turn. Nothing but the room
-- that is taken depends on a slot: whatever reads or deletes looks into all of them.
--
-- What a transaction of a caller inserts goes to a third slot of ready, which is never truncated: such a transaction may
-- stay open for long, and who waits for it would keep others waiting.
--
-- Ready jobs of groups are in a fourth one, each in the line of its group and priority, which has a row in line. Those
-- that a transaction of a caller inserts wait in a fifth until a claim puts them into their lines.
--
-- A statement locks all slots before it takes its snapshot, and until its transaction ends. So a slot that is emptied
-- under an exclusive lock is full or empty to a statement, and never in between.

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
    id text collate "C" not null,
    weight smallint not null default 1,
    group_name text collate "C" not null default ''
) partition by list (slot);
create table jobqueue.ready_0 partition of jobqueue.ready for values in (0);
create table jobqueue.ready_1 partition of jobqueue.ready for values in (1);
create table jobqueue.ready_2 partition of jobqueue.ready for values in (2);
create table jobqueue.ready_3 partition of jobqueue.ready for values in (3);
create table jobqueue.ready_4 partition of jobqueue.ready for values in (4);
create index ready_0_line on jobqueue.ready_0 (queue, priority desc, place);
create index ready_1_line on jobqueue.ready_1 (queue, priority desc, place);
create index ready_2_line on jobqueue.ready_2 (queue, priority desc, place);
create index ready_4_line on jobqueue.ready_4 (queue, priority desc, place);
create index ready_3_line on jobqueue.ready_3 (group_name, queue, priority, place);
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
    counted boolean not null default false,
    weight smallint not null default 1,
    id text collate "C" not null,
    worker text collate "C" not null,
    group_name text collate "C" not null default ''
) partition by list (slot);
create table jobqueue.lease_0 partition of jobqueue.lease for values in (0) with (fillfactor = 70);
create table jobqueue.lease_1 partition of jobqueue.lease for values in (1) with (fillfactor = 70);
create index lease_fence on jobqueue.lease (fence);
create index lease_seq on jobqueue.lease (seq);
create index lease_counted on jobqueue.lease (queue, group_name) where counted;
comment on column jobqueue.lease.token is 'Names the call that claimed the job: a repeated call gets its claims again';
comment on column jobqueue.lease.counted is 'Whether its queue has limits or groups: then leases are counted by each claim';

create table jobqueue.due (
    queue int not null,
    at bigint not null,
    seq bigint not null,
    updated bigint not null,
    fence bigint not null default 0,
    priority int not null,
    attempts int not null default 0,
    stalls int not null default 0,
    id text collate "C" not null,
    weight smallint not null default 1,
    group_name text collate "C" not null default ''
);
create index due_at on jobqueue.due (queue, at, seq);
alter table jobqueue.due add primary key (queue, seq);
create index due_scheduled on jobqueue.due (queue, seq) where attempts = 0;
create index due_failing on jobqueue.due (queue, seq) where attempts > 0;
comment on table jobqueue.due is 'Jobs that wait for their time: scheduled with attempts = 0, failing with more';

create table jobqueue.outcome (
    queue int not null,
    seq bigint not null,
    fence bigint not null,
    due bigint not null,
    updated bigint not null,
    expires bigint not null,
    purge_at bigint not null,
    attempts int not null,
    stalls int not null,
    state smallint not null,
    cancelling boolean not null default false,
    id text collate "C" not null,
    data bytea
);
create index outcome_purge on jobqueue.outcome (queue, purge_at);
create index outcome_state on jobqueue.outcome (queue, state, seq) where state <> 5;
alter table jobqueue.outcome add primary key (queue, seq);
comment on column jobqueue.outcome.state is 'Of a replaced job 10 more: only what it came to can still be read';
comment on column jobqueue.outcome.purge_at is 'When the record may be deleted: later than expires for dead letters';

create table jobqueue.detail (
    queue int not null,
    seq bigint not null,
    error bytea,
    progress bytea,
    saved bytea,
    start_within bigint,
    start_before bigint,
    primary key (seq, queue)
) with (fillfactor = 70);
create index detail_late on jobqueue.detail (queue, start_before, seq) where start_before is not null;
comment on column jobqueue.detail.start_within is 'How long after it was due a job has to start for the first time';
comment on column jobqueue.detail.start_before is
    'The instant from which on it may not; null once it has started. One of a job that has ended means nothing';

create table jobqueue.attempt (
    queue int not null,
    seq bigint not null,
    fence bigint not null,
    at bigint not null,
    attempt int not null,
    worker text collate "C" not null,
    error bytea not null,
    primary key (seq, queue, fence)
);
comment on table jobqueue.attempt is 'Failed attempts and stalls of a job';

-- Pushes are hints, so that a crash may take these.
create unlogged table jobqueue.waiter (
    seq bigint not null,
    address text collate "C" not null,
    added bigint not null,
    primary key (seq, address)
);

create table jobqueue.gone (
    queue int not null,
    jobs bigint not null
);
create index gone_queue on jobqueue.gone (queue);
comment on table jobqueue.gone is 'Numbers of ended jobs whose records were deleted; added up by each purge';

create table jobqueue.worker (
    queue int not null,
    name text collate "C" not null,
    seen bigint not null,
    primary key (queue, name)
) with (fillfactor = 50);

create table jobqueue.line (
    queue int not null,
    priority int not null,
    turn bigint not null,
    opens bigint,
    left_over int not null default 0,
    weight int not null default 1,
    group_name text collate "C" not null,
    primary key (group_name, queue, priority)
) with (fillfactor = 70);
create index line_ring on jobqueue.line (queue, priority desc, turn) where opens is null;
create index line_opens on jobqueue.line (queue, opens) where opens is not null;
comment on column jobqueue.line.opens is
    'Null: it is in the ring. Else the instant at which its rate opens; 2^53: not before a run of the group ends';
comment on column jobqueue.line.left_over is 'Jobs that it may still start in a turn that it has begun; 0: it has not';
comment on column jobqueue.line.weight is 'A guess of how many it may start in its next turn, which its first job says';
create table jobqueue.plain_turn (
    queue int not null,
    priority int not null,
    turn bigint not null,
    primary key (queue, priority)
) with (fillfactor = 50);
comment on table jobqueue.plain_turn is 'When the jobs without a group had their last turn that others waited for';

-- The number of each rate that was used: by queue, and group or the empty text. Of one that is open nothing is kept.
create table jobqueue.pace (
    queue int not null,
    tat bigint not null,
    group_name text collate "C" not null,
    primary key (group_name, queue)
) with (fillfactor = 70);
create index pace_tat on jobqueue.pace (queue, tat);
comment on column jobqueue.pace.tat is 'Microseconds since 1970: the instant at which the next start would be in time';

create table jobqueue.lock (
    name text collate "C" primary key,
    owner text collate "C" not null,
    term bigint not null,
    until bigint not null
) with (fillfactor = 50);

create table jobqueue.document (
    space text collate "C" not null,
    name text collate "C" not null,
    version bigint not null,
    data bytea not null,
    primary key (space, name)
);

-- Rows of these live for moments: vacuum by their number, not by the share of a table that is empty at most times.
alter table jobqueue.ready_0 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.ready_1 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.ready_2 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.ready_3 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.ready_4 set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.lease_0 set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.lease_1 set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.due set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.waiter set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
alter table jobqueue.worker set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
alter table jobqueue.lock set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
alter table jobqueue.line set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);

-- The rules of a queue as claims need them. Of a limit: most leases at once, and of a rate the microseconds from one
-- start to the next, and those by which one may come before its time; null: no limit.
create type jobqueue.limits as (
    paused boolean, limited boolean, grouped boolean,
    running bigint, pause bigint, tolerance bigint,
    group_running bigint, group_pause bigint, group_tolerance bigint
);
