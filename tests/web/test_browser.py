"""The dashboard in a real browser: looks, accessibility, every action, and how pages follow the store.

Skipped where there is no Chromium with its driver on ``PATH``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from jobqueue import Fatal, Job, MemoryStorage, Queue, Storage, StorageUnavailableError
from jobqueue.storage.values import NewJob
from jobqueue.web import dashboard
from tests.everywhere import redis_store
from tests.storage.postgres.support import postgres_storage
from tests.support import within

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

from tests.web.browser import Browser, binaries, browser, served  # noqa: E402
from tests.web.scene import busy_shop  # noqa: E402
from tests.web.screenshots import EVERY  # noqa: E402

BOUND = 15.0
"""Seconds that a page gets to come true."""
IGNORED = {"region"}
"""Rules of axe that do not hold: the link that skips to the content stands before all regions."""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    if binaries() is None:
        pytest.skip("there is no chromium with its chromedriver on PATH")
    with browser() as made:
        yield made


class Reader:
    """Somebody in front of the window."""

    def __init__(self, window: Browser, address: str) -> None:
        self.driver = window.driver
        self.window = window
        self._address = address

    async def _do(self, act: Callable[[], Any]) -> Any:
        return await within(asyncio.to_thread(act), 2 * BOUND)

    async def open(self, page: str) -> None:
        await self._do(lambda: self.driver.get(f"{self._address}/{page}"))

    async def until(self, condition: Callable[[Any], Any]) -> Any:
        """Try until it holds; the page may change at any moment."""
        wait = WebDriverWait(self.driver, BOUND, 0.05, [WebDriverException])
        return await self._do(lambda: wait.until(condition))

    async def sees(self, text: str) -> None:
        """Wait for a text."""
        await self.until(lambda driver: text in driver.find_element(By.TAG_NAME, "main").text)

    async def misses(self, text: str) -> None:
        """Wait for a text to be gone."""
        await self.until(lambda driver: text not in driver.find_element(By.TAG_NAME, "main").text)

    async def click(self, selector: str) -> None:
        def click(driver: Any) -> bool:
            driver.find_element(By.CSS_SELECTOR, selector).click()
            return True

        await self.until(click)

    async def type(self, selector: str, text: str) -> None:
        def write() -> None:
            field = self.driver.find_element(By.CSS_SELECTOR, selector)
            field.clear()
            field.send_keys(text)

        await self._do(write)

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self._do(lambda key=key: self.driver.switch_to.active_element.send_keys(key))

    async def run(self, script: str, *arguments: Any) -> Any:
        return await self._do(lambda: self.driver.execute_script(script, *arguments))

    async def pulse(self, state: str) -> None:
        """Wait until the page says how it is kept up to date."""
        await self.until(
            lambda driver: driver.find_element(By.ID, "pulse").get_attribute("data-state") == state
        )

    async def complaints(self) -> list[str]:
        """What the browser complains of: errors of scripts, and breaches of the policy."""
        found = await self._do(lambda: self.driver.get_log("browser"))
        return [
            entry["message"]
            for entry in found
            if entry["level"] == "SEVERE" and "Failed to load resource" not in entry["message"]
        ]

    async def faults(self) -> list[str]:
        """What axe finds."""

        def check() -> Any:
            self.driver.execute_script(axe())
            return self.driver.execute_async_script(
                "const done = arguments[arguments.length - 1]; axe.run().then(done)"
            )

        found = await self._do(check)
        return [
            f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
            for each in found["violations"]
            if each["id"] not in IGNORED
        ]


@cache
def axe() -> str:
    return files("axe_core_python").joinpath("axe.min.js").read_text()


CUT_OFF = """
return Math.max(0, ...[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth))
"""


@asynccontextmanager
async def reading(window: Browser, storage: Storage, **options: Any) -> AsyncIterator[Reader]:
    window.look(1400)
    async with served(dashboard(storage, refresh=0.2, **options)) as address:
        yield Reader(window, address)
        await asyncio.to_thread(window.driver.get, "about:blank")  # lets go of its stream


async def test_every_page_fits_and_is_accessible_in_both_schemes(window: Browser) -> None:
    storage = MemoryStorage()
    async with busy_shop(storage), reading(window, storage) as reader:
        for width, scheme in ((1400, "light"), (400, "dark")):
            window.look(width, scheme)
            for page in EVERY:
                await reader.open(page)
                await reader.pulse("live")
                assert await reader.faults() == [], (page, width, scheme)
                assert await reader.complaints() == [], page
                wide = await reader.run("return document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, (page, width)
        window.look(900)
        for page in EVERY:
            await reader.open(page)
            assert await reader.run("return document.documentElement.scrollWidth - innerWidth") <= 0, page
            assert await reader.run(CUT_OFF) <= 0, (page, "a table is cut off")


def _nowhere() -> Path:
    raise AssertionError("a server needs no directory")


@pytest.mark.parametrize("kind", ["redis", "postgres"])
async def test_every_action_end_to_end(window: Browser, kind: str) -> None:
    made = redis_store(_nowhere, "redis") if kind == "redis" else postgres_storage()
    async with made as storage:
        await storage.open()
        try:
            await act(window, storage)
        finally:
            await storage.close()


async def act(window: Browser, storage: Storage) -> None:
    queue: Queue[Any, Any] = Queue(storage, "mail", max_attempts=1)
    results: dict[str, Any] = {}

    @queue.execute
    async def _(job: Job[Any]) -> Any:
        if job.payload == {"to": "nobody"}:
            raise Fatal("no such address")
        results[job.id] = job.payload
        return job.payload

    async with queue:
        await queue.enqueue("letter", {"to": "nobody"})
        await within(queue.drain())
        await queue.pause()
        await queue.enqueue_many([(f"waits:{n}", n) for n in range(12)])
        await queue.schedules.add("nightly", {"to": "all"}, cron="0 2 * * *")
        async with reading(window, storage) as reader:
            await edit_and_retry(reader)
            await cancel_and_remove(reader)
            await choose_some_and_all(reader)
            await run_schedule(reader)
            await reader.open("queue?queue=mail")
            await reader.click("#pause")
            await reader.sees("Resumed.")
            await within(queue.drain())
            assert results["letter"] == {"to": "somebody"}
            assert await reader.complaints() == []


async def edit_and_retry(reader: Reader) -> None:
    await reader.open("dead")
    await reader.click("a.id")
    await reader.sees("no such address")
    await reader.click("[popovertarget=retry]")
    await reader.type("#retry textarea", '{"to": "somebody"}')
    await reader.click("#retry button[name=verb]")
    await reader.sees("1 job runs again")
    await reader.sees('"to": "somebody"')
    await reader.sees("until somebody resumes it")


async def cancel_and_remove(reader: Reader) -> None:
    await reader.open("job?queue=mail&id=waits:0")
    await reader.click("[popovertarget=cancel]")
    await reader.press(Keys.ESCAPE)
    await reader.until(lambda driver: not driver.find_element(By.ID, "cancel").is_displayed())
    await reader.click("[popovertarget=cancel]")
    await reader.click("#cancel button[name=verb]")
    await reader.sees("1 job was cancelled")
    await reader.click("[popovertarget=remove]")
    await reader.click("#remove button[name=verb]")
    await reader.sees("No such job")


async def choose_some_and_all(reader: Reader) -> None:
    await reader.open("queue?queue=mail&state=queued")
    for n in (1, 2):
        await reader.click(f"input[value='waits:{n}']")
    await reader.sees("2 chosen")
    await reader.click(".bulk button[value=cancel]")
    await reader.sees("Cancel 2 jobs?")
    await reader.click(".confirm button[name=verb]")
    await reader.sees("2 jobs were cancelled")
    await reader.click("#tab-cancelled")
    await reader.sees("waits:1")
    await reader.click("button[name=all][value=remove]")
    await reader.sees("Remove 2 jobs?")
    await reader.click(".confirm button[name=verb]")
    await reader.sees("2 done, finished")
    await reader.sees("No cancelled jobs.")


async def run_schedule(reader: Reader) -> None:
    await reader.open("schedules")
    await reader.click("button[value=pause]")
    await reader.sees("it has no ticks until it is resumed")
    await reader.click("button[value=resume]")
    await reader.sees("The schedule goes on")
    await reader.click("button[value=run]")
    await reader.sees("Enqueued: nightly@now-")


async def test_a_page_follows_the_store_and_leaves_its_reader_in_peace(
    window: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = MemoryStorage()
    await storage.open()
    await storage.insert("mail", [NewJob(f"m{n}", b"1") for n in range(3)])
    async with reading(window, storage) as reader:
        await reader.open("queue?queue=mail&state=queued")
        await reader.pulse("live")
        await storage.insert("mail", [NewJob("comes", b"1")])
        await reader.sees("comes")
        # The focus stays where it is, and so does what is chosen.
        await reader.run("document.querySelector('#tab-failed').focus()")
        await storage.insert("mail", [NewJob("later", b"1")])
        await reader.sees("later")
        assert await reader.run("return document.activeElement.id") == "tab-failed"
        await reader.click("input[value=m1]")
        await storage.insert("mail", [NewJob("waits for its reader", b"1")])
        await asyncio.sleep(1.5)
        assert await reader.run("return document.querySelector('input[value=m1]').checked")
        await reader.click("input[value=m1]")
        await reader.sees("waits for its reader")
        with monkeypatch.context() as patch:

            async def away(*_arguments: object, **_options: object) -> Any:
                raise StorageUnavailableError("nobody answers")

            for name in ("counts", "queues", "scan", "workers"):
                patch.setattr(storage, name, away)
            await reader.sees("The store is away")
            await reader.pulse("away")
        await reader.sees("waits for its reader")
        await reader.pulse("live")
    await storage.close()


async def test_without_a_stream_it_polls(window: Browser) -> None:
    """Takes as long as a page waits between two polls: five seconds."""
    storage = MemoryStorage()
    await storage.open()
    await storage.insert("mail", [NewJob("m", b"1")])
    async with reading(window, storage, max_streams=0) as reader:
        await reader.open("queue?queue=mail&state=queued")
        await reader.pulse("poll")
        await storage.insert("mail", [NewJob("comes", b"1")])
        await reader.sees("comes")
    await storage.close()


async def test_keys(window: Browser) -> None:
    storage = MemoryStorage()
    await storage.open()
    await storage.insert("mail", [NewJob("m", b"1")])
    async with reading(window, storage) as reader:
        await reader.open("")
        await reader.press("/")
        assert await reader.run("return document.activeElement.id") == "find-queue"
        await reader.press("gd")  # is text in a field
        assert await reader.run("return document.activeElement.value") == "gd"
        await reader.run("document.activeElement.blur()")
        await reader.press("g", "s")
        await reader.until(lambda driver: driver.current_url.endswith("/schedules"))
        await reader.press(Keys.TAB, Keys.ENTER)
        await reader.until(lambda driver: driver.current_url.endswith("#main"))
    await storage.close()
