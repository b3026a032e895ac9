"""The figure of docs/architecture.md: what each stage hands the next one, and what they all stand on.

python docs/architecture_figure.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  # after its backend is chosen
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

OUTPUT = Path(__file__).with_name("images") / "architecture.png"
# Each stage, the package or module that it is, and what it hands the next one.
STAGES = (
    ("config", "config/\nmodels/", "Config"),
    ("build", "builder.py", "keras.Model"),
    ("data", "data/", "Dataset"),
    ("train", "training/", "run directory"),
    ("evaluate", "evaluation.py", "evaluation.json"),
    ("convert", "convert/", "converted\nmodel"),
    ("scan", "scanning/\nengines/", "ScoreMap"),
    ("export", "exporting/", "SavedModel"),
)
NETWORK = (
    "network/   a model traced once, and the algebra of its positions",
    "graph   its layers in order    rules   from each layer to a move    "
    "moves, program   sizes, spans, fields, lattices    geometry   grid cells and pixels",
)
GROUND = (
    ("pictures/", "the one reader of images"),
    ("files.py", "the one writer"),
    ("card.py", "what travels with a model"),
    ("errors.py", "one line: received, accepted"),
)
BLUE, GREEN, GREY, DARK = "#dbe8f6", "#dcefdc", "#eeeeee", "#333333"


def box(axes: Axes, left: float, bottom: float, width: float, height: float, colour: str) -> None:
    """A rounded box."""
    shape = FancyBboxPatch(
        (left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.08", facecolor=colour, edgecolor=DARK
    )
    axes.add_patch(shape)


def draw() -> None:
    """Draw the figure and write it."""
    figure, axes = plt.subplots(figsize=(13, 4.4), dpi=110)
    axes.set(xlim=(-0.1, 16.1), ylim=(0.3, 5.2))
    axes.axis("off")
    for index, (stage, home, given) in enumerate(STAGES):
        left = 2 * index
        box(axes, left, 3.5, 1.5, 1.2, BLUE)
        axes.text(left + 0.75, 4.42, stage, ha="center", va="center", fontsize=11, weight="bold")
        axes.text(left + 0.75, 3.9, home, ha="center", va="center", fontsize=8, family="monospace")
        if index + 1 < len(STAGES):
            arrow = {"arrowstyle": "->", "color": DARK, "lw": 1.4}
            axes.annotate("", (left + 2, 4.1), (left + 1.5, 4.1), arrowprops=arrow)
        axes.text(left + 1.75, 4.82, given, ha="center", va="bottom", fontsize=7.5, style="italic", color=DARK)
    box(axes, 0, 1.9, 15.5, 1.1, GREEN)
    axes.text(0.2, 2.68, NETWORK[0], fontsize=10, weight="bold", va="center")
    axes.text(0.2, 2.22, NETWORK[1], fontsize=8.5, va="center")
    for stage in (3, 4, 5, 6, 7):  # those that are given a network, or make one
        axes.annotate(
            "", (2 * stage + 0.75, 3.5), (2 * stage + 0.75, 3), arrowprops={"arrowstyle": "->", "color": DARK}
        )
    for index, (home, what) in enumerate(GROUND):
        box(axes, 3.9 * index, 0.4, 3.7, 0.9, GREY)
        axes.text(3.9 * index + 1.85, 0.98, home, ha="center", va="center", fontsize=9, family="monospace")
        axes.text(3.9 * index + 1.85, 0.65, what, ha="center", va="center", fontsize=8)
    figure.savefig(OUTPUT, bbox_inches="tight")


if __name__ == "__main__":
    draw()
