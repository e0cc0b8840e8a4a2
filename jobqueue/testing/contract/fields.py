"""The fields that travel with a job: headers, task, group, due time, checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import MAX_HEADERS, MAX_LABEL_BYTES, LeaseStatus, Record, Reuse, SettleStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import ALL_BYTES, LEASE, Jobs, job

__all__ = ["FieldCases"]

FIELDS: dict[str, Any] = {"headers": ALL_BYTES, "task": "mail.send", "group": "tenant:7"}
LONGEST: dict[str, Any] = {
    "headers": ALL_BYTES * (MAX_HEADERS // 256),
    "task": "é" * (MAX_LABEL_BYTES // 2),
    "group": "g" * MAX_LABEL_BYTES,
}


def carried(record: Record) -> dict[str, Any]:
    return {"headers": record.headers, "task": record.task, "group": record.group}


class FieldCases(Cases):
    """Fields that travel with a job."""

    @pytest.mark.parametrize("state", JobState)
    async def test_a_job_keeps_its_fields_in_every_state(self, jobs: Jobs, state: JobState) -> None:
        run = await jobs.bring(state, "a", **FIELDS)
        record = await jobs.record("a", payload=True)
        assert carried(record) == FIELDS
        assert run is None or (run.headers, run.task, run.group) == (ALL_BYTES, "mail.send", "tenant:7")
        page = await jobs.storage.scan("q", state, 10)
        assert page.records == [record._replace(result=None, payload=None, headers=b"", history=())]

    @pytest.mark.parametrize(
        "fields", [{}, LONGEST, *({name: value} for name, value in (FIELDS | LONGEST).items())]
    )
    async def test_each_field_alone_and_as_long_as_it_may_be(
        self, jobs: Jobs, fields: dict[str, Any]
    ) -> None:
        await jobs.put("a", payload=b"data", **fields)
        run = await jobs.claim_one()
        given = {"headers": b"", "task": "", "group": ""} | fields
        assert {"headers": run.headers, "task": run.task, "group": run.group} == given
        assert run.payload == b"data"
        assert carried(await jobs.record("a")) == given
        await jobs.complete(run, b"result")
        record = await jobs.record("a")
        assert (carried(record), record.result) == (given, b"result")

    async def test_jobs_of_one_call_keep_their_own_fields(self, jobs: Jobs) -> None:
        labels = ["", "x", "", "y", "y", ""]
        await jobs.insert(*(job(str(n), task=label, group=label) for n, label in enumerate(labels)))
        assert [run.task for run in sorted(await jobs.claim(9), key=lambda run: run.id)] == labels
        assert [(await jobs.record(str(n))).group for n in range(6)] == labels

    async def test_fields_stay_over_retry_release_and_stall(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=3, **FIELDS)
        for action in (Action.RETRY, Action.RELEASE, None):
            run = await jobs.claim_one()
            assert (run.headers, run.task, run.group) == tuple(FIELDS.values())
            if action is None:
                await jobs.stall()
            else:
                await jobs.settle(run, action, b"error")
        run = await jobs.claim_one()
        assert (run.headers, run.task, run.group) == tuple(FIELDS.values())

    async def test_a_replaced_job_has_the_fields_of_the_new_one(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED, "a", **FIELDS)
        await jobs.put("a", reuse=Reuse.RERUN, task="other")
        assert carried(await jobs.record("a")) == {"headers": b"", "task": "other", "group": ""}

    async def test_found_jobs_keep_their_fields(self, jobs: Jobs) -> None:
        await jobs.put("a", **FIELDS)
        await jobs.put("a", task="other", headers=b"new")
        assert carried(await jobs.record("a")) == FIELDS

    # -- numbers of a claim -----------------------------------------------------------------------

    async def test_a_claim_names_the_incarnation_and_the_due_time(self, jobs: Jobs) -> None:
        inserted = await jobs.put("a", delay=5_000)
        due = jobs.clock.now_ms() + 5_000
        jobs.clock.move(7)
        run = await jobs.claim_one()
        assert (run.seq, run.due) == (inserted.seq, due)
        await jobs.settle(run, Action.RETRY, b"error", delay=3_000)
        due = jobs.clock.now_ms() + 3_000
        jobs.clock.move(4)
        run = await jobs.claim_one()
        assert (run.seq, run.due) == (inserted.seq, due)
        for settle in (True, False):
            jobs.clock.move(1)
            if settle:
                await jobs.settle(run, Action.RELEASE)
            else:
                await jobs.stall()
            run = await jobs.claim_one()
            assert (run.seq, run.due) == (inserted.seq, due) == (run.seq, (await jobs.record("a")).run_at)

    # -- checkpoints ------------------------------------------------------------------------------

    async def test_a_checkpoint_is_handed_to_the_next_run(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=9)
        run = await jobs.claim_one()
        assert run.saved is None
        for value in (ALL_BYTES, b"", b"x" * 100_000):
            assert await jobs.extend(run, saved=value) is LeaseStatus.HELD
            await jobs.settle(run, Action.RELEASE)
            run = await jobs.claim_one()
            assert run.saved == value
        await jobs.settle(run, Action.RETRY, b"error")
        run = await jobs.claim_one()
        assert run.saved == b"x" * 100_000
        await jobs.stall()
        assert (await jobs.claim_one()).saved == b"x" * 100_000

    async def test_a_checkpoint_and_progress_do_not_touch_each_other(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.extend(run, b"half", saved=b"cursor")
        await jobs.extend(run)
        assert (await jobs.record("a")).progress == b"half"
        await jobs.extend(run, b"more")
        await jobs.settle(run, Action.RETRY, b"error")
        assert (await jobs.record("a")).progress == b"more"
        assert (await jobs.claim_one()).saved == b"cursor"
        assert (await jobs.record("a")).progress is None

    async def test_a_checkpoint_is_fenced(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a", max_stalls=9)
        old = await jobs.claim_one()
        await jobs.extend(old, saved=b"mine")
        await jobs.stall()
        thief = Jobs(other, jobs.clock)
        assert await thief.extend(old, saved=b"late") is LeaseStatus.LOST
        run = await thief.claim_one()
        assert run.saved == b"mine"
        assert await jobs.extend(old, saved=b"late") is LeaseStatus.LOST
        await thief.settle(run, Action.RELEASE)
        assert (await jobs.claim_one()).saved == b"mine"

    @pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED])
    async def test_a_checkpoint_ends_with_its_job(self, jobs: Jobs, state: JobState) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.extend(run, saved=b"cursor")
        action = Action.COMPLETE if state is JobState.COMPLETED else Action.FAIL
        assert await jobs.settle(run, action, b"x") is SettleStatus.ACCEPTED
        await jobs.put("a", reuse=Reuse.RERUN)
        assert (await jobs.claim_one(lease=LEASE)).saved is None
