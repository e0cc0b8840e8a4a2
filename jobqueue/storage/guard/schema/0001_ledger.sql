-- The ledger of a guarded store: one row for each job that was asked for, and what became of it. Instants and
-- durations are whole milliseconds since 1970.
--
-- States: 1 scheduled, 2 queued, 3 processing, 4 failing, 5 completed, 6 failed, 7 cancelled, 8 replaced: the store has
-- another job of that id, and how this one ended was not recorded. Below 5 a job is live: the store must have it.

create table jobqueue.meta (
    only_row boolean primary key default true check (only_row),
    version int not null,
    secret text not null
);
comment on column jobqueue.meta.version is 'Number of the last schema file that was applied';

create table jobqueue.job (
    token uuid primary key,
    queue text collate "C" not null,
    id text collate "C" not null,
    state smallint not null check (state between 1 and 8),
    priority int not null,
    due bigint not null,
    max_attempts int not null,
    max_stalls int not null,
    ttl bigint not null,
    dead_letter_ttl bigint,
    payload bytea not null,
    headers bytea not null,
    task text collate "C" not null,
    group_name text collate "C" not null,
    created bigint not null,
    updated bigint not null,
    attempts int not null default 0,
    requeued int not null default 0,
    worker text,
    error text,
    outcome bytea,
    expires bigint,
    history jsonb not null default '[]' check (jsonb_typeof(history) = 'array'),
    past_seq bigint not null default 0,
    fence bigint not null default 0,
    weight int not null default 1,
    start_within bigint
);
comment on column jobqueue.job.token is 'Names the job in the store, too; rises with the time';
comment on column jobqueue.job.start_within is 'How long after it was due it has to start for the first time';
comment on column jobqueue.job.requeued is 'How often it was brought back to the store';
comment on column jobqueue.job.outcome is 'The result of a completed job, the encoded error of a failed one';
comment on column jobqueue.job.history is 'Changes of state: [instant, event, worker, attempt, error]';

comment on column jobqueue.job.past_seq is 'Number in the store that a revived job had before: what is told of that comes late';
comment on column jobqueue.job.fence is 'Number of its last run in the store';

create index job_id on jobqueue.job (id, queue, token);
create index job_live on jobqueue.job (token) where state < 5;
create index job_ended on jobqueue.job (updated) where state >= 5;

-- What is known of the store.
create table jobqueue.store (
    only_row boolean primary key default true check (only_row),
    epoch bytea,
    version bigint not null default 0,
    lost_at bigint not null default 0,
    doubt_until bigint not null default 0,
    restored bigint not null default 0,
    stuck int not null default 0
);
comment on column jobqueue.store.epoch is 'A random value that a wiped store no longer has';
comment on column jobqueue.store.version is 'Its version: a store that was set back has a lower one';
comment on column jobqueue.store.lost_at is 'When the store was last found wiped or set back';
comment on column jobqueue.store.doubt_until is 'Until when the store may lack an outcome that has not expired';
comment on column jobqueue.store.restored is 'The lost_at up to which all jobs were brought back';
comment on column jobqueue.store.stuck is 'Jobs whose lease was long over when the store was last compared';
insert into jobqueue.store default values;

-- What is known of the server of a queue of another library.
create table jobqueue.server (
    queue text collate "C" primary key,
    epoch bytea not null,
    asked bigint not null,
    losses int not null default 0,
    mended int not null default 0
);
comment on column jobqueue.server.epoch is 'A random value that a wiped server no longer has';
comment on column jobqueue.server.asked is 'How often it was asked for that: one that was set back says less';
comment on column jobqueue.server.losses is 'How often it was found wiped or set back';
comment on column jobqueue.server.mended is 'The number of losses up to which everything was brought back';

-- For people: who did what, when.
create view jobqueue.audit as
    select j.queue, j.id, j.token, to_timestamp(j.created / 1000.0) as at, 'enqueued'::text as event,
           null::text as worker, 0 as attempt, null::text as error
    from jobqueue.job j
    union all
    select j.queue, j.id, j.token, to_timestamp((h ->> 0)::bigint / 1000.0), h ->> 1, h ->> 2, (h ->> 3)::int, h ->> 4
    from jobqueue.job j, jsonb_array_elements(j.history) h;
