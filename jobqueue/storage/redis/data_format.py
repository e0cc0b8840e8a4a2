"""The number of the format in which the data on a server are: read at every start, written by the first one.

Format 1 is that of version 0.1.0, which wrote no number. Format 2 has records with extras, marked as such
(``lua/lib/record.lua``), documents, and this number. Records of format 1 mean the same in format 2, so that
nothing is converted: a store with both is one of format 2.
"""

from __future__ import annotations

from jobqueue.errors import JobQueueError, StorageError, StorageUnavailableError
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.redis.keys import format_key
from jobqueue.storage.redis.net.transport import Transport

__all__ = ["FORMAT", "check_format"]

FORMAT = 2
"""The format that this version writes, and the newest that it reads."""

log = get_logger("jobqueue.storage.redis")


async def check_format(transport: Transport, prefix: str, where: str) -> None:
    """Refuse data of a newer format; write the number where there is none.

    A store that cannot be written now, because its memory is full or its user may only read, is opened all
    the same, and so is a cluster whose node with the number is away: the next start looks again.
    """
    key = format_key(prefix)
    try:
        number = await transport.command(b"GET", key, key=key)
    except StorageUnavailableError as error:
        log.warning("the format of the data is not checked now: %s", error)
        return
    if number is None:
        try:
            await transport.command(b"SET", key, b"%d" % FORMAT, b"NX", key=key)
        except JobQueueError as error:
            log.debug("the number of the format was not written: %s", error)
        return
    if not number.isdigit() or len(number) > 9:
        raise StorageError(
            f"{where}: the key {key.decode()} holds {number[:50]!r}, which is no number of a format: another "
            "application has written it, use another prefix"
        )
    if int(number) > FORMAT:
        raise StorageError(
            f"{where}: the jobs are stored in format {int(number)}, and this version of jobqueue reads "
            f"formats up to {FORMAT}: upgrade jobqueue here, or use another prefix"
        )
