"""The figure of docs/equations.md: one matrix at every pixel, and one matrix for a whole map, which slides.

python docs/equations_figure.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  # after its backend is chosen
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import FancyArrowPatch, Polygon  # noqa: E402

ONE, OTHER, PLAIN = "tab:orange", "tab:blue", "white"
# How far one step into the depth of a map goes on paper, to the right and up.
DEPTH = (0.38, 0.24)
# The height of a large matrix.
TALLEST = 4.2


def block(axis: Axes, at: tuple[float, float], rows: int, columns: int, channels: int, marked: dict) -> None:
    """A map as cubes of rows x columns x channels, with its front's lower left corner at `at`.

    `marked`: the colour of positions (row, column), counted from the top left.
    """
    x, y = at
    back = channels * DEPTH[0], channels * DEPTH[1]

    def face(corners: list[tuple[float, float]], colour: str) -> None:
        axis.add_patch(Polygon(corners, fc=colour, ec="0.25", lw=0.7))

    for row in range(rows):
        for column in range(columns):
            left, low = x + column, y + rows - 1 - row
            colour = marked.get((row, column), PLAIN)
            face([(left, low), (left + 1, low), (left + 1, low + 1), (left, low + 1)], colour)
    for column in range(columns):
        for channel in range(channels):
            left, low = x + column + channel * DEPTH[0], y + rows + channel * DEPTH[1]
            corners = [(0, 0), (1, 0), (1 + DEPTH[0], DEPTH[1]), DEPTH]
            face([(left + a, low + b) for a, b in corners], marked.get((0, column), PLAIN))
    for row in range(rows):
        for channel in range(channels):
            left, low = x + columns + channel * DEPTH[0], y + rows - 1 - row + channel * DEPTH[1]
            corners = [(0, 0), DEPTH, (DEPTH[0], 1 + DEPTH[1]), (0, 1)]
            face([(left + a, low + b) for a, b in corners], marked.get((row, columns - 1), PLAIN))
    axis.text(x + (columns + back[0]) / 2, y - 0.3, f"{rows}×{columns}×{channels}", ha="center", va="top", fontsize=9)


def matrix(axis: Axes, at: tuple[float, float], rows: int, columns: int, size: str, colour: str) -> None:
    """A Dense layer's kernel, drawn as a grid, with its size below it."""
    x, y = at
    side, height = 0.42, TALLEST / max(rows, 10)
    for row in range(rows):
        for column in range(columns):
            left, low = x + column * side, y + row * height
            corners = [(left, low), (left + side, low), (left + side, low + height), (left, low + height)]
            axis.add_patch(Polygon(corners, fc=colour, ec="0.25", lw=0.5))
    axis.text(x + columns * side / 2, y - 0.3, size, ha="center", va="top", fontsize=9)


def arrow(axis: Axes, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow from one thing to the next."""
    axis.add_patch(FancyArrowPatch(begin, end, arrowstyle="-|>", mutation_scale=11, color="0.25", lw=1))


def chain(axis: Axes, title: str, size: str, grids: tuple[tuple, tuple], rows: int, columns: int, colour: str) -> None:
    """A map, a kernel and a map, one after the other."""
    (before, marked), (after, answered) = grids
    middle = 2.2
    block(axis, (0, middle - before[0] / 2), *before, marked)
    x = before[1] + before[2] * DEPTH[0] + 0.5
    arrow(axis, (x, middle), (x + 0.9, middle))
    matrix(axis, (x + 1.2, middle - rows * TALLEST / max(rows, 10) / 2), rows, columns, size, colour)
    x += 1.2 + columns * 0.42 + 0.3
    arrow(axis, (x, middle), (x + 0.9, middle))
    block(axis, (x + 1.2, middle - after[0] / 2), *after, answered)
    axis.set(xlim=(-0.3, 15), ylim=(-0.8, 5.3), aspect="equal")
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_axis_off()


def main() -> None:
    """Draw the three steps below each other."""
    figure, axes = plt.subplots(3, 1, figsize=(8, 9.2), layout="constrained")
    square = [(row, column) for row in range(3) for column in range(3)]
    chain(
        axes[0],
        "1×1 convolution: one matrix, at every pixel the same (two pixels are marked)",
        "4×2: channels × filters",
        (((3, 3, 4), {(0, 0): ONE, (2, 2): OTHER}), ((3, 3, 2), {(0, 0): ONE, (2, 2): OTHER})),
        4,
        2,
        "0.85",
    )
    chain(
        axes[1],
        "Flatten and Dense: one matrix for the whole map, and so a 3×3 convolution without padding",
        "36×2: nine blocks of 4×2",
        (((3, 3, 4), dict.fromkeys(square, ONE)), ((1, 1, 2), {(0, 0): ONE})),
        36,
        2,
        "0.85",
    )
    shifted = {(row + 1, column + 2): OTHER for row, column in square}
    both = {place: "tab:brown" for place in shifted.keys() & set(square)}
    chain(
        axes[2],
        "the same matrix on a larger map: each output cell is the Dense layer's answer to its own 3×3 window",
        "36×2, the same",
        (((4, 5, 4), {**dict.fromkeys(square, ONE), **shifted, **both}), ((2, 3, 2), {(0, 0): ONE, (1, 2): OTHER})),
        36,
        2,
        "0.85",
    )
    figure.savefig(Path(__file__).with_name("images") / "equations.png", dpi=110)


if __name__ == "__main__":
    main()
