"""Jobs between a guarded store, its callers and its ledger: what each of them knows of one."""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.model.fast import make_tuple
from jobqueue.model.new_job import NewJob, Reuse
from jobqueue.model.states import ENDED, JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.guard.session import GuardSession
from jobqueue.storage.guard.tags import new_tokens, number_of, tagged_job, untag
from jobqueue.storage.guard.values import CODES, Change, History, Known, Written
from jobqueue.storage.values import Inserted, InsertStatus, Record

__all__ = ["answers", "as_known", "as_record", "change_of", "ledgered", "remembered", "tagged", "token_of"]


def ledgered(session: GuardSession, queue: str, jobs: Sequence[NewJob]) -> list[Written]:
    """Give jobs their tokens: as the ledger gets them."""
    now = session.now() / 1000  # the ledger's, so that tokens of all producers rise together
    at = SYSTEM_CLOCK.monotonic()
    tokens = new_tokens(now, len(jobs))
    return [make_tuple(Written, (token, queue, job, at)) for token, job in zip(tokens, jobs, strict=True)]


def tagged(written: Sequence[Written]) -> list[NewJob]:
    """Return jobs that have their tokens as the store gets them."""
    return [tagged_job(token, job) for token, _, job, _ in written]


def token_of(record: Record | None) -> str | None:
    """Return the token of a job that the store has; ``None`` if it has none, or no such job."""
    return None if record is None else untag(record.headers)[0]


def change_of(
    session: GuardSession, record: Record, event: str, state: JobState, worker: str = ""
) -> Change | None:
    """Return what the store says of a job, for the ledger; ``None`` if the job is none of the guard's."""
    token = token_of(record)
    if token is None:
        return None
    history = [History(session.now(), event, worker, record.attempts)]
    change = Change(token, CODES[state], record.attempts, seq=record.seq, history=history)
    if state is JobState.FAILED:
        change.data, change.ttl = record.error, record.ttl
    elif state is JobState.CANCELLED and record.state in ENDED and record.state is not state:
        change.state, change.ttl = None, 0  # it had ended, and is no more remembered
    return change


def answers(state: JobState, reuse: Reuse) -> bool:
    """Return whether an ended job answers an enqueue, instead of being replaced."""
    return reuse is Reuse.RETURN or (reuse is Reuse.RERUN_FAILED and state is JobState.COMPLETED)


def as_known(session: GuardSession, queue: str, record: Record) -> Record:
    """Return a record as callers know it."""
    token, headers = untag(record.headers)
    if token is None:
        return record
    return record._replace(headers=headers, seq=session.numbers.known(queue, record.id, record.seq, token))


def remembered(known: Known) -> Inserted:
    """Return the answer to an enqueue whose job has ended, as the ledger remembers."""
    return Inserted(InsertStatus.FOUND, number_of(known.token), known.state, known.data, known.attempts)


def as_record(session: GuardSession, queue: str, known: Known) -> Record:
    """Make the record of a job that only the ledger knows."""
    seq = session.numbers.known(queue, known.id, number_of(known.token), known.token)
    completed = known.state is JobState.COMPLETED
    return Record(
        known.id, seq, known.state, 0, known.created, known.created, known.updated, known.attempts,
        known.attempts, 0, 0, 0, known.fence, None, None, cancelling=False,
        result=known.data if completed else None, error=None if completed else known.data, progress=None,
        expires_at=known.expires or None, payload=None,
    )  # fmt: skip
