"""A worker as a program of its own, with metrics on port 9100 and logs as JSON: ``python observed.py``."""

import asyncio
import logging
import os
import sys

from prometheus_client import start_http_server
from tasks import queue

from jobqueue import App
from jobqueue.observe.json_logs import JobFields, JsonFormatter
from jobqueue.observe.prometheus import instrument

handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JsonFormatter())
handler.addFilter(JobFields())
logging.basicConfig(level="INFO", handlers=[handler])

app = App(queue.storage, [queue])  # with a reaper
instrument(app)
start_http_server(int(os.environ.get("METRICS_PORT", "9100")), addr="127.0.0.1")
asyncio.run(app.run())
