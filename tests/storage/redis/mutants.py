"""Breaks the scripts on purpose, one by one, and shows that the tests notice each.

    python -m tests.storage.redis.mutants [--only TEXT] [--skip N] [--part I/N]

Not collected by pytest: it runs the conformance kit once for every mutant, in copies of the tree. Two
processes share the work with `--part 1/2` and `--part 2/2`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
SELECTED = [
    "tests/storage/test_redis.py",
    "tests/storage/redis/test_hints.py",
    "tests/storage/redis/test_faults.py",
    "tests/storage/redis/test_pushes.py",
    "tests/storage/redis/test_security.py",
    "tests/storage/redis/test_repeats.py",
    "tests/storage/redis/test_locale.py",
    "tests/storage/redis/test_bad_data.py",
    "tests/storage/redis/test_limits.py",
]
SHOWN = 40
"""Lines of a failure that are shown."""


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str


MUTANTS = [
    Mutant(
        "more jobs run than the queue may",
        "lib/claim_turns.lua",
        "room = admit(queue_limit, before, root().tat, most)",
        "room = most",
    ),
    Mutant(
        "more jobs of a group run than may",
        "lib/claim_turns.lua",
        "admit(group_limit, group.running, group.tat, math.min(left, want))",
        "math.min(left, want), group.tat",
    ),
    Mutant(
        "jobs without a group take a turn that no group could have had",
        "lib/claim_turns.lua",
        "if granted == 0 then -- nobody waits",
        "if false then -- nobody waits",
    ),
    Mutant(
        "more jobs of a group run than may, where they start one by one",
        "lib/claim_turns.lua",
        "local granted, later = admit(group_limit, running, tat, 1)",
        "local granted, later = 1, tat",
    ),
    Mutant(
        "what is known to be next of a line is older than a job in front of it",
        "lib/groups.lua",
        "elseif job.mark <= began then",
        "elseif false then",
    ),
    Mutant(
        "what is known to be next of a line has left it",
        "lib/groups.lua",
        "    if not line then return end\n    line.head = ''",
        "    if not line then return end",
    ),
    Mutant(
        "what is known to be next of a line has its old weight",
        "lib/groups.lua",
        "if line then line.head = '' end",
        "",
    ),
    Mutant(
        "a line is over behind what is known of it",
        "lib/claim_turns.lua",
        "if ends and not whole then",
        "if false then",
    ),
    Mutant(
        "a line whose jobs start one by one is over behind what is known of it",
        "lib/claim_turns.lua",
        "if size == 2 + first and not whole then\n            data, whole = with_head(data, prefix .. name)",
        "if size == 2 + first and not whole then\n            whole = true",
    ),
    Mutant(
        "a group loses its turn when an answer has become large",
        "lib/claim_turns.lua",
        "call('ZADD', ring, '0', quick.left[m])",
        "",
    ),
    Mutant("a rate forgets its starts", "lib/limits.lua", "+ granted * interval end", "end"),
    Mutant(
        "a slot is not given back",
        "lib/settle.lua",
        "if grouped and group_of(job.extras) then end_run(group_of(job.extras)) end",
        "",
    ),
    Mutant(
        "a slot is not given back by a completion",
        "exchange.lua",
        "if tag == 103 then end_run(sub(record, BODY + 5, BODY + 4 + 256 * high + low)) end",
        "",
    ),
    Mutant(
        "a slot is not given back by a completion that is waited for",
        "exchange.lua",
        "if tag == 103 then end_run(sub(record, BODY + waiters + 5, BODY + waiters + 4 + size)) end",
        "",
    ),
    Mutant(
        "a group that waits for a run stays parked when it ends",
        "lib/groups.lua",
        "opening = running >= count and parked == 0 and",
        "opening = running >= count and",
    ),
    Mutant(
        "a group whose last run has ended is kept",
        "lib/groups.lua",
        "if opening and (#data > GROUP or sub(opening, 1, 4) ~= '\\0\\0\\0\\0') then",
        "if opening then",
    ),
    Mutant(
        "a swept slot is not given back",
        "sweep.lua",
        "if grouped and group_of(job.extras) then end_run(group_of(job.extras)) end",
        "",
    ),
    Mutant(
        "a group starts all that it has",
        "lib/claim_turns.lua",
        "group.tat, math.min(left, want))",
        "group.tat, want)",
    ),
    Mutant(
        "a group that took its turn stays in front",
        "lib/claim_turns.lua",
        "line.place = spack('>I2I7', key, turn)",
        "",
    ),
    Mutant(
        "a group whose jobs start one by one stays in front",
        "lib/claim_turns.lua",
        "local middle, last = sizes[size], string.char(low)",
        "local middle, last, place = sizes[size], sub(members[i], 9, 9), sub(members[i], 1, 8)",
    ),
    Mutant(
        "groups that were parked stay so when limits change",
        "set_rules.lua",
        "do group_at(name).parked = false end",
        "do end",
    ),
    Mutant(
        "nobody hears that a run has ended",
        "lib/claim_turns.lua",
        "if not closed and waiting > 0 and count > 0 and queue_limit.running then announce() end",
        "",
    ),
    Mutant(
        "what is known of idle groups stays",
        "lib/groups.lua",
        "if idle and lapse <= now then\n        forgotten",
        "if false then\n        forgotten",
    ),
    Mutant(
        "completions ignore the fence",
        "exchange.lua",
        "and sub(record, FENCE, FENCE_END) == sub(fences, 7 * i - 6, 7 * i) then",
        "then",
    ),
    Mutant(
        "other settlements ignore the fence", "exchange.lua", "if job.fence == fence then", "if true then"
    ),
    Mutant(
        "renewals ignore the fence",
        "extend.lua",
        "if not record or not sound(record) or sub(record, FENCE, FENCE_END) ~= sub(head, 1, 7) then",
        "if not record or not sound(record) then",
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
    Mutant("a cancelled job stays in the list", "lib/leave.lua", "call('LSET', ready, index, '')", ""),
    Mutant(
        "blanks are never removed",
        "lib/leave.lua",
        "if blanks * 2 > call('LLEN', ready) then",
        "if false then",
    ),
    Mutant(
        "a replaced job keeps its place among the ended",
        "lib/create.lua",
        "call('ZREM', key, unpack(gone)) end\n  for expires",
        "call('ZCARD', key) end\n  for expires",
    ),
    Mutant(
        "a replaced completed job keeps its place in its pack",
        "lib/create.lua",
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
        "set_ttl.lua",
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
        "sunpack('>I7', rec, MARK) <= now",
        "sunpack('>I7', rec, MARK) < now",
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
        "redis.pcall(PUBLISH, channel .. sub",
        "call(PUBLISH, channel .. sub",
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
    Mutant("a repeated set_ttl sets again", "set_ttl.lua", "if ahead == 0 then", "if false then"),
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
        "lib/create.lua",
        "elseif created >= room then",
        "elseif created > room then",
    ),
    Mutant("what is left of an unreadable job stays", "lib/create.lua", "if lapsed then", "if false then"),
    Mutant("extras are not checked", "lib/record.lua", "return at == last", "return true"),
    Mutant(
        "a history without an end", "lib/extras.lua", "MOST_ATTEMPTS, WEEK = 20,", "MOST_ATTEMPTS, WEEK = 21,"
    ),
    Mutant("a stall is not in the history", "sweep.lua", "add_attempt(job, stalled_error)", ""),
    Mutant("there are no dead letters", "lib/ended.lua", "if state == 'F' then begin_letter(job) end", ""),
    Mutant("a revived job keeps its seq", "revive.lua", "set_seq(job, tick)", ""),
    Mutant("a forgotten job stays", "forget.lua", "call('HDEL', jobs, id)\n", ""),
    Mutant("letters are kept for an hour", "lib/extras.lua", "604800000", "3600000"),
    Mutant(
        "a replaced job stays where it was, too",
        "lib/create.lua",
        "if renew and #moved > 0 then move() end",
        "",
    ),
    Mutant("a running job is replaced", "lib/renew.lua", " or call('HGET', running, id)", ""),
    Mutant("a replaced job loses its history", "lib/renew.lua", " .. history_of(job.extras)", ""),
    Mutant("a late job is claimed", "exchange.lua", "if not paused and are_late() then", "if false then"),
    Mutant("debouncing brings a job forward", "lib/renew.lua", "if debounce then", "if false then"),
    Mutant(
        "rules are replaced whatever they are",
        "set_rules.lua",
        "expected == '' or sub(expected, 2) == present",
        "true",
    ),
    Mutant(
        "a repeated exchange says no more what keeps jobs back",
        "exchange.lua",
        "sub(noted, 35 + count), ''",
        "'', ''",
    ),
    Mutant(
        "a job that has started stays among those that may come late",
        "exchange.lua",
        "call('ZREM', expiring, unpack(started))",
        "",
    ),
    Mutant(
        "a job that nobody can run takes a slot",
        "lib/claim_turns.lua",
        "group.running = group.running - 1",
        "",
    ),
    Mutant(
        "a job that nobody can run takes a slot where several may start in a turn",
        "lib/claim_turns.lua",
        "if not lost[i] then",
        "if true then",
    ),
    Mutant(
        "jobs without a group are claimed before their turn",
        "lib/claim_turns.lua",
        "elseif plain == first and turn < sunpack('>I7', members[1], 3) then",
        "elseif plain == first then",
    ),
    Mutant("documents are not compared", "documents_write.lua", "expected ~= version", "false"),
    Mutant(
        "a lost settlement inserts what follows",
        "exchange.lua",
        "status[i] == 'A' and following",
        "following",
    ),
]


def failure(mutant: Mutant) -> str:
    """Run the tests on a mutated copy. Returns the end of what they say if they fail, else nothing."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for name in ("docs", "jobqueue", "lua", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        script = copy / "lua" / mutant.file
        text = script.read_text()
        if mutant.old not in text:
            raise SystemExit(f"{mutant.name}: {mutant.file} has changed, adapt the mutant")
        script.write_text(text.replace(mutant.old, mutant.new) if mutant.old else text)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "--timeout",
            "30",
        ]
        for model in ("not Model", "Model"):  # last: what it finds it makes smaller, which may take minutes
            these = [*command, "-k", f"not valkey and not Valkey and {model}", *SELECTED]
            tests = subprocess.run(these, cwd=copy, capture_output=True, check=False, text=True)
            if tests.returncode:
                return "\n".join(tests.stdout.splitlines()[-SHOWN:])
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.storage.redis.mutants")
    parser.add_argument("--only", default="", help="the mutants with this text in their name")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many")
    parser.add_argument("--part", default="1/1", help="I/N: of these each N-th, from the I-th on")
    chosen = parser.parse_args()
    part, parts = (int(number) for number in chosen.part.split("/"))
    if told := failure(Mutant("nothing", "insert.lua", "", "")):
        sys.exit(f"{told}\nthe tests fail without any mutation")
    survivors = []
    for mutant in MUTANTS[chosen.skip + part - 1 :: parts]:
        if chosen.only not in mutant.name:
            continue
        told = failure(mutant)
        last = told.splitlines()[-1] if told else ""
        print(f"{'caught' if told else 'SURVIVED':9} {mutant.name}  {last}", flush=True)
        if not told:
            survivors.append(mutant.name)
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
