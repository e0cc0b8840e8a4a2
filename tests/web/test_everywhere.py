"""Every page and action once on every store, real servers included."""

from __future__ import annotations

from typing import Any

from jobqueue import Fatal, Job
from jobqueue.web import dashboard
from tests.support import Lab, until
from tests.web.visitor import Html, Visitor


async def test_every_page_and_action(lab: Lab) -> None:
    queue = await lab.start(_work, max_attempts=1)
    operator = lab.queue()
    async with operator.producer():
        await operator.enqueue_many([("ends", 1), ("fails", None), ("fails too", None)])
        await lab.finish(operator.drain())
        await lab.finish(queue.stop())
        await operator.schedules.add("nightly", {"n": 1}, cron="0 2 * * *")
        await operator.enqueue("waits", 1, group="acme")
        async with Visitor(dashboard(lab.storage)) as visitor:
            await look_and_act(visitor, lab)


async def _work(job: Job[Any]) -> Any:
    if job.payload is None:
        raise Fatal("no payload")
    return job.payload


async def look_and_act(visitor: Visitor, lab: Lab) -> None:
    for path, query in (
        ("/", {}),
        ("/queue", {"queue": "q"}),
        ("/queue", {"queue": "q", "state": "failed"}),
        ("/queue", {"queue": "q", "group": "acme"}),
        ("/job", {"queue": "q", "id": "ends"}),
        ("/job", {"queue": "q", "id": "fails"}),
        ("/dead", {}),
        ("/schedules", {}),
        ("/workers", {}),
        ("/system", {}),
    ):
        answer = await visitor.get(path, **query)
        assert answer.status_code == 200, f"{path}: {Html(answer.text).text}"
    assert "no payload" in (await visitor.page("/dead")).text
    assert (await visitor.post("/queue", queue="q", verb="pause")).status_code == 303
    assert (await visitor.post("/jobs", queue="q", id="waits", verb="cancel")).status_code == 303
    assert (
        await visitor.post("/jobs", queue="q", id="fails", verb="retry", payload='{"x": 1}')
    ).status_code == 303
    assert (await visitor.post("/jobs", queue="q", id="ends", verb="remove")).status_code == 303
    assert (await visitor.post("/schedules", queue="q", name="nightly", verb="run")).status_code == 303
    form = {"queue": "q", "verb": "retry", "all": "1", "state": "failed"}
    assert "did=started" in (await visitor.post("/jobs", **form)).headers["location"]
    await until(lambda: not visitor.app._board.bulk.running())
    assert [await lab.state(id) for id in ("waits", "fails", "fails too", "ends")] == [
        "cancelled",
        "queued",
        "queued",
        None,
    ]
    page = await visitor.page("/queue", queue="q", state="queued")
    shown = [each["value"] or "" for each in page.all("input", name="id", type="checkbox")]
    assert sorted(id.partition("@")[0] for id in shown) == ["fails", "fails too", "nightly"]
    assert "paused" in page.text
    forged = await visitor.get("/queue", queue="q", state="queued", cursor="queued:\u00e9forged")
    assert forged.status_code == 400
