"""The rule for the names of classes, wherever they come from."""

import unicodedata
from collections.abc import Iterable, Sequence

from zoo.errors import InputError, chosen, listing, quoted, refuse

LONGEST = 255
# Control characters, halves of characters (undecodable bytes of a file name), and breaks of lines and paragraphs.
_NO_LETTERS = ("Cc", "Cs", "Zl", "Zp")


def normal(name: str) -> str:
    """A name with composed letters, so that it is equal to itself wherever it was written (Unicode's NFC)."""
    return unicodedata.normalize("NFC", name)


def chosen_class(name: str | None, names: Sequence[str]) -> str | None:
    """The one of the `names` that a user asked for; None where none was asked for.

    Raises:
        InputError: for another name.
    """
    return None if name is None else chosen("class", normal(name), names)


def difference(known: Sequence[str], other: Sequence[str], whose: str, others: str) -> str:
    """How two lists of class names differ, in words; "" where they are equal.

    Args:
        known: one list.
        other: the other.
        whose: what has the first list, such as "the model".
        others: what has the other.
    """
    known, other = [*map(normal, known)], [*map(normal, other)]
    parts = []
    for ours, theirs, has in ((known, other, whose), (other, known, others)):
        if only := [name for name in ours if name not in theirs]:
            parts.append(f"only {has} has {listing([*map(quoted, only)], 3)}")
    if not parts:
        for index, (name, beside) in enumerate(zip(known, other, strict=False)):
            if name != beside:
                return f"another order: class {index} is {quoted(name)} in {whose} and {quoted(beside)} in {others}"
    return "; ".join(parts)


def class_list(names: Iterable[str], source: str, count: int | None = None) -> tuple[str, ...]:
    """Class names as all of the product has them: composed, each once, one line of visible text each.

    Args:
        names: as they were given.
        source: where they come from; errors begin with it.
        count: how many there have to be, if that is known.

    Raises:
        InputError: naming the first name that is empty, too long, not printable, or there twice; or for another count.
    """
    composed = tuple(map(normal, names))
    if count is not None and len(composed) != count:
        refuse(source, f"{len(composed)} class names", f"{count}, one an output")
    seen: set[str] = set()
    for index, name in enumerate(composed):
        if not any(unicodedata.category(letter)[0] not in "ZC" for letter in name):
            raise InputError(f"{source}: class {index} has an empty name; accepted: a name for each class")
        if len(name) > LONGEST:
            raise InputError(f"{source}: class name {quoted(name)} is longer than {LONGEST} characters")
        if any(unicodedata.category(letter) in _NO_LETTERS for letter in name):
            raise InputError(f"{source}: class name {quoted(name)} has control characters; accepted: visible text")
        if name in seen:
            raise InputError(f"{source}: class name {quoted(name)} is there twice; accepted: each name once")
        seen.add(name)
    return composed
