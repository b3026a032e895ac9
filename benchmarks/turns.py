"""What benchmarks of several ways need: a process for each, the processors that it has, how long a call takes."""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def start(target: Callable, *arguments: Any) -> tuple[Connection, BaseProcess]:
    """A fresh process that calls `target` with its end of a pipe and the arguments; the other end, and the process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    # The worker's end, so that a worker that dies is an EOFError here and no endless wait.
    theirs.close()
    return ours, process


def measured(workers: dict[str, tuple[Connection, BaseProcess]], rounds: int) -> dict[str, list[Any]]:
    """What each worker sends at a True, in so many rounds in which they take turns; a False ends them after it."""
    found: dict[str, list[Any]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, (pipe, _) in workers.items():
            pipe.send(True)
            found[name].append(pipe.recv())
    for pipe, process in workers.values():
        pipe.send(False)
        process.join()
    return found


def case(file: str, *words: str, folder: Path | None = None) -> Any:
    """What a benchmark's `--case` with these words prints last, which is JSON; it runs in a fresh process."""
    return json.loads(rerun(file, *words, folder=folder, output=subprocess.PIPE).splitlines()[-1])


def rerun(file: str, *words: str, folder: Path | None = None, output: int | None = None) -> str:
    """Run a benchmark's `--case` with these words in a fresh process, and return its output if it goes to a pipe.

    Raises:
        SystemExit: where the process fails, with what it wrote on standard error.
    """
    done = subprocess.run(
        [sys.executable, file, "--case", *words],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        why = "killed, as a rule for lack of memory" if done.returncode == -9 else f"ended with {done.returncode}"
        raise SystemExit(f"{done.stderr}--case {' '.join(words)}: {why}")
    return done.stdout or ""


def on_threads(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse a benchmark's options, its `--threads` and `--case` too; from here on it keeps to that many processors."""
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    return options


def seconds(run: Callable, *arguments: Any) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - begin
