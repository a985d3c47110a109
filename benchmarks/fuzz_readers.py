"""Damaged files of every kind through every reader of OcTrim.

    python -m benchmarks.fuzz_readers --results fuzz.json                   # 100,000 and more, an hour; goes on where it was stopped
    python -m benchmarks.fuzz_readers --results fuzz.json --again pictures  # that reader from its first input
    python -m benchmarks.fuzz_readers --show pictures 17                    # one input, with the whole traceback

An input follows from the reader and its number. Each may be read, or refused with an `InputError` of one line; everything else is a violation:
another exception, a broken invariant, text on standard output or error, --seconds of processor time, --memory MiB more than before, a crash.
The inputs of a reader run in a process of their own, which is started anew where one has ended it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

READ, REFUSED = "read", "refused"


class SlowError(BaseException):
    """Not an Exception: readers catch those of the libraries that they call."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="JSON file of counts, read and written")
    parser.add_argument("--readers", nargs="*", help="names (default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs that each reader gets")
    parser.add_argument("--again", nargs="*", default=(), help="readers whose results are forgotten first")
    parser.add_argument("--show", nargs=2, metavar=("READER", "NUMBER"))
    parser.add_argument("--seconds", type=float, default=10, help="processor time for one input")
    parser.add_argument("--memory", type=int, default=2048, help="MiB for one input")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        reader, start, stop = options.worker
        work(reader, int(start), int(stop), options.seconds, options.memory)
        return 0
    if options.show:
        with tempfile.TemporaryDirectory(prefix="octrim-fuzz-") as folder:
            show(options.show[0], int(options.show[1]), Path(folder))
        return 0
    from octrim.atomic import write_text
    from tests.fuzz.readers import READERS

    found: dict[str, Any] = json.loads(options.results.read_text()) if options.results and options.results.exists() else {}
    for name in options.again:
        found.pop(name, None)
    for name, (_, count) in READERS.items():
        if not options.readers or name in options.readers:
            wanted = max(int(count * options.share), 1)
            for state in campaign(name, found.get(name), wanted, options.seconds, options.memory):
                found[name] = state
                if options.results:
                    write_text(options.results, json.dumps(found, indent=1))
    print(table(found))
    return 1 if any(state["violations"] for state in found.values()) else 0


def campaign(name: str, state: dict[str, Any] | None, wanted: int, seconds: float, memory: int) -> Iterator[dict[str, Any]]:
    """Run a reader up to input number `wanted`. Yields its state from time to time: counts, the slowest, memory, violations."""
    state = state or {"inputs": 0, "read": 0, "refused": 0, "slowest": 0.0, "memory": 0, "violations": []}
    stuck = -1
    while state["inputs"] < wanted:
        hangs = False
        command = [sys.executable, "-m", "benchmarks.fuzz_readers", "--worker", name, str(state["inputs"]), str(wanted)]
        command += ["--seconds", str(seconds), "--memory", str(memory)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            rest, saved = b"", time.monotonic()
            while True:
                if not selector.select(20 * seconds + 60):  # hangs in C code, or waits for something
                    process.kill()
                    hangs = True
                data = os.read(process.stdout.fileno(), 1 << 16)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    count(state, json.loads(line))
                if not data:
                    break
                if time.monotonic() - saved > 5:
                    yield state
                    saved = time.monotonic()
        code = process.wait()
        if hangs and stuck != state["inputs"]:
            stuck = state["inputs"]  # once more: it may be the machine that stood still
        elif code:  # by the input after the last one that was told
            what = "hangs" if hangs else f"the process was ended by signal {-code}" if code < 0 else f"the process ended with {code}"
            state["violations"].append({"input": state["inputs"], "what": what})
            state["inputs"] += 1
        yield state


def count(state: dict[str, Any], line: dict[str, Any]) -> None:
    state["inputs"] += 1
    state["slowest"] = max(state["slowest"], line["seconds"])
    state["memory"] = max(state["memory"], line["memory"])
    if line["outcome"] in (READ, REFUSED):
        state[line["outcome"]] += 1
    else:
        state["violations"].append({"input": state["inputs"] - 1, "what": line["outcome"]})


def dice_of(name: str, number: int) -> random.Random:
    return random.Random(f"{name} {number}")


def work(name: str, start: int, stop: int, seconds: float, memory: int) -> None:
    """The worker: reads inputs and says a line about each on what was its standard output."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    with tempfile.TemporaryDirectory(prefix="octrim-fuzz-") as folder, tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 1)
        from octrim.errors import InputError
        from tests.fuzz.readers import READERS

        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        reader = READERS[name][0](Path(folder))
        reader.read(None)  # the whole file must be read; loads what is loaded late
        os.dup2(noise.fileno(), 2)
        limit(memory)
        signal.signal(signal.SIGVTALRM, _slow)
        for number in range(start, stop):
            began, before = time.process_time(), os.fstat(noise.fileno()).st_size
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            try:
                reader.read(dice_of(name, number))
                outcome = READ
            except InputError as error:
                fine = str(error).isprintable() and 0 < len(str(error)) <= 600
                outcome = REFUSED if fine else f"an error line that is none: {str(error)[:300]!r}"
            except SlowError:
                outcome = f"more than {seconds:g} s: {_place()}"
            except MemoryError:
                outcome = f"more than {memory} MiB: {_place()}"
            except Exception:
                outcome = _place()
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            sys.stdout.flush()
            sys.stderr.flush()
            if os.fstat(noise.fileno()).st_size > before and outcome in (READ, REFUSED):
                noise.seek(before)
                outcome = f"prints {noise.read(300)!r}"
                noise.seek(0, os.SEEK_END)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            told.write(json.dumps({"outcome": outcome, "seconds": round(time.process_time() - began, 3), "memory": peak}) + "\n")


def _slow(*_: object) -> None:
    raise SlowError


def limit(memory: int) -> None:
    """Let this process take so many MiB more than it has."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _place() -> str:
    """The exception at hand, and where in OcTrim it came up."""
    kind, error, trace = sys.exc_info()
    own = [frame for frame in traceback.extract_tb(trace) if "octrim" in frame.filename or "fuzz" in frame.filename]
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    return f"{kind.__name__ if kind else ''} at {where}: {str(error)[:300]}"


def show(name: str, number: int, folder: Path) -> None:
    from tests.fuzz.readers import READERS

    os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
    reader = READERS[name][0](folder)
    try:
        reader.read(dice_of(name, number))
        print(READ)
    except Exception:
        traceback.print_exc()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size < 5000:
            print(f"{path}: {path.read_bytes()!r}")


def table(found: dict[str, Any]) -> str:
    lines = ["| reader | inputs | read | refused in one line | violations | slowest, s | most memory, MiB |", "|---|---|---|---|---|---|---|"]
    total = [0, 0, 0, 0]
    for name, state in found.items():
        numbers = [state["inputs"], state["read"], state["refused"], len(state["violations"])]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        lines.append(f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + f" | {state['slowest']:.1f} | {state['memory']:,} |")
    lines.append("| all | " + " | ".join(f"{number:,}" for number in total) + " | | |")
    lines += [f"{name} {entry['input']}: {entry['what']}" for name, state in found.items() for entry in state["violations"][:20]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
