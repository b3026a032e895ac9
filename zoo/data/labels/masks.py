"""Labels as masks: images whose values say what is where."""

from pathlib import Path

import numpy as np

from zoo.classes import class_list
from zoo.data.labels.written import Written, reading
from zoo.errors import listing, quoted, refuse
from zoo.pictures import Wanted, read_picture
from zoo.pictures.tables import read_table

# The file of a folder of masks that says which class a value is.
CLASSES = "classes.csv"
# Pixels that meet at a corner are of one object.
_NEIGHBOURS = np.ones((3, 3), bool)


def read_classes(path: Path) -> dict[int, str]:
    """The class of each value of masks: a .csv file with the columns `value`, a whole number, and `class`.

    Several values may be of one class. A row for 0, which is background, is left out.

    Raises:
        InputError: naming the file and the row at fault.
    """
    with reading(path) as name:
        found: dict[int, str] = {}
        for row in read_table(path, name, ("value", "class")):
            value = row.values["value"]
            if not value.isdecimal() or int(value) in found:
                accepted = "a whole number, each once, and the name of its class"
                refuse(f"row {row.number}", quoted(row.text), accepted)
            found[int(value)] = row.values["class"]
        found.pop(0, None)
        names = sorted(set(found.values()))
        composed = dict(zip(names, class_list(names, CLASSES), strict=True))
        return {value: composed[name] for value, name in found.items()}


def read_mask(path: Path, classes: dict[int, str] | None) -> tuple[Written, set[int]]:
    """The objects of a mask, and the values other than 0 that it has.

    0 is background. Every connected component of another value is an object, with the class of that value; pixels that
    meet at a corner are connected. Its box is that about its pixels.

    Args:
        path: an image of whole numbers, in grey or by a palette with colours, whose indices are the values.
        classes: the class of each value; None where no file says so: then classes are "".

    Raises:
        InputError: for a mask in colours, samples that are no whole numbers, or a value that is none of `classes`.
    """
    from scipy import ndimage

    with reading(path):
        pixels, _ = read_picture(path, Wanted(mask=True, indices=True))
        values = pixels[..., 0]
        if (pixels != pixels[..., :1]).any():
            refuse("pixels", "colours", "one value a pixel, in grey or by a palette")
        if values.dtype.kind not in "bui":
            refuse("pixels", str(values.dtype), "whole numbers")
        there = {int(value) for value in np.unique(values)} - {0}
        if classes is not None and (others := sorted(there - set(classes))):
            accepted = f"0 and those of {CLASSES} ({listing([*map(str, classes)])})"
            refuse("values", listing([*map(str, others)]), accepted)
        boxes, names = [], []
        for value in sorted(there):
            components, _ = ndimage.label(values == value, _NEIGHBOURS)
            for rows, columns in ndimage.find_objects(components):
                boxes.append([rows.start, columns.start, rows.stop, columns.stop])
                names.append("" if classes is None else classes[value])
        return Written.of(boxes, names, size=pixels.shape[:2]), there
