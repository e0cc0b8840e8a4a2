"""The demo's numbers as data."""

from __future__ import annotations

from typing import Any

from jobqueue.cli.demo.check import Verdict
from jobqueue.cli.demo.files import Found
from jobqueue.cli.demo.scenario import Observed
from jobqueue.model.numbers import percentile

__all__ = ["summary"]


def summary(found: Found, storage: str, seen: Observed, verdict: Verdict) -> dict[str, Any]:
    """Return the numbers of a run."""
    answers = [answer for answer in seen.answers.values() if answer is not None]
    jobs = seen.requests + seen.forgotten
    return {
        "directory": str(found.root),
        "storage": storage,
        "files": len(found.files),
        "skipped": dict(found.skipped),
        "lines": sum(answer["lines"] for answer in answers),
        "words": sum(answer["words"] for answer in answers),
        "bytes": sum(answer["bytes"] for answer in answers),
        "jobs": jobs,
        "requests": seen.requests,
        "fire_and_forget": seen.forgotten,
        "duplicates_joined": seen.joined,
        "cached_replies": seen.cached,
        "retries": seen.retries,
        "cancelled": seen.cancelled,
        "unreadable": verdict.unreadable,
        "changed": verdict.changed,
        "seconds": round(seen.seconds, 3),
        "jobs_per_second": round(jobs / seen.seconds) if seen.seconds else 0,
        "latency_ms": {
            "p50": round(percentile(seen.latencies, 0.5) * 1000, 2),
            "p99": round(percentile(seen.latencies, 0.99) * 1000, 2),
        },
        "verified": verdict.equal,
        "wrong": list(verdict.wrong),
    }
