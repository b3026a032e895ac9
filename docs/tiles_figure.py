"""The figure of docs/tiles.md: one axis of an image and a tile of it.

    python docs/tiles_figure.py

The numbers are those of the page's example, two convolutions of 3 at stride 2, each with one row of padding at both
ends; a test holds them against what `zoo.scanning.tiles` cuts.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  # after its backend is chosen
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import Patch, Rectangle  # noqa: E402

SIDE, PIXELS, CELLS = 32, (8, 20), (3, 5)
# Each map by name: where the field of its first cell begins, its stride in pixels, the extent of a field, its cells.
MAPS = {"image": (0, 1, 1, 32), "map": (-1, 2, 3, 16), "grid": (-3, 4, 7, 8)}
WANTED, SEEN, READ, OTHER, PADDING = "tab:orange", "moccasin", "lightsteelblue", "white", "0.75"


def field_of(name: str, first: int, last: int) -> tuple[int, int]:
    """The pixels that the cells `first` to `last` of a map look at."""
    start, stride, extent, _ = MAPS[name]
    return start + first * stride, start + (last - 1) * stride + extent


def colour_of(name: str, index: int) -> str:
    """The colour of a map's cell."""
    begin, end = field_of("grid", *CELLS)
    first, last = field_of(name, index, index + 1)
    if name == "grid":
        return WANTED if CELLS[0] <= index < CELLS[1] else OTHER
    if begin <= first and last <= end:
        return SEEN
    return READ if name == "image" and PIXELS[0] <= index < PIXELS[1] else OTHER


def draw(axis: Axes, first: int, last: int, title: str) -> None:
    """The three maps of the pixels from `first` to `last`, each with the padding that the next layer adds to it."""
    begin, end = field_of("grid", *CELLS)
    for height, (name, (_, stride, _, count)) in enumerate(MAPS.items()):
        inside = range(first // stride, min(last // stride, count))
        padding = [] if name == "grid" else [inside.start - 1, inside.stop]
        for index in (*inside, *padding):
            middle = sum(field_of(name, index, index + 1)) / 2
            if index in padding:
                style = {"fc": PADDING, "hatch": "////", "ls": ":"}
            else:
                style = {"fc": colour_of(name, index)}
            axis.add_patch(Rectangle((middle - stride / 2, height), stride, 0.6, ec="black", lw=0.7, **style))
    for x in (begin, end):
        axis.plot([x, x], [-0.25, 2.6], color=WANTED, lw=1, ls="--")
    axis.set(xlim=(-3, SIDE + 3), ylim=(-0.4, 2.8), yticks=[0.3, 1.3, 2.3], yticklabels=list(MAPS))
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xticks(range(0, SIDE + 1, 4))
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    """Draw the whole axis and the tile below it."""
    figure, (whole, tile) = plt.subplots(2, 1, figsize=(9, 4.8), sharex=True, layout="constrained")
    draw(whole, 0, SIDE, "the whole image: 32 pixels, 8 cells; cells 3 and 4 are wanted")
    draw(tile, *PIXELS, "the tile: pixels 8 to 20, 3 cells; the first one sees new padding, and is thrown away")
    tile.set_xlabel("pixel", fontsize=8)
    named = {"wanted cells": WANTED, "what they look at": SEEN, "read as well": READ, "not looked at": OTHER}
    handles = [Patch(fc=colour, ec="black", label=name) for name, colour in named.items()]
    handles.append(Patch(fc=PADDING, ec="black", hatch="////", ls=":", label="padding"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(Path(__file__).with_name("images") / "tiles.png", dpi=120)


if __name__ == "__main__":
    main()
