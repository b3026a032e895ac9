"""The physical size of a pixel in micrometres, as files state it."""

import math
import re
from typing import TYPE_CHECKING, Any

from zoo.errors import refuse

if TYPE_CHECKING:
    import tifffile

# Micrometres of a unit, by the names of OME, ImageJ and OME-Zarr.
_UNITS = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer"), 1e-6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch", '"'), 25_400.0),
}
# Dots an inch that printers and screens have: they say nothing about what is seen.
_PRINT = (72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 250, 300, 350, 360, 400, 600, 720, 1200, 2400)
# A scale beyond it is that of a pixel size in another unit, or of another thing.
_LARGEST = 64
# The TIFF tags that say how many rows, and how many columns, go into a unit.
_RESOLUTION = (283, 282)

Size = tuple[float, float]


def in_micrometres(value: Any, unit: Any) -> float | None:
    """A length in micrometres; None where it is no positive number or of no known unit."""
    try:
        length = float(value) * _UNITS[str(unit).strip().lower()]
    except (KeyError, TypeError, ValueError):
        return None
    return length if math.isfinite(length) and length > 0 else None


def scale_to(size: Size, wanted: float, name: str) -> Size:
    """What an image is scaled by, down and across, so that its pixels of a size in micrometres have the wanted one.

    Raises:
        InputError: naming the image, where the two are too far apart.
    """
    scale = (size[0] / wanted, size[1] / wanted)
    if not all(1 / _LARGEST <= each <= _LARGEST for each in scale):
        refuse(f"{name}: pixel size", size_text(size), f"up to {_LARGEST} times more or less than {wanted:g} µm")
    return scale


def size_text(size: Size) -> str:
    """A pixel size for people to read."""
    return f"{size[0]:g} µm" if size[0] == size[1] else f"{size[0]:g} x {size[1]:g} µm"


def both(vertical: float | None, horizontal: float | None) -> Size | None:
    """The two sizes, where both are stated."""
    return None if vertical is None or horizontal is None else (vertical, horizontal)


def tiff_pixel_size(
    file: "tifffile.TiffFile", full: "tifffile.TiffPageSeries", page: "tifffile.TiffPage"
) -> Size | None:
    """Rows' and columns' distance in an image of a TIFF: what OME, ImageJ or Aperio say, or else the resolution tags.

    Args:
        file: the file.
        full: the series, of whose first level the file states something.
        page: the page that is read, of any level.
    """
    first = full.keyframe
    if (ome := file.ome_metadata) is not None:
        number = next(index for index, series in enumerate(file.series) if series is full)
        size = _ome(ome, number)
    elif file.is_imagej:
        unit = (file.imagej_metadata or {}).get("unit")
        size = both(*(in_micrometres(_distance(first, code), unit) for code in _RESOLUTION))
    elif match := re.search(r"\bMPP\s*=\s*([0-9.,]+)", first.description or ""):
        # Aperio repeats it in its thumbnail's description, of which it is not true; some scanners write a comma.
        stated = in_micrometres(match[1].replace(",", "."), "um")
        size = both(stated, stated) if full is file.series[0] else None
    else:
        unit = {2: "inch", 3: "cm", 4: "mm", 5: "um"}.get(first.tags.valueof(296, default=2))
        size = both(*(in_micrometres(_distance(first, code), unit) for code in _RESOLUTION))
        if size is not None and any(_is_print(each) for each in size):
            size = None
    if size is None:
        return None
    return size[0] * (first.imagelength / page.imagelength), size[1] * (first.imagewidth / page.imagewidth)


def _distance(page: "tifffile.TiffPage", code: int) -> float | None:
    """Units between rows, or between columns, from a resolution tag; None where there is none."""
    value = page.tags.valueof(code, default=None)
    ratio = isinstance(value, tuple) and len(value) == 2 and value[0] and value[1]
    return value[1] / value[0] if ratio else None


def _is_print(size: float) -> bool:
    """Whether a pixel of this size is a printer's or a screen's dot, or the writer's 1 for unknown."""
    dots = 25_400 / size
    return dots < 3 or any(abs(dots / each - 1) < 0.005 for each in _PRINT)


def _ome(text: str, index: int) -> Size | None:
    from xml.etree import ElementTree

    pixels = [each for each in ElementTree.fromstring(text).iter() if each.tag.endswith("}Pixels")]
    if index >= len(pixels):
        return None
    stated = pixels[index]
    return both(
        *(
            in_micrometres(stated.get(f"PhysicalSize{axis}"), stated.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "YX"
        )
    )


def zarr_pixel_size(scales: dict, dataset: dict, axes: list) -> Size | None:
    """Rows' and columns' distance in a level of OME-Zarr: the product of its scalings, in the axes' units."""
    try:
        units = {axis["name"]: axis.get("unit") for axis in axes}
        steps = [1.0] * len(axes)
        for place in (dataset, scales):
            for each in place.get("coordinateTransformations", ()):
                if each.get("type") == "scale":
                    steps = [step * scale for step, scale in zip(steps, each["scale"], strict=True)]
        by_axis = dict(zip(units, steps, strict=True))
        return both(*(in_micrometres(by_axis[axis], units[axis]) for axis in "yx"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
