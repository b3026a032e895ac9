"""A counter's density of objects as a PNG file."""

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from zoo.plots import about_counts, own_style, subplots, write_figure
from zoo.scanning.density import density_unit
from zoo.scanning.overlay import palette
from zoo.scanning.summary import Summary

# How many classes are drawn, and how many pixels a side each at most.
_PANELS, _PIXELS = 12, 1000


@own_style()
def density(summary: Summary, path: Path) -> Path:
    """A counter's density of objects, a panel each for the twelve classes of which there are most, with the counts.

    A cell's own pixels have the class's colour, from white at 0 (and below) on; the bar has the unit.
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
    white = np.full((*(-(-side // factor) for side in score_map.image_size), 1), 255.0)
    # The last pixels of the picture may reach beyond the image.
    bottom, right = (side * factor - 0.5 for side in white.shape[:2])
    names, colours = about_counts(density, score_map.class_names), palette(len(score_map.class_names))
    for axis, index in zip(axes.flat, shown, strict=False):
        picture = density.over(white, index, _PIXELS, opacity=1)
        axis.imshow(picture, interpolation="nearest", extent=(-0.5, right, bottom, -0.5))
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axis.set_title(names[index], fontsize=9)
        colour_map = LinearSegmentedColormap.from_list("density", [(1, 1, 1), tuple(colours[index])])
        norm = Normalize(0, by * density.largest(index) or 1)
        figure.colorbar(ScalarMappable(norm, colour_map), ax=axis, shrink=0.8, label=unit)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    return write_figure(figure, path, score_map.made_by)
