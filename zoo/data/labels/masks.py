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
# There, the values that have no row of their own, and number objects.
_OTHERS = "*"
# Pixels that meet at a corner are of one object.
_NEIGHBOURS = np.ones((3, 3), bool)


def read_classes(path: Path) -> dict[int | None, str]:
    """The class of each value of masks: a .csv file with the columns `value`, a whole number, and `class`.

    Several values may be of one class. A row for 0, which is background, is left out. The value * stands for all that
    have no row: these number the objects of its class, one each; its key is None.

    Raises:
        InputError: naming the file and the row at fault.
    """
    with reading(path) as name:
        found: dict[int | None, str] = {}
        for row in read_table(path, name, ("value", "class")):
            text = row.values["value"]
            value = int(text) if text.isdecimal() else None
            if value is None and text != _OTHERS or value in found:
                accepted = f"a whole number, or {_OTHERS} for all others, each once, and the name of its class"
                refuse(f"row {row.number}", quoted(row.text), accepted)
            found[value] = row.values["class"]
        found.pop(0, None)
        names = sorted(set(found.values()))
        composed = dict(zip(names, class_list(names, CLASSES), strict=True))
        return {value: composed[name] for value, name in found.items()}


def read_mask(path: Path, classes: dict[int | None, str] | None) -> tuple[Written, set[int]]:
    """The objects of a mask, and the values other than 0 that it has.

    0 is background. Every connected component of another value is an object, with the class of that value; pixels that
    meet at a corner are connected. A value that numbers an object (see `read_classes`) is one, in however many pieces.
    An object's box is that about its pixels.

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
        others = [] if classes is None else sorted(there - set(classes))
        if classes is not None and others and None not in classes:
            accepted = f"0 and those of {CLASSES} ({listing([*map(str, classes)])})"
            refuse("values", listing([*map(str, others)]), accepted)
        found = [
            (parts, "" if classes is None else classes[value])
            for value in sorted(there - set(others))
            for parts in ndimage.find_objects(ndimage.label(values == value, _NEIGHBOURS)[0])
        ]
        if classes is not None and others:
            # Their places in their order are numbers from 1 on, without gaps.
            numbers = np.where(np.isin(values, others), np.searchsorted(others, values) + 1, 0)
            found += [(parts, classes[None]) for parts in ndimage.find_objects(numbers)]
        boxes = [[rows.start, columns.start, rows.stop, columns.stop] for (rows, columns), _ in found]
        return Written.of(boxes, [name for _, name in found], size=pixels.shape[:2]), there
