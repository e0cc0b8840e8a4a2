"""Two services as one: started, stopped and broken together."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.cli.serving import Service, together


class Part:
    """A service that notes what it is told."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.over = asyncio.Event()
        self.fails: dict[str, Exception] = {}

    async def do(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        if what in self.fails:
            raise self.fails[what]

    async def until_broken(self) -> None:
        await self.over.wait()
        if "broken" in self.fails:
            raise self.fails["broken"]

    def service(self) -> Service:
        return Service(
            start=lambda: self.do("start"),
            stop=lambda: self.do("stop"),
            hurry=lambda: self.log.append(f"hurry {self.name}"),
            until_broken=self.until_broken,
            ready=lambda: self.name == "main",
        )


@pytest.fixture
def parts() -> tuple[Part, Part, Service]:
    log: list[str] = []
    main, other = Part("main", log), Part("other", log)
    return main, other, together(main.service(), other.service())


async def test_both_are_started_hurried_and_stopped(parts: tuple[Part, Part, Service]) -> None:
    main, _, both = parts
    await both.start()
    both.hurry()
    await both.stop()
    assert main.log == ["start main", "start other", "hurry main", "hurry other", "stop main", "stop other"]
    assert both.ready()


async def test_the_first_is_stopped_when_the_second_does_not_start(parts: tuple[Part, Part, Service]) -> None:
    main, other, both = parts
    other.fails["start"] = ConnectionError("no store")
    with pytest.raises(ConnectionError):
        await both.start()
    assert main.log == ["start main", "start other", "stop main"]


async def test_both_are_stopped_although_one_fails(parts: tuple[Part, Part, Service]) -> None:
    main, _, both = parts
    main.fails["stop"] = ConnectionError("no store")
    with pytest.raises(ConnectionError):
        await both.stop()
    assert main.log == ["stop main", "stop other"]


@pytest.mark.parametrize("place", [0, 1])
async def test_what_breaks_one_breaks_both(parts: tuple[Part, Part, Service], place: int) -> None:
    both, broken = parts[2], parts[:2][place]
    waiting = asyncio.create_task(both.until_broken())
    broken.fails["broken"] = ZeroDivisionError("a defect")
    broken.over.set()
    with pytest.raises(ZeroDivisionError):
        await waiting
    assert broken.log == []


async def test_the_second_is_stopped_when_somebody_has_stopped_the_first(
    parts: tuple[Part, Part, Service],
) -> None:
    main, _, both = parts
    waiting = asyncio.create_task(both.until_broken())
    main.over.set()
    await waiting
    assert main.log == ["stop other"]
