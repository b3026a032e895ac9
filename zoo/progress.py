"""What is shown: results as lines of the standard output, progress on the standard error, and no noise of libraries.

Progress is a bar that vanishes, on a terminal. Elsewhere nothing is shown but a line each few seconds of a command's
work (`never_silent`), so that a log is short, and nobody waits without a word.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, TextIO, TypeVar

from zoo.errors import printable

T = TypeVar("T")

# Whether `results_alone` is at work.
_RESULTS_ALONE = False
# Seconds between two lines of `never_silent`, and whether it is at work.
PERIOD = 8.0
_TOLD = False


def say(text: object) -> None:
    """Print results as lines on the standard output, or nowhere where `results_alone` has them in another form.

    What has no picture, or no place in the encoding, is escaped.
    """
    if not _RESULTS_ALONE:
        note(text)


def note(text: object) -> None:
    """Print what is to be known of results, as `say` does; where `results_alone`, on the standard error stream."""
    shown = "\n".join(map(printable, str(text).split("\n")))
    encoding = sys.stdout.encoding or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as lines, their columns below each other: numbers end, and the first column and words begin, alike.

    No text is cut or wrapped, however narrow the terminal is, so that what is printed can be searched.
    """
    columns = []
    for index, column in enumerate(zip(*rows, strict=True)):
        numbers = index > 0 and any(text[:1].isdigit() or text[:1] in ("+", "-") for text in column if text)
        width = max(map(len, column))
        columns.append([text.rjust(width) if numbers else text.ljust(width) for text in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


class _Work:
    """Work that is being done, as a line tells it: `where` says how far it has come, in words; it may be empty."""

    def __init__(self, what: str, where: Callable[[], str]):
        self.what, self.where, self.is_drawn = what, where, False

    def line(self) -> str:
        """What is done, and how far it has come."""
        return ", ".join(each for each in (self.what, self.where()) if each)


# What is being done, the innermost last.
_AT_WORK: list[_Work] = []


@contextlib.contextmanager
def at_work(what: str, where: Callable[[], str] = str, draws: bool = False) -> Iterator[_Work]:
    """Have `never_silent` tell that `what` is done meanwhile, and by `where` how far it has come.

    `draws`: the work draws on a terminal itself.
    """
    work = _Work(what, where)
    work.is_drawn = draws and _terminal() is not None
    _AT_WORK.append(work)
    try:
        yield work
    finally:
        _AT_WORK.remove(work)


def _terminal() -> Any:
    """The console to draw on: that of a terminal, where nothing is drawn yet; else None."""
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_terminal and not any(each.is_drawn for each in _AT_WORK) else None


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Hand on `items`, and show how many are done: under a bar on a terminal, see `never_silent` elsewhere."""
    from rich.progress import track

    if total is None and isinstance(items, Sized):
        total = len(items)
    done = 0
    with at_work(what, lambda: f"{done:,}" if total is None else f"{done:,} of {total:,}") as work:
        if console := _terminal():
            items, work.is_drawn = track(items, what, total, console=console, transient=True), True
        for item in items:
            yield item
            done += 1


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show `what` is done meanwhile: beside a turning sign on a terminal, see `never_silent` elsewhere."""
    with contextlib.ExitStack() as shown:
        work = shown.enter_context(at_work(what))
        if console := _terminal():
            shown.enter_context(console.status(what))
            work.is_drawn = True
        yield


@contextlib.contextmanager
def never_silent(name: str) -> Iterator[None]:
    """Print a line to the standard error stream every `PERIOD` seconds of the work inside, where nothing is drawn.

    It says what is done, how far it has come, and how long the work takes so far: "zoo scan: scanning, 12 of 40, 16 s".
    It comes from a thread of its own, and so also while code of other libraries runs that reports nothing.
    """
    global _TOLD
    period, begin, ended = PERIOD, time.monotonic(), threading.Event()
    with _shown() as stream:

        def tell() -> None:
            while not ended.wait(period):
                if any(each.is_drawn for each in _AT_WORK):
                    continue
                doing = _AT_WORK[-1:]
                what = printable(doing[0].line()) if doing else "at work"
                with contextlib.suppress(OSError, ValueError):  # a stream that is closed
                    print(f"{name}: {what}, {time.monotonic() - begin:.0f} s", file=stream, flush=True)

        teller = threading.Thread(target=tell, name="progress", daemon=True)
        teller.start()
        _TOLD = True
        try:
            yield
        finally:
            _TOLD = False
            ended.set()
            teller.join()


def is_told() -> bool:
    """Whether lines tell of the work meanwhile; see `never_silent`."""
    return _TOLD


@contextlib.contextmanager
def _shown() -> Iterator[TextIO]:
    """The standard error stream, which `silent_stderr` does not silence."""
    number = None
    with contextlib.suppress(OSError, ValueError):  # a stream that is no file
        number = sys.stderr.fileno()
    if number is None:
        yield sys.stderr
        return
    stream = open(os.dup(number), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    with contextlib.closing(stream):
        yield stream


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Keep the standard output for results in another form than `say` prints.

    What else is printed meanwhile, from C++ too, goes to the standard error stream.
    """
    global _RESULTS_ALONE
    sys.stdout.flush()
    with _descriptor_led(1, 2), contextlib.redirect_stdout(sys.stderr):
        _RESULTS_ALONE = True
        try:
            yield
        finally:
            _RESULTS_ALONE = False


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Hide what libraries write to the standard error stream, from C++ too."""
    sys.stderr.flush()
    with open(os.devnull, "wb") as nowhere, _descriptor_led(2, nowhere.fileno()):
        yield


@contextlib.contextmanager
def _descriptor_led(descriptor: int, to: int) -> Iterator[None]:
    """Have what is written to one file descriptor go to another, from C++ too."""
    kept = os.dup(descriptor)
    os.dup2(to, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
