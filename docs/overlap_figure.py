"""The figure of docs/speed.md: seconds for 10,000 x 10,000 pixels against the overlap of windows.

    python docs/overlap_figure.py

Drawn from docs/records/overlap.json, which benchmarks/overlap.py writes.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  # after its backend is chosen
from matplotlib.axes import Axes  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from record import Record, read  # noqa: E402  # a script beside the benchmarks, not a package

SECONDS, OVERLAP = "seconds for 10,000²", "overlap, %"


def draw(axis: Axes, record: Record) -> None:
    """A line for each case at several overlaps, and a level for each pass, which is at one."""
    curves: dict[str, list[dict]] = {}
    for row in record.rows:
        curves.setdefault(str(row["case"]), []).append(row)
    for index, (case, rows) in enumerate(curves.items()):
        overlaps = [row[OVERLAP] for row in rows]
        medians = [row[SECONDS].median for row in rows]
        errors = [
            [abs(getattr(row[SECONDS], end) - row[SECONDS].median) for row in rows] for end in ("least", "largest")
        ]
        axis.errorbar(overlaps, medians, errors, fmt="o-", color=f"C{index}", label=case, ms=4, capsize=2)
        if len(rows) == 1:
            axis.axhline(medians[0], color=f"C{index}", lw=1, ls="--")
    axis.set(yscale="log", xlabel="overlap of windows, %", ylabel="seconds for 10,000 × 10,000 pixels")
    axis.set_xticks(sorted({row[OVERLAP] for row in record.rows}))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def main() -> None:
    """Draw it."""
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    draw(axis, read("overlap"))
    figure.savefig(ROOT / "docs" / "images" / "overlap.png", dpi=110)


if __name__ == "__main__":
    main()
