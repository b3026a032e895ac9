"""The one error that means: what the user gave cannot be used."""

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """A user's input is wrong; the message is one line: what, where, what was received, what is accepted.

    Commands print it without a traceback and exit with code 2.
    """


class Interrupted(Exception):
    """The user stopped the work; the message says where it stands and how it goes on."""


def listing(names: Sequence[str], shown: int = 10) -> str:
    """Names on one line, of which the first few are `shown`."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def unknown(what: str, received: object, accepted: Iterable[object]) -> str:
    """Say that `received` is no known `what`, with the nearest accepted name first if one is near."""
    names = [str(name) for name in accepted]
    near = difflib.get_close_matches(str(received), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {str(received)!r}{hint}; accepted: {', '.join(names)}"
