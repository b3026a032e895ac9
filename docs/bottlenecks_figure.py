"""The figures of docs/bottlenecks.md: test accuracy over multiply-adds, of nets with reductions and without.

    python docs/bottlenecks_figure.py

Drawn from docs/records/bottlenecks_resnet.json and bottlenecks_inception.json, which benchmarks/bottlenecks.py writes.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  # after its backend is chosen
from matplotlib import ticker  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from record import Deviation, Record, read  # noqa: E402  # a script beside the benchmarks, not a package

from zoo.figures import MARKERS  # noqa: E402
from zoo.scanning.overlay import palette  # noqa: E402

MACS, ACCURACY = "multiply-adds, M", "test accuracy, %"
# Nets of equal multiply-adds would hide each other: each is drawn this much further to the right than the one before.
STEP = 1.04


def draw(axis: Axes, record: Record) -> None:
    """The mean of the seeds and their standard deviation, a mark and a colour a net."""
    colours, seen = palette(len(record.rows)), 0
    for index, row in enumerate(record.rows):
        macs, accuracy = row[MACS], row[ACCURACY]
        assert isinstance(macs, float) and isinstance(accuracy, Deviation)
        near = abs(macs / record.rows[0][MACS] - 1) < 0.1
        place, seen = macs * STEP ** (seen if near else 0), seen + near
        look = {"fmt": MARKERS[index], "color": colours[index], "mec": "black", "ms": 8, "capsize": 3}
        axis.errorbar(place, accuracy.mean, accuracy.deviation, label=str(row["reductions"]), **look)
    axis.set(xlabel="multiply-adds, millions", ylabel="test accuracy, %", xscale="log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.grid(alpha=0.3, which="both")


def main() -> None:
    """Write a figure for each record."""
    for name in ("bottlenecks_resnet", "bottlenecks_inception"):
        figure, axis = plt.subplots(figsize=(6, 5.2), layout="constrained")
        draw(axis, read(name))
        figure.legend(loc="outside lower center", fontsize=8)
        figure.savefig(ROOT / "docs" / "images" / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
