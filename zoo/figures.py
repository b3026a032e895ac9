"""What the figures of the zoo have in common: their style, how classes are told apart, and how they are written."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke

from zoo.files import replacing
from zoo.made_by import MadeBy
from zoo.scanning.overlay import palette, pattern

_DPI = 120
# The most characters that are drawn of a class's name.
LONGEST_NAME = 60
# What each pattern of classes looks like: of areas, of marks, and of lines.
_HATCHES = ("", "////", "\\\\\\\\", "----", "||||", "xxxx")
MARKERS = ("o", "s", "D", "^", "v", "p")
LINES = ("-", "--", "-.", ":", (0, (1, 3)), (0, (6, 1, 1, 1, 1, 1)))


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib as it comes, whatever the caller has set, and every text as it is: `$` begins no formula."""
    with (
        matplotlib.style.context(["default", {"text.parse_math": False, "hatch.linewidth": 0.6}]),
        warnings.catch_warnings(),
    ):
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def subplots(
    rows: int,
    columns: int,
    size: tuple[float, float],
    shared: bool = False,
    layout: Literal["constrained"] | None = None,
) -> tuple[Figure, np.ndarray]:
    """A figure that no window and no other code knows of, and its axes (rows, columns), whose ranges may be shared."""
    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)


def rim(line_width: float) -> list[AbstractPathEffect]:
    """A black rim about a line of this width, so that its colour is seen over any image."""
    return [withStroke(linewidth=line_width + 1.6, foreground="black")]


def class_patch(index: int, classes: int, label: str = "") -> Patch:
    """What a legend shows of the area of a class: its colour and its pattern."""
    hatch = _HATCHES[pattern(index)]
    return Patch(facecolor=palette(classes)[index], edgecolor="black", lw=0.8, hatch=hatch, label=label)


def hatch_classes(axis: Axes, classes: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Draw the patterns of classes over their areas: (h, w), -1 of none, at the places `x` (w,) and `y` (h,)."""
    # The last one is that of -1.
    patterns = np.array([*map(pattern, range(classes.max() + 1)), 0], np.uint8)[classes]
    for each in np.unique(patterns[patterns > 0]):
        hatch_where(axis, patterns == each, x, y, _HATCHES[each])


def hatch_where(axis: Axes, where: np.ndarray, x: np.ndarray, y: np.ndarray, hatch: str = "////") -> None:
    """Hatch where a map (h, w) is true, at least two places a side."""
    axis.contourf(x, y, where, levels=[0.5, 1.5], colors="none", hatches=[hatch])


def luminance(colour: Any) -> float:
    """The relative luminance of a colour, 0 to 1, as in WCAG 2.2."""
    values = np.array(to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def readable_on(colour: Any) -> str:
    """Black or white, whichever has more contrast to a colour: 4.5 to 1 at least."""
    # Where 1.05 / (l + 0.05) = (l + 0.05) / 0.05.
    return "black" if luminance(colour) > 0.1791 else "white"


def write_figure(figure: Figure, path: Path, made_by: MadeBy | None = None) -> Path:
    """Write a figure as a PNG file, which names what made it."""
    with replacing(path, made_by) as temporary:
        figure.savefig(temporary, dpi=_DPI, bbox_inches="tight", format="png")
    return Path(path)
