"""Any id, any bytes: nothing is interpreted, mixed up or shared."""

from __future__ import annotations

import unicodedata

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import InsertStatus, LeaseStatus, Renewal
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import ALL_BYTES, LEASE, TTL, Box, Jobs, job

__all__ = ["HostileCases"]

IDS = {
    "colon": "thumb:42",
    "slash": "a/b",
    "root": "/etc/passwd",
    "dot": ".",
    "dots": "..",
    "up": "../../up",
    "braces": "{}",
    "hash-tag": "{q}:a",
    "star": "*",
    "glob": "[a-z]?*",
    "space": " ",
    "spaces": "  a  b  ",
    "single-quote": "it's",
    "double-quote": '"quoted"',
    "percent": "100%s%d%00",
    "backslash": "a\\b\\0\\n",
    "sql": "'; DROP TABLE jobs; --",
    "lua": "]] .. KEYS[1] .. [[",
    "json": '{"id": null}',
    "dollar": "$1 ${HOME} $(id)",
    "number": "0",
    "float": "1e3",
    "minus": "-1",
    "null": "null",
    "none": "None",
    "true": "true",
    "emoji": "🦑👩‍👩‍👧‍👦",
    "nfc": unicodedata.normalize("NFC", "café"),
    "nfd": unicodedata.normalize("NFD", "café"),
    "lower": "straße",
    "upper": "STRASSE",
    "rtl": "\u05d0\u202e\u05d1",
    "bom": "\ufeffa",
    "astral": "\U0010fffd",
    "long": "x" * 256,
    "long-utf8": "é" * 128,
    "almost-long": "x" * 255,
    "one": "x",
}
PAYLOADS = {
    "empty": b"",
    "nul": b"\x00",
    "all-bytes": ALL_BYTES,
    "not-utf8": b"\xff\xfe\x80",
    "newlines": b"\r\n\r\n$5\r\n",
    "json": b'{"a": [1, null]}',
    "msgpack": b"\x82\xa1a\xc0",
    "1MiB": ALL_BYTES * 4096,
}


class HostileCases(Cases):
    """Hostile input."""

    @pytest.mark.parametrize("id", IDS.values(), ids=IDS)
    async def test_any_id_lives_a_whole_life(self, jobs: Jobs, id: str) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        (inserted,) = await jobs.insert(job(id, wait=True), reply_to="me")
        assert inserted.status is InsertStatus.CREATED
        run = await jobs.claim_one()
        assert run.id == id
        assert await jobs.extend(run, b"half") is LeaseStatus.HELD
        await jobs.stall()
        run = await jobs.claim_one()
        await jobs.settle(run, Action.RETRY, b"e", delay=1_000)
        jobs.clock.move(1)
        assert await jobs.ids_in(JobState.FAILING) == [id]
        await jobs.complete(await jobs.claim_one(), id.encode())
        assert (await box.reply()).id == id
        record = await jobs.record(id)
        assert (record.id, record.result) == (id, id.encode())
        assert (await jobs.put(id)).data == id.encode()
        assert await jobs.cancel(id) == "completed"
        assert await jobs.storage.set_ttl("q", [(id, 1_000)]) == ["updated"]
        jobs.clock.move(1)
        assert await jobs.storage.purge("q", 10) <= 1
        assert await jobs.find(id) is None
        await jobs.put(id)
        assert await jobs.cancel(id) == "cancelled"

    async def test_hostile_ids_do_not_meet(self, jobs: Jobs) -> None:
        ids = list(IDS.values())
        answers = await jobs.insert(*(job(id, id.encode()) for id in ids))
        assert {answer.status for answer in answers} == {InsertStatus.CREATED}
        runs = await jobs.claim(1000)
        assert [(run.id, run.payload) for run in runs] == [(id, id.encode()) for id in ids]
        settlements = [Settlement(run.id, run.fence, Action.COMPLETE, run.payload[::-1], TTL) for run in runs]
        await jobs.exchange(*settlements)
        records = await jobs.storage.get("q", ids)
        assert [record and record.result for record in records] == [id.encode()[::-1] for id in ids]
        assert await jobs.ids_in(JobState.COMPLETED) == sorted(ids)

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ("A", "a"),
            (IDS["nfc"], IDS["nfd"]),
            (IDS["long"], IDS["almost-long"]),
            ("a", "a "),
            ("a", " a"),
            ("a", "\ufeffa"),
            ("1", "01"),
            ("1", "1.0"),
            ("ß", "ss"),
            ("ﬁ", "fi"),
            ("K", "\u212a"),
            ("a:b", "a::b"),
            ("a/b", "a//b"),
            ("%41", "A"),
            ("\\x41", "A"),
            ("a\u200b", "a"),
        ],
    )
    async def test_alike_ids_are_two_jobs(self, jobs: Jobs, one: str, two: str) -> None:
        await jobs.put(one, payload=b"1")
        await jobs.put(two, payload=b"2")
        assert await jobs.cancel(one) == "cancelled"
        runs = await jobs.claim(9)
        assert [(run.id, run.payload) for run in runs] == [(two, b"2")]
        assert await jobs.state(one) is JobState.CANCELLED

    @pytest.mark.parametrize("data", PAYLOADS.values(), ids=PAYLOADS)
    async def test_bytes_come_back_as_they_were(self, jobs: Jobs, data: bytes) -> None:
        await jobs.put("a", payload=data)
        assert (await jobs.record("a", payload=True)).payload == data
        run = await jobs.claim_one()
        assert run.payload == data
        assert type(run.payload) is bytes
        await jobs.extend(run, data)
        await jobs.settle(run, Action.RETRY, data)
        record = await jobs.record("a", payload=True)
        assert (record.error, record.progress, record.payload) == (data, data, data)
        await jobs.stall()
        run = await jobs.claim_one()
        assert run.payload == data
        await jobs.settle(run, Action.FAIL, data)
        assert (await jobs.record("a")).error == data
        assert (await jobs.put("a")).data == data

    @pytest.mark.parametrize("worker", ["w:1", "a b/c", "{x}", "*", "it's", "naïve-☃", "h" * 200])
    async def test_any_worker_name(self, jobs: Jobs, worker: str) -> None:
        await jobs.put("a")
        await jobs.claim_one(worker=worker)
        assert (await jobs.record("a")).worker == worker
        jobs.clock.move(LEASE / 1000)
        assert [swept.worker for swept in await jobs.storage.sweep("q", 10)] == [worker]
        assert [one.worker for one in await jobs.storage.workers("q")] == [worker]

    # -- aliases ----------------------------------------------------------------------------------

    async def test_what_is_returned_is_the_callers(self, jobs: Jobs) -> None:
        async def answers() -> list[list[object]]:
            return [
                list(await jobs.storage.get("q", ["a", "b"], payload=True)),
                list((await jobs.storage.scan("q", JobState.PROCESSING, 10)).records),
                list(await jobs.storage.workers("q")),
                list(await jobs.storage.queues()),
            ]

        inserted = await jobs.insert(job("a"), job("b"))
        exchanged = await jobs.exchange(limit=2)
        runs = list(exchanged.jobs)
        before = await answers()
        inserted.clear()
        exchanged.jobs.clear()
        exchanged.settled.append("lost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (await jobs.storage.get("q", ["a"])).clear()
        (await jobs.storage.scan("q", JobState.PROCESSING, 10)).records.clear()
        (await jobs.storage.workers("q")).clear()
        (await jobs.storage.queues()).clear()
        assert await answers() == before
        for run in runs:
            assert await jobs.complete(run) == "accepted"

    async def test_what_was_given_stays_the_callers(self, jobs: Jobs) -> None:
        batch = [job("a"), job("b")]
        await jobs.storage.insert("q", batch)
        batch.clear()
        runs = await jobs.claim(2)
        renewals = [Renewal(run.id, run.fence, b"half") for run in runs]
        await jobs.storage.extend("q", "w", renewals, LEASE)
        renewals.clear()
        settlements = [Settlement(run.id, run.fence, Action.COMPLETE, b"r", TTL) for run in runs]
        await jobs.storage.exchange("q", "w", settlements, 0, LEASE)
        settlements.clear()
        ids = ["a", "b"]
        records = await jobs.storage.get("q", ids)
        ids.clear()
        assert [record and (record.result, record.progress) for record in records] == [(b"r", b"half")] * 2
