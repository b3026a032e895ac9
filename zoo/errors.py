"""The errors, of which one means: what the user gave cannot be used; and how text that a user gave is shown."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import NoReturn, TypeVar

Value = TypeVar("Value")

# The most characters of an error's line.
LONGEST = 500
# What to do about a training whose numbers ran away.
ADVICE = "try a lower train.optimizer.learning_rate, longer train.warmup, or train.clip_norm"
# What Keras and TensorFlow write before what failed: in which layer it was called, colours, and names of their own.
_PREAMBLE = re.compile(r"\x1b\[\d*m|\{\{[^{}]*\}\} *|^Exception encountered when calling .*$", re.MULTILINE)
# Names beyond this length are not compared with the accepted ones: that takes their lengths' product.
_LONGEST_NAME = 100


class InputError(ValueError):
    """A user's input is wrong; the message is one line: what, where, what was received, what is accepted.

    Characters that are not printable are shown escaped, and a line of more than 500 characters is cut in the middle.
    Commands print it without a traceback and exit with code 2.
    """

    def __init__(self, text: str):
        """Take the message."""
        super().__init__(shortened(printable(text)))


def refuse(what: str, received: object, accepted: str) -> NoReturn:
    """Raise the error for a value that cannot be used: "what: received ...; accepted: ...".

    Args:
        what: the key, option, file or layer that the value is of.
        received: the value, shown as Python writes it; a str is taken as words, so give a user's own text as
            `quoted(text)`.
        accepted: what could be used in its place.

    Raises:
        InputError: always, without the error that was being handled.
    """
    raise InputError(
        f"{what}: received {received if isinstance(received, str) else quoted(received)}; accepted: {accepted}"
    ) from None


def os_text(error: OSError) -> str:
    """What the operating system refused, and of which file: "file 'x': No such file or directory"."""
    if not error.strerror:
        return str(error)
    return error.strerror if error.filename is None else f"file {str(error.filename)!r}: {error.strerror}"


def cause(error: BaseException) -> str:
    """What a library says of a failure, in one line: the first one that says what failed, or the exception's name."""
    return next(filter(None, map(str.strip, _PREAMBLE.sub("", str(error)).splitlines())), type(error).__name__)


class Diverged(InputError):
    """A training's numbers ran away, so that its model's scores are none, or rounding alone."""


class Differs(RuntimeError):
    """What was made gives other answers than what it was made of; commands print the message and exit with code 1."""


class Interrupted(Exception):
    """The user stopped the work; the message says where it stands and how it goes on."""


def printable(text: str) -> str:
    r"""`text` with its control characters, and whatever else has no picture, as escapes such as `\x1b` or `\n`."""
    # What follows an escape sequence in a terminal, or is half of a character, has no place in a line.
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` itself, or its beginning and its end about three dots where it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    end = (longest - 5) * 2 // 5
    return f"{text[: longest - 5 - end]} ... {text[-end:]}"


class _Short(reprlib.Repr):
    """Values as text of bounded length, whatever they are."""

    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 8

    def repr_int(self, value: int, level: int) -> str:
        """A whole number; Python refuses to write those of thousands of digits."""
        return f"a number of {value.bit_length()} bits" if value.bit_length() > 256 else repr(value)


def quoted(value: object) -> str:
    """`repr(value)`, at most about 100 characters of it where it is text, 8 items where it is a list."""
    return shortened(_Short().repr(value), 200)


def listing(names: Sequence[str], shown: int = 10) -> str:
    """Names on one line, of which the first few are `shown`."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def unknown(what: str, received: object, accepted: Iterable[object]) -> str:
    """Say that `received` is no known `what`, with the nearest accepted name first if one is near."""
    names, name = [str(name) for name in accepted], received if isinstance(received, str) else quoted(received)
    near = difflib.get_close_matches(name, names, n=1) if len(name) <= _LONGEST_NAME else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {quoted(name)}{hint}; accepted: {', '.join(names)}"


def chosen(what: str, received: object, accepted: Sequence[Value]) -> Value:
    """The one of the `accepted` names that was `received`.

    Raises:
        InputError: where it is none of them, as `unknown` says it.
    """
    for each in accepted:
        if each == received:
            return each
    raise InputError(unknown(what, received, accepted))
