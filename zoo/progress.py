"""What is shown: lines, a progress bar where the standard error stream is a terminal, and no noise of libraries."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from zoo.errors import printable

T = TypeVar("T")


def say(text: object) -> None:
    """Print lines on the standard output, with escapes for what has no picture or no place in its encoding."""
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


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Hand on `items` under a bar on the standard error stream that vanishes at the end."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, total, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Hide what libraries write to the standard error stream, from C++ too."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
