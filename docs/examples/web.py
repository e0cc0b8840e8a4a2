"""A web application that enqueues and waits: ``uvicorn web:app``. The work is done by workers elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, Depends, FastAPI, HTTPException, Request, Response

from jobqueue import Queue, QueueFullError, StorageUnavailableError, WaitTimeoutError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep a queue without a handler, which only enqueues, for as long as the server runs."""
    async with Queue[str, int](name="words") as queue:
        app.state.queue = queue
        yield


def words(request: Request) -> Queue[str, int]:
    """Return the queue of this process."""
    queue: Queue[str, int] = request.app.state.queue
    return queue


app = FastAPI(lifespan=lifespan)
Words = Annotated[Queue[str, int], Depends(words)]


@app.put("/texts/{name}")
async def count(
    name: str, text: Annotated[str, Body(media_type="text/plain")], queue: Words, response: Response
) -> dict[str, str | int]:
    """Answer with the result if it comes within five seconds, and else with the address to ask at."""
    id = f"text:{name}"
    try:
        return {"words": await queue.enqueue_and_wait(id, text, timeout=5.0, reuse="rerun")}
    except WaitTimeoutError:  # the job goes on
        response.status_code = 202
        return {"status": f"/texts/{name}"}
    except (QueueFullError, StorageUnavailableError) as error:
        raise HTTPException(503, "try again later", {"Retry-After": "10"}) from error


@app.get("/texts/{name}")
async def status(name: str, queue: Words) -> dict[str, str | int | None]:
    """Return the state of a text's job, and its result once it has one."""
    known = await queue.get_status(f"text:{name}")
    if known is None:
        raise HTTPException(404, "no such text, or its record has expired")
    return {"state": known.state, "words": known.result}
