"""What benchmarks need that let several ways work by turns: a process for each, and how long a call takes."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
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


def seconds(run: Callable, *arguments: Any) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - begin
