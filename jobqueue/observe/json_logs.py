"""Log records as lines of JSON, each with the job that it is about.

``jobqueue worker --log-format json`` logs like this; a program of yours gives both to its handler::

    handler.setFormatter(JsonFormatter())
    handler.addFilter(JobFields())
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from jobqueue.runtime.text import shortened
from jobqueue.worker.job import CURRENT

__all__ = ["JobFields", "JsonFormatter"]

FIELDS = (
    "job_id", "queue", "task", "attempt", "worker_id", "reason", "duration", "delay", "reaper_id", "term",
)  # fmt: skip
"""Attributes of a record that stand in its line, if they are there."""
LONGEST = 32_768
"""Characters of a message, and of a traceback: what a handler raises may have any size."""


class JsonFormatter(logging.Formatter):
    """Formats each record as one line of JSON, in ASCII.

    It has ``time``, ``level``, ``logger``, ``process``, ``message``; ``exception`` if there is one; and, of a
    line about a job, ``job_id``, ``queue``, ``task``, ``attempt``, ``worker_id``, ``reason`` and ``duration``
    (seconds), as far as they are known. Longer texts than 32,768 characters are cut in the middle.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": shortened(record.getMessage(), LONGEST),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["exception"] = shortened(self.formatException(record.exc_info), LONGEST)
        return json.dumps(line, default=str)


class JobFields(logging.Filter):
    """Gives every record that is logged below a handler of jobs the fields of its job; refuses none.

    That is so in the event loop and in threads of handlers, for loggers of any name. Fields that a record has
    already stay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True."""
        job = CURRENT.get()
        if job is not None and not hasattr(record, "job_id"):
            fields = {
                "job_id": job.id, "queue": job.queue, "task": job.task or None, "attempt": job.attempts,
                "worker_id": job.worker_id,
            }  # fmt: skip
            for name, value in fields.items():
                if not hasattr(record, name):
                    setattr(record, name, value)
        return True
