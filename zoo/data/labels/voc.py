"""Labels as Pascal VOC has them: one .xml file an image."""

import math
from pathlib import Path
from xml.etree import ElementTree

from zoo.data.labels.written import Written, reading
from zoo.errors import InputError, refuse
from zoo.pictures.box_forms import short, stated_size
from zoo.pictures.tables import cut

_SIDES = ("ymin", "xmin", "ymax", "xmax")


def read_voc(path: Path) -> Written:
    """The objects of a Pascal VOC file: `object`, each with `name` and `bndbox`; and the image's size where it says so.

    The numbers are taken for continuous corners, as LabelImg writes them. (VOC's own count pixels from 1; the boxes are
    then half a pixel too far to the right and down.)

    Raises:
        InputError: naming the file, and the object at fault.
    """
    with reading(path):
        try:
            root = ElementTree.fromstring(path.read_bytes())
        except ElementTree.ParseError as error:
            raise InputError(f"broken ({cut(str(error))})") from None
        if root.tag != "annotation":
            refuse("root element", short(root.tag), "'annotation', as Pascal VOC has it")
        boxes, names = [], []
        for index, each in enumerate(root.iter("object"), start=1):
            found = [each.findtext(f"bndbox/{side}") for side in _SIDES]
            try:
                boxes.append([_number(text) for text in found])
            except ValueError:
                refuse(f"object {index}", f"a bndbox of {short(found)}", "ymin, xmin, ymax, xmax, four numbers")
            names.append((each.findtext("name") or "").strip())
        # Tools write 0 for what they do not know.
        size = stated_size(root.findtext("size/height"), root.findtext("size/width"))
        return Written.of(boxes, names, size=size)


def _number(text: str | None) -> float:
    if not math.isfinite(number := float(text or "")):
        raise ValueError
    return number
