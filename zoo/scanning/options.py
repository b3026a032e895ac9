"""The options of a scan, listed once and checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from zoo.engines.engine import EngineName, Precision, RuntimeName
from zoo.errors import quoted, refuse
from zoo.pictures import Choice
from zoo.scanning.byte_counts import parse_memory
from zoo.scanning.merging import Merge, check_merge
from zoo.scores import Outputs

# What becomes of the pixels at an image's border that no window covers, or few do.
BorderRule = Literal["none", "reflect", "shift", "full"]
BORDER_RULES: tuple[BorderRule, ...] = get_args(BorderRule)


@dataclass(frozen=True)
class Options:
    """What is asked of a scan, of all images alike; `zoo.scan` says what each option means.

    `scales` are floats, however they were given. `pixel_size`: that of the images in micrometres, where it is stated.
    `merge`: None is "average-probabilities". `border`: None is "none", and "full" for a counter, see `for_outputs`.
    `engine`: None is "keras", and of an exported file its own runtime.
    """

    tile: int | None = None
    memory: int | str | None = None
    stride: int | tuple[int, int] | None = None
    scales: Sequence[float] | None = None
    merge: Merge | None = None
    border: BorderRule | None = None
    engine: EngineName | RuntimeName | None = None
    precision: Precision | None = None
    choice: Choice = Choice()
    output_name: str | None = None
    pixel_size: float | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model and an image.

        Raises:
            InputError: naming the first option that is wrong.
        """
        if self.merge is not None:
            check_merge(self.merge)
            if self.scales is None:
                refuse("merge", f"{quoted(self.merge)} without scales", "none, or scales, such as [0.7, 1, 1.4]")
        if self.border is not None:
            check_border(self.border)
        if self.tile is not None and self.memory is not None:
            refuse("tile and memory", f"{quoted(self.tile)} and {quoted(self.memory)}", "one of them")
        if self.memory is not None:
            parse_memory(self.memory)
        if self.scales is not None:
            object.__setattr__(self, "scales", check_scales(self.scales))
        if self.pixel_size is not None:
            object.__setattr__(self, "pixel_size", check_pixel_size(self.pixel_size))

    def for_outputs(self, outputs: Outputs) -> "Options":
        """These options for a model that gives `outputs`, with the border that is meant where none is asked for.

        Raises:
            InputError: for scales of a counter: at each scale its windows hold other numbers of objects.
        """
        counts = outputs == "counts"
        if counts and self.scales is not None:
            refuse(
                "scales",
                quoted(self.scales),
                "none for a model that counts: a window holds other numbers at each scale",
            )
        return replace(self, border=self.border or ("full" if counts else "none"))

    @property
    def border_rule(self) -> BorderRule:
        """`border`, "none" where none is asked for."""
        return self.border or "none"

    @property
    def merging(self) -> Merge:
        """`merge`, "average-probabilities" where none is asked for."""
        return self.merge or "average-probabilities"

    @property
    def budget(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else parse_memory(self.memory)

    def to_dict(self) -> dict[str, Any]:
        """What a scan's scores depend on, and how it is cut, as JSON holds it."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("choice", "output_name", "pixel_size"):  # as earlier versions wrote it, where these are not given
            del values[name]
        values["engine"] = self.engine or "keras"
        values["memory"] = self.budget
        values["border"] = self.border_rule
        if self.stride is not None:
            values["stride"] = np.broadcast_to(self.stride, 2).tolist()
        if self.scales is not None:
            values |= {"scales": list(self.scales), "merge": self.merging}
        later = {"output_name": self.output_name, "pixel_size": self.pixel_size}
        return {**values, **self.choice.given, **{name: value for name, value in later.items() if value is not None}}

    def that_place_cells(self) -> dict[str, Any]:
        """Those that were asked for and say where cells lie and how they are answered, not how a scan is cut."""
        values = self.to_dict()
        names = ["stride", "scales", "merge", *self.choice.given, "output_name", "pixel_size"]
        given = {name: values[name] for name in names if values.get(name) is not None}
        return given if self.border_rule == "none" else {**given, "border": self.border}


def check_border(border: str) -> None:
    """Check that a rule for the border is known.

    Raises:
        InputError: where it is not.
    """
    if border not in BORDER_RULES:
        refuse("border", quoted(border), ", ".join(BORDER_RULES))


def check_pixel_size(size: Any) -> float:
    """A pixel's size in micrometres as a float.

    Raises:
        InputError: where it is no finite number above 0.
    """
    number = float(size) if isinstance(size, int | float | np.number) and not isinstance(size, bool) else 0.0
    if not (np.isfinite(number) and number > 0):
        refuse("pixel_size", quoted(size), "micrometres above 0, such as 0.5")
    return number


def check_scales(scales: Any) -> tuple[float, ...]:
    """Scales as floats.

    Raises:
        InputError: where they are none, not all of them finite numbers above 0, or the same in six digits.
    """
    try:
        numbers = tuple(float(scale) for scale in scales)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(np.isfinite(scale) and scale > 0 for scale in numbers):
        refuse("scales", quoted(scales), "numbers above 0, such as [0.7, 1, 1.4]")
    # Parts of a scan are named by six digits.
    if len({f"{scale:g}" for scale in numbers}) < len(numbers):
        refuse("scales", f"{quoted(scales)}, the same one twice", "each once")
    return numbers
