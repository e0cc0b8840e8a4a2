"""The Redis store with ten thousand, a hundred thousand and a million jobs in the queue.

``enqueue`` and ``drain`` as in the Redis benchmark, with 100 in flight and 100 slots; memory per job while
all are queued, and when all have ended and their results are kept.
"""

from __future__ import annotations

import argparse
import sys

from bench.chart import number
from bench.measure import Series, machine
from bench.peers import PEERS
from bench.redis_server import RedisServer
from bench.runner import Runner

SIZES = (10_000, 100_000, 1_000_000)
COLUMNS = (("enqueue", "/s"), ("drain", "/s"), ("queued", "bytes"), ("ended", "bytes"))


def measure(server: RedisServer, size: int) -> dict[str, float]:
    """Fill the queue and drain it once."""
    peer = PEERS["ours"]
    sizes = {"port": server.port, "warmup": size // 10, "jobs": size - size // 10}
    server.empty()
    before = server.load()
    with Runner(peer, "enqueue", sizes | {"in_flight": 100}) as runner:
        enqueue = runner.measure()["rate"]
    queued = (server.settled() - before).memory / size
    with Runner(peer, "drain", sizes | {"concurrency": 100}) as runner:
        drain = runner.measure()["rate"]
    ended = (server.settled() - before).memory / size
    return {"enqueue": enqueue, "drain": drain, "queued": queued, "ended": ended}


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser("python -m bench redis-scale")
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args(sys.argv[2:]).rounds
    series = {size: {name: Series(name, unit) for name, unit in COLUMNS} for size in SIZES}
    with RedisServer() as server:
        for _ in range(rounds):
            for size in SIZES:
                for name, value in measure(server, size).items():
                    series[size][name].values.append(value)
        print(f"{machine()}, Redis {server.version}, medians of {rounds}\n")
    print("| jobs | enqueue (/s) | drain (/s) | bytes per queued job | bytes per ended job |")
    print("|---:|---:|---:|---:|---:|")
    for size, columns in series.items():
        print(f"| {size:,} | {' | '.join(number(column.median) for column in columns.values())} |")
