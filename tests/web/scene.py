"""A shop's queues as they look on a busy day: for pictures, and for tests in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from jobqueue import Backoff, Fatal, Job, LeaderElection, Queue, Rate, Reaper, Storage

TENANTS = ("tenant:acme", "tenant:globex", "tenant:initech", "tenant:umbrella")


class PaymentDeclined(Exception):
    """What the bank says."""


class SmtpError(Exception):
    """What the mail server says."""


def mail_queue(storage: Storage, go: asyncio.Event) -> Queue[Any, Any]:
    queue: Queue[Any, Any] = Queue(
        storage, "mail", concurrency=6, backoff=Backoff.fixed(90.0), tracebacks=True, worker_id="mail-1"
    )

    @queue.task(name="mail.welcome", max_attempts=5)
    async def welcome(to: str, lang: str = "en") -> dict[str, Any]:
        if to.startswith("bounce"):
            raise SmtpError(f"450 4.2.1 mailbox of {to} is receiving mail at a rate that is too high")
        return {"message_id": f"<{to}.20261126@mail.shop.example>", "lang": lang}

    @queue.task(name="mail.newsletter")
    async def newsletter(segment: str, job: Job[Any]) -> int:
        for done in range(62):
            await job.progress({"done": done * 100, "total": 10_000, "segment": segment})
        await go.wait()
        return 10_000

    return queue


def thumbs_queue(storage: Storage, go: asyncio.Event) -> Queue[Any, Any]:
    queue: Queue[Any, Any] = Queue(storage, "thumbnails", concurrency=4, worker_id="images-1")

    @queue.execute
    async def thumbnail(job: Job[dict[str, Any]]) -> dict[str, Any]:
        if job.payload["width"] == 1024:
            await job.progress(0.62)
            await go.wait()
        return {"url": f"https://cdn.shop.example/{job.payload['image']}@{job.payload['width']}.webp"}

    return queue


def payments_queue(storage: Storage) -> Queue[Any, Any]:
    queue: Queue[Any, Any] = Queue(
        storage,
        "payments",
        concurrency=8,
        max_attempts=2,
        backoff=Backoff.fixed(0.01),
        tracebacks=True,
        worker_id="payments-1",
    )

    @queue.task(name="payments.capture", id=lambda order, amount, currency: f"capture:{order}")
    async def capture(order: int, amount: int, currency: str) -> dict[str, Any]:
        if order % 5 == 0:
            raise PaymentDeclined(f"card of order {order} was declined: insufficient funds")
        if order % 7 == 0:
            raise Fatal(f"order {order} was captured already")
        return {"order": order, "captured": amount, "currency": currency}

    return queue


@asynccontextmanager
async def busy_shop(storage: Storage) -> AsyncIterator[None]:
    """Run the queues, and leave jobs of every state in them."""
    go = asyncio.Event()
    mail, thumbs, payments = mail_queue(storage, go), thumbs_queue(storage, go), payments_queue(storage)
    reports: Queue[Any, Any] = Queue(storage, "reports")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Reaper(storage, leader_election=LeaderElection()))
        for queue in (mail, thumbs, payments):
            await stack.enter_async_context(queue)
        await stack.enter_async_context(reports.producer())
        await fill(mail, thumbs, payments, reports)
        try:
            yield
        finally:
            go.set()


async def fill(
    mail: Queue[Any, Any], thumbs: Queue[Any, Any], payments: Queue[Any, Any], reports: Queue[Any, Any]
) -> None:
    welcome, newsletter, capture = (
        mail.task["mail.welcome"],
        mail.task["mail.newsletter"],
        payments.task["payments.capture"],
    )
    await payments.enqueue_many(
        [
            capture.using(group=TENANTS[order % 4]).request(order, 1_900 + order * 7, "EUR")
            for order in range(2_001, 2_061)
        ]
    )
    await mail.enqueue_many(
        [
            welcome.using(id=f"welcome:{user}", group=TENANTS[user % 4]).request(f"user{user}@shop.example")
            for user in range(40)
        ]
    )
    await welcome.using(id="welcome:7741", group=TENANTS[0]).enqueue("bounce@shop.example", "de")
    for segment in ("new", "loyal", "lapsed"):
        await newsletter.using(id=f"newsletter:2026-11:{segment}").enqueue(segment)
    await asyncio.sleep(0.3)
    await mail.enqueue_many(
        [
            welcome.using(id=f"reminder:{user}", delay=900.0 + user * 40, priority=-5).request(
                f"u{user}@shop.example"
            )
            for user in range(25)
        ]
    )
    for image in range(60):
        width = 1024 if image % 3 == 0 else 320
        await thumbs.enqueue(
            f"thumb:sku-{4200 + image}:{width}", {"image": f"sku-{4200 + image}", "width": width}
        )
    for day in range(8):
        await reports.enqueue(f"report:2026-11-{day + 10}", {"day": f"2026-11-{day + 10}", "format": "pdf"})
    await reports.cancel("report:2026-11-17")
    await reports.pause()
    await thumbs.limits.set(running=10, rate=Rate(120, per=60.0, burst=20), group_running=3)
    await mail.schedules.add(
        "newsletter", newsletter, args=("loyal",), cron="0 8 * * mon", timezone="Europe/Berlin"
    )
    await mail.schedules.add("digest", welcome, args=("digest@shop.example",), every=900.0, jitter=30.0)
    await payments.schedules.add("reconcile", capture, args=(1, 0, "EUR"), cron="30 2 * * *", catch_up="all")
    await reports.schedules.add("monthly", {"month": "last"}, cron="0 6 1 * *", paused=True)
    await asyncio.sleep(0.3)
