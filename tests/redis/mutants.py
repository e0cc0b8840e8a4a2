"""Breaks the scripts on purpose, one by one, and shows that the tests notice each.

Run it by ``python -m tests.redis.mutants``. Not collected by pytest: it runs the conformance
kit once for every mutant, in copies of the tree.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SELECTED = [
    "tests/storage/test_redis.py",
    "tests/redis/test_hints.py",
    "tests/redis/test_faults.py",
    "tests/redis/test_pushes.py",
    "tests/redis/test_security.py",
    "tests/redis/test_repeats.py",
    "tests/redis/test_locale.py",
]


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str


MUTANTS = [
    Mutant(
        "completions ignore the fence",
        "exchange.lua",
        "and sub(record, 24, 30) == sub(fences, 7 * i - 6, 7 * i) then",
        "then",
    ),
    Mutant(
        "other settlements ignore the fence", "exchange.lua", "if job.fence == fence then", "if true then"
    ),
    Mutant(
        "renewals ignore the fence",
        "extend.lua",
        "if not record or sub(record, 24, 30) ~= sub(head, 1, 7) then",
        "if not record then",
    ),
    Mutant(
        "the server's clock although a clock was passed",
        "lib/base.lua",
        "tonumber(ARGV[1]) or math.floor(us / 1000)",
        "math.floor(us / 1000)",
    ),
    Mutant(
        "prioritised jobs wake nobody", "lib/ready.lua", "if call('LLEN', ready) == 0 then", "if false then"
    ),
    Mutant(
        "sweeps keep the fence",
        "sweep.lua",
        "job.fence, job.stalls, job.updated = tick,",
        "job.fence, job.stalls, job.updated = job.fence,",
    ),
    Mutant(
        "released jobs go to the back",
        "lib/front.lua",
        "call('LPUSH', ready, element)",
        "call('RPUSH', ready, element)",
    ),
    Mutant(
        "fences start over",
        "lib/meta.lua",
        "math.max(tonumber(counters[1]) or 0, us, FLOOR)",
        "tonumber(counters[1]) or FLOOR",
    ),
    Mutant(
        "a repeated claim claims again",
        "exchange.lua",
        "if ahead == 0 or (lost > 0 and before >= lost) then",
        "if lost > 0 and before >= lost then",
    ),
    Mutant(
        "a repeated insert finds its own jobs",
        "insert.lua",
        "if ahead == 0 then",
        "if false then",
    ),
    Mutant(
        "waiters are not registered by get",
        "get.lua",
        "if reply_to ~= '' and not ended then",
        "if false then",
    ),
    Mutant(
        "a job asked to cancel completes",
        "lib/settle.lua",
        "if job.cancelling ~= 0 then action = 'x' end",
        "",
    ),
    Mutant("a cancelled job stays in the list", "cancel.lua", "call('LSET', ready, index, '')", ""),
    Mutant(
        "blanks are never removed", "cancel.lua", "if blanks * 2 > call('LLEN', ready) then", "if false then"
    ),
    Mutant(
        "a replaced job keeps its place among the ended",
        "insert.lua",
        "call('ZREM', key, unpack(gone)) end\n  for expires",
        "call('ZCARD', key) end\n  for expires",
    ),
    Mutant(
        "a replaced completed job keeps its place in its pack",
        "insert.lua",
        "for expires, gone in pairs(unfiled) do unfile(expires, gone) end",
        "",
    ),
    Mutant("a pack loses who stays", "lib/packs.lua", "file(expires, left, 1, #left)", ""),
    Mutant(
        "a purge that ends within a pack loses the rest",
        "lib/packs.lua",
        "file(packs[at + 1], ids, taken + 1, #ids)",
        "",
    ),
    Mutant(
        "a job with another TTL stays in its pack",
        "keep.lua",
        "for expires, gone in pairs(unfiled) do unfile(expires, gone) end",
        "",
    ),
    Mutant(
        "staged jobs are forgotten",
        "lib/ready.lua",
        "while call('LMOVE', staged, ready, 'RIGHT', 'LEFT') do end",
        "",
    ),
    Mutant(
        "due jobs of both kinds are promoted one after the other",
        "lib/promote.lua",
        "if a.due ~= b.due then return a.due < b.due end",
        "",
    ),
    Mutant(
        "an expired result is found",
        "lib/record.lua",
        "sunpack('>I7', rec, 9) <= now",
        "sunpack('>I7', rec, 9) < now",
    ),
    Mutant(
        "any cancel request is confirmed",
        "asked.lua",
        "job and job.fence == fence and (job.cancelling ~= 0 or job.state == 'X')",
        "true",
    ),
    Mutant("replies carry no secret", "lib/ended.lua", "'s' .. secret", "''"),
    Mutant(
        "a refused push cuts the script off",
        "lib/ended.lua",
        "redis.pcall(PUBLISH",
        "call(PUBLISH",
    ),
    Mutant(
        "a late copy of a call is carried out",
        "lib/calls.lua",
        "if ahead < 0 then",
        "if false then",
    ),
    Mutant(
        "claims whose answer was lost stay with nobody",
        "exchange.lua",
        "if ahead == 0 or (lost > 0 and before >= lost) then",
        "if ahead == 0 then",
    ),
    Mutant("a repeated cancel cancels again", "cancel.lua", "if ahead == 0 then", "if false then"),
    Mutant("a repeated keep keeps again", "keep.lua", "if ahead == 0 then", "if false then"),
    Mutant("a repeated sweep tells nothing", "sweep.lua", "if ahead == 0 then", "if false then"),
    Mutant(
        "a repeated release releases again", "lock_release.lua", "if held[3] == nonce then", "if false then"
    ),
    Mutant(
        "callers are never forgotten", "lib/calls.lua", "call('HDEL', meta, some[i])", "call('HLEN', meta)"
    ),
    Mutant("claims have no budget", "exchange.lua", "if bytes >= BUDGET then", "if false then"),
    Mutant(
        "what a claim has no budget for is lost",
        "exchange.lua",
        "do call('LPUSH', ready, elements[i]) end",
        "do call('LLEN', ready) end",
    ),
    Mutant("more is never said", "exchange.lua", "answer[4] = '1' end", "answer[4] = '' end"),
    Mutant(
        "the set of waiters is not bounded", "lib/waiters.lua", "while from <= excess do", "while false do"
    ),
    Mutant(
        "a sweep in parts turns the order around",
        "sweep.lua",
        "for i = #ARGV, 7, -1 do",
        "for i = 7, #ARGV do",
    ),
    Mutant(
        "positions are compared as the locale has it",
        "lib/search.lua",
        "sunpack('>I7', probe) < position",
        "probe < spack('>I7', position)",
    ),
    Mutant("stalls are not limited", "sweep.lua", "if job.stalls > most_stalls then", "if false then"),
    Mutant(
        "a full queue takes one more",
        "insert.lua",
        "elseif created >= room then",
        "elseif created > room then",
    ),
]


def survives(mutant: Mutant) -> bool:
    """Run the tests on a mutated copy; say whether they pass."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for name in ("jobqueue", "lua", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        script = copy / "lua" / mutant.file
        text = script.read_text()
        if mutant.old not in text:
            raise SystemExit(f"{mutant.name}: {mutant.file} has changed, adapt the mutant")
        script.write_text(text.replace(mutant.old, mutant.new) if mutant.old else text)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout", "30"]
        command += ["-k", "not valkey and not Valkey", *SELECTED]
        return subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode == 0


def main() -> None:
    if not survives(Mutant("nothing", "insert.lua", "", "")):
        sys.exit("the tests fail without any mutation")
    survivors = []
    for mutant in MUTANTS:
        alive = survives(mutant)
        print(f"{'SURVIVED' if alive else 'caught':9} {mutant.name}", flush=True)
        if alive:
            survivors.append(mutant.name)
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
