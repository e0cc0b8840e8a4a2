"""The slopes of the soak, and a short one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.soak import Readings, slope, soak


@pytest.mark.quick
def test_a_slope_is_that_of_the_readings_after_the_warm_up() -> None:
    growing = [(float(second), 100.0 if second < 15 else second / 2) for second in range(60)]
    assert slope(growing).per_minute == pytest.approx(30.0)
    assert slope([(float(second), 7.0) for second in range(60)]) == (7.0, 7.0, 0.0)
    assert slope([(0.0, 3.0)]) == (3.0, 3.0, 0.0)


@pytest.mark.quick
def test_readings_are_kept_by_whose_they_are() -> None:
    readings = Readings()
    readings.add("worker", {"threads": 2.0})
    readings.add("store", {"keys": 5.0})
    assert {name: each.last for name, each in readings.slopes().items()} == {
        "worker threads": 2.0,
        "store keys": 5.0,
    }


async def test_a_soak_reads_processes_and_the_store(tmp_path: Path) -> None:
    slopes, storm, _ = await soak("file", 2.0, tmp_path)
    assert {"worker RSS (MB)", "producer descriptors", "reaper threads", "store disk (MB)"} <= slopes.keys()
    assert storm.actors.keys() >= storm.spared
