"""The commands ``doctor`` and ``fsck``: check a store's server or disk, and its data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from jobqueue.cli.client import shared_storage
from jobqueue.cli.exits import Exit, Failure, failure
from jobqueue.cli.options import option, output_option, storage_option
from jobqueue.cli.output import emit_json, rows_table, show
from jobqueue.cli.running import run
from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.model.numbers import percentile
from jobqueue.storage.capabilities import Checkable, Diagnosable, Finding, Severity
from jobqueue.storage.contract import Storage
from jobqueue.storage.urls import redact

__all__ = ["doctor", "fsck"]

LATENCY = "latency"
"""Name of a store's own finding on the round trip, which replaces ours."""
LOCK = "doctor"
"""Name of a lock without a holder: asking for its holder is the cheapest call."""


@click.command()
@storage_option()
@output_option()
@option("--samples", type=click.IntRange(1, 100_000), default=50, help="Calls that are timed.")
def doctor(*, storage: str, output: str, samples: int) -> None:
    """Check that the store can be reached and is fit for jobs; measure how fast it answers.

    Exit code 5 if it cannot be reached, 7 if it must not be used as it is.
    """
    found, code = run(_examine(shared_storage(storage), samples))
    name = redact(storage)
    known = {"storage": name, "healthy": code is Exit.OK, **found}
    if output == "table":
        show(_table(found["findings"]))
    if code is not Exit.OK:
        raise Failure(f"{name} is not healthy: see the errors above", code, data=known)
    if output == "json":
        emit_json(known)


async def _examine(store: Storage, samples: int) -> tuple[dict[str, Any], Exit]:
    try:
        await store.open()
    except StorageError as error:
        code = Exit.UNREACHABLE if isinstance(error, StorageUnavailableError) else Exit.UNHEALTHY
        return {"round_trip_ms": None, "findings": [_row("open", Severity.ERROR, str(failure(error)))]}, code
    try:
        trip = await _round_trips(store, samples)
        found = _rows(await store.diagnose()) if isinstance(store, Diagnosable) else []
        findings = [_row("open", Severity.OK, "the store can be reached and used")]
        if all(finding["name"] != LATENCY for finding in found):
            text = f"p50 {trip['p50']:.3f} ms, p99 {trip['p99']:.3f} ms of {samples}"
            findings.append(_row("round trip", Severity.OK, text))
        findings += found
    finally:
        await store.close()
    healthy = all(finding["severity"] != Severity.ERROR for finding in findings)
    return {"round_trip_ms": trip, "findings": findings}, Exit.OK if healthy else Exit.UNHEALTHY


async def _round_trips(store: Storage, samples: int) -> dict[str, float]:
    """Measure single calls, one after the other; return the percentiles in milliseconds."""
    await store.lock_holder(LOCK)  # the first call pays for connecting
    times: list[float] = []
    for _ in range(samples):
        started = store.clock.monotonic()
        await store.lock_holder(LOCK)
        times.append((store.clock.monotonic() - started) * 1000)
    return {"p50": round(percentile(times, 0.5), 3), "p99": round(percentile(times, 0.99), 3)}


@click.command()
@storage_option()
@output_option()
@option("--repair", is_flag=True, help="Mend what can be mended. Stop what uses the store before.")
def fsck(*, storage: str, output: str, repair: bool) -> None:
    """Check the data of the store and list every breach. Exit code 7 if one is left."""
    store, name = shared_storage(storage), redact(storage)
    if not isinstance(store, Checkable):
        raise Failure.usage(f"{name} is a kind of store without a check of its data: try `jobqueue doctor`")
    findings = _rows(run(_check(store, repair=repair)))
    left = sum(finding["severity"] == Severity.ERROR for finding in findings)
    known = {"storage": name, "sound": not left, "findings": findings}
    if output == "table" and findings:
        show(_table(findings))
    if left:
        advice = "" if repair else ": stop what uses the store and add --repair"
        text = f"{name} has {left} error{'' if left == 1 else 's'}{advice}"
        raise Failure(text, Exit.UNHEALTHY, data=known)
    if output == "json":
        emit_json(known)
    elif not findings:
        click.echo(f"{name} is sound", err=True)


async def _check(store: Checkable, *, repair: bool) -> list[Finding]:
    return list(await store.check(repair=repair))


def _rows(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [_row(finding.name, str(finding.severity), finding.text) for finding in findings]


def _row(name: str, severity: str, text: str) -> dict[str, str]:
    return {"name": name, "severity": severity, "text": text}


def _table(findings: list[dict[str, str]]) -> Any:
    return rows_table(["what", "state", "found"], [list(finding.values()) for finding in findings])
