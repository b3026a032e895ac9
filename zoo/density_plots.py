"""A counter's density of objects as a PNG file."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize

from zoo.figures import own_style, subplots, write_figure
from zoo.plots import about_counts
from zoo.scanning.density import density_unit
from zoo.scanning.overlay import palette
from zoo.scanning.summary import Summary

# How many classes are drawn, and how many pixels a side each at most.
_PANELS, _PIXELS = 12, 1000
# The darkest of a class's colour, as a part of it; and what was not scanned.
_DARKEST, _NOT_SCANNED = 0.3, "0.8"


@own_style()
def density(summary: Summary, path: Path) -> Path:
    """A counter's density of objects, a panel each for the twelve classes of which there are most, with the counts.

    A cell's own pixels are white at 0 (and below), have the class's colour at half of the largest density, and are dark
    at the largest; the bar has the unit. Grey was not scanned.
    """
    assert summary.density is not None
    score_map, density, (by, unit) = summary.score_map, summary.density, density_unit(summary.score_map)
    shown = np.argsort([-count for count in density.counts.values()], kind="stable")[:_PANELS].tolist()
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    height, width = score_map.image_size
    scale = 5 / max(height, width)
    size = (columns * (width * scale + 1.2), rows * (height * scale + 0.6))
    figure, axes = subplots(rows, columns, size, layout="constrained")
    factor = score_map.factor(_PIXELS)
    # The last pixels of the picture may reach beyond the image.
    bottom, right = (-(-side // factor) * factor - 0.5 for side in score_map.image_size)
    names, colours = about_counts(density, score_map.class_names), palette(len(score_map.class_names))
    for axis, index in zip(axes.flat, shown, strict=False):
        ramp = ["white", tuple(colours[index]), tuple(_DARKEST * colours[index])]
        look = {
            "cmap": LinearSegmentedColormap.from_list("density", ramp).with_extremes(bad=_NOT_SCANNED),
            "norm": Normalize(0, by * density.largest(index) or 1),
        }
        values = by * density.largest(index) * density.beside_largest(index, _PIXELS)
        picture = axis.imshow(values, interpolation="nearest", extent=(-0.5, right, bottom, -0.5), **look)
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xlabel="column (pixels)", ylabel="row (pixels)")
        axis.set_title(names[index] + "; grey: not scanned" * bool(np.isnan(values).any()), fontsize=9)
        figure.colorbar(picture, ax=axis, shrink=0.8, label=unit)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    return write_figure(figure, path, score_map.made_by)
