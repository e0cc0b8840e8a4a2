"""A script that enqueues and waits: ``python count.py FILE...`` prints how many words each file has."""

import sys
from hashlib import sha256
from pathlib import Path

from jobqueue import Queue

queue: Queue[str, int] = Queue(name="words")  # without a handler: workers elsewhere do the work


def count_words(texts: list[str]) -> list[int]:
    """Return the number of words in each text: a plain function, for code that knows no asyncio."""
    answers = queue.sync.enqueue_many(
        (f"sha256:{sha256(text.encode()).hexdigest()}", text)
        for text in texts  # the id says what is asked for, so equal texts are counted once
    )
    return [answer.wait(timeout=60.0) for answer in answers]


if __name__ == "__main__":
    names = sys.argv[1:]
    for name, words in zip(names, count_words([Path(name).read_text() for name in names]), strict=True):
        print(f"{words:8,} {name}")
