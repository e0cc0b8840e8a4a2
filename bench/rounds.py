"""Rounds in which the libraries take turns, so that a busy minute of the machine meets them all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from bench.peers import Peer

__all__ = ["take_turns"]


def take_turns(measure: Callable[[Peer], None], peers: list[Peer], rounds: int) -> int:
    """Measure all peers in each round; return the number of whole rounds, fewer after Ctrl-C."""
    done = 0
    try:
        while done < rounds:
            # Whoever begins a round has no advantage that would last.
            first = done % len(peers)
            for peer in peers[first:] + peers[:first]:
                started = time.monotonic()
                measure(peer)
                took = time.monotonic() - started
                print(f"round {done + 1}, {peer.title}: {took:.0f} s", file=sys.stderr)
            done += 1
    except KeyboardInterrupt:
        print(f"ended after {done} of {rounds} rounds", file=sys.stderr)
    return done
