"""Pictures of class activation maps as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from zoo.activation_maps import ClassActivation
from zoo.errors import shortened
from zoo.figures import LONGEST_NAME, own_style, subplots, write_figure
from zoo.made_by import MadeBy
from zoo.scanning.thumbnails import Thumbnail, read_by

# The most pixels a side that an image is drawn with; how opaque a map lies over it, and how dark it is there at most.
_MOST, _OPACITY, _DARKEST = 1000, 0.8, 0.4


@own_style()
def activation(
    found: ClassActivation, pixels: np.ndarray, classes: Sequence[int], path: Path, made_by: MadeBy | None = None
) -> Path:
    """An image, and beside it the maps of some classes over the image in light grey, all of one signed scale.

    Every cell colours its block of pixels; red adds to the class's logit, blue takes from it.

    Args:
        found: the maps.
        pixels: the image that they are of, (H, W, C).
        classes: the classes' numbers.
        path: the PNG file.
        made_by: the command that draws it.
    """
    height, width = pixels.shape[:2]
    panels = 1 + len(classes)
    scale = 4 / max(height, width)
    size = (panels * (width * scale + 0.5) + 1, height * scale + 1.4)
    figure, (axes,) = subplots(1, panels, size, shared=True, layout="constrained")
    colour, grey = Thumbnail(pixels, _MOST, in_colour=True), Thumbnail(pixels, _MOST)
    read_by(pixels, colour, grey)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes[0].imshow(colour.rgb, extent=extent)
    axes[0].set_title("the image, as the model takes it", fontsize=9)
    most = float(np.abs(found.maps[..., list(classes)]).max()) or 1.0
    colours = ScalarMappable(Normalize(-most, most), "RdBu_r")
    for axis, index in zip(axes[1:], classes, strict=True):
        axis.imshow(1 - _DARKEST * (1 - grey.rgb / 255), extent=extent)
        _blocks(axis, found, colours.to_rgba(found.maps[..., index], alpha=_OPACITY))
        name = shortened(found.class_names[index], LONGEST_NAME)
        axis.set_title(f"{name}: logit {found.logits[index]:.4g}", fontsize=9)
    for axis in axes:
        axis.set(xlim=extent[:2], ylim=extent[2:], xlabel="column (pixels)")
    axes[0].set_ylabel("row (pixels)")
    rows, columns = found.maps.shape[:2]
    figure.colorbar(colours, ax=axes[1:], label=f"value of a cell: {rows * columns} times its part of the logit")
    title = f"Class activation maps: the mean of the {rows} x {columns} cells is the logit"
    if not found.by_field:
        title += "\nwhere a cell looks is not known: its block is its share of the image"
    figure.suptitle(title, fontsize=10)
    return write_figure(figure, path, made_by)


def _blocks(axis: Axes, found: ClassActivation, colours: np.ndarray) -> None:
    """Draw the cells' blocks; pixels' middles lie at whole numbers here."""
    top, left, bottom, right = (side - 0.5 for side in found.box)
    axis.imshow(colours, extent=(left, right, bottom, top), interpolation="nearest")
