"""A web application that enqueues, with the dashboard in it: ``uvicorn shop:app``, then open ``/jobs/``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from tasks import queue

from jobqueue.web import dashboard


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Enqueue here, and run the jobs elsewhere."""
    async with queue.producer():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/jobs", dashboard([queue], read_only=True))


@app.post("/texts/{name}", status_code=202)
async def count(name: str) -> dict[str, str]:
    """Enqueue a job and answer with its id."""
    return {"id": (await queue.enqueue(f"text:{name}", f"the text of {name}")).id}
