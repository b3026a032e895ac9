"""Faults of a data set: what its user may not mean, counted and named; the images are used as they are."""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zoo.errors import InputError, listing

_SHOWN = 3
_LONGEST = 100
_SINGULAR = {"are": "is", "have": "has"}

Kind = Literal["left out", "unreadable", "size", "class", "copy", "label", "leak", "specimen", "note"]


@dataclass(frozen=True)
class Fault:
    """One kind of fault: a sentence, the `count` of what it is about, and three of their names."""

    kind: Kind
    text: str
    count: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        """One line: what, how many, and the names."""
        more = ", ..." if self.count > len(self.names) else ""
        return f"{self.text}: {', '.join(map(plain, self.names))}{more}"

    def to_dict(self) -> dict[str, Any]:
        """The fault as JSON holds it."""
        return {**asdict(self), "names": list(self.names)}


def fault(kind: Kind, noun: str, verb: str, names: Collection[str], total: int | None = None) -> list[Fault]:
    """A fault of as many things as there are names; none, where there are none.

    Args:
        kind: what kind.
        noun: what they are, in the plural.
        verb: what is wrong with them; it begins with "are" or "have".
        names: all of them; those shown are the first by length and letters, so image[9] before image[10].
        total: of how many they are.
    """
    if not len(names):
        return []
    count = f"{len(names):,}" if total is None else f"{len(names):,} of {total:,}"
    if len(names) == 1:
        noun = noun if total is not None else noun.removesuffix("s")
        first, rest = verb.split(" ", 1)
        verb = f"{_SINGULAR[first]} {rest}"
    shown = heapq.nsmallest(_SHOWN, names, key=lambda name: (len(name), name))
    return [Fault(kind, f"{count} {noun} {verb}", len(names), tuple(shown))]


def plain(name: str) -> str:
    """A name on one line that any terminal shows, shortened in its middle."""
    name = str(name)
    name = name if name.isprintable() else ascii(name)[1:-1]
    half = _LONGEST // 2 - 2
    return name if len(name) <= _LONGEST else f"{name[:half]}...{name[-half:]}"


def unreadable_refusal(problem: str, others: Sequence[str]) -> InputError:
    """The refusal of images that cannot be read: why the first cannot, and the names of the others."""
    more = f"; and {listing([plain(name) for name in others])}: {len(others) + 1} images in all" if others else ""
    return InputError(f"{problem}{more}; data.unreadable=skip leaves out what cannot be read")


def unreadable_fault(names: Collection[str]) -> list[Fault]:
    """The fault of images that are left out because they cannot be read."""
    return fault("unreadable", "images", "are left out, being unreadable", names)


def noted(notes: Mapping[str, Collection[str]]) -> list[Fault]:
    """What the reader noted of images, by their names: a fault with their number for each."""
    faults = []
    for text, names in sorted(notes.items()):
        images = "image" if len(names) == 1 else "images"
        faults.append(Fault("note", f"{len(names):,} {images}: {text}", len(names), tuple(sorted(names)[:3])))
    return faults


def noted_since(*images: Any) -> list[Fault]:
    """What the reader has noted of images that are decoded when asked for, as far as they were read."""
    together: dict[str, set[str]] = {}
    for each in images:
        for text, names in getattr(each, "notes", {}).items():
            together.setdefault(text, set()).update(names)
    return noted(together)
