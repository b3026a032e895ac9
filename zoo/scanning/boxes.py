"""Boxes in an image, and their files: lists of boxes read, and their scores written, as CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.dense.outputs import Outputs, to_probabilities
from zoo.errors import InputError
from zoo.files import check_output, replacing

_SIDES = ("top", "left", "bottom", "right")
_OTHER_NAMES = ("ymin", "xmin", "ymax", "xmax")
_ENDINGS = (".csv", ".json")


@dataclass(frozen=True)
class BoxScores:
    """What a model says about boxes: `boxes` (n, 4) in pixels (top, left, bottom, right), `scores` (n, classes)."""

    boxes: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...]
    outputs: Outputs = "logits"

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax over the classes, or the scores where they are probabilities: (n, classes)."""
        return to_probabilities(self.scores, self.outputs)

    def save(self, path: str | Path) -> Path:
        """Write box, likeliest class and its probability as `score`, a box a row, to a .csv or .json file.

        Raises:
            InputError: for another ending.
        """
        path = check_boxes_file(path)
        probabilities = self.probabilities
        winners = probabilities.argmax(-1)
        rows = [
            (_plain(box), self.class_names[winner], round(float(chances[winner]), 6))
            for box, winner, chances in zip(self.boxes, winners, probabilities, strict=True)
        ]
        if path.suffix == ".json":
            content = [{"box": box, "class": name, "score": score} for box, name, score in rows]
            text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in content) + "\n]\n"
        else:
            file = io.StringIO()
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow((*_SIDES, "class", "score"))
            writer.writerows((*box, name, score) for box, name, score in rows)
            text = file.getvalue()
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path


def check_boxes(boxes: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Boxes in pixels as an array (n, 4) of (top, left, bottom, right), each seen to overlap the image.

    Raises:
        InputError: naming the first box that does not, or that is no box; or where there are none.
    """
    try:
        array = np.asarray(boxes, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise InputError(f"boxes: received {_short(boxes)}; accepted: at least one box (top, left, bottom, right)")
    is_box = np.isfinite(array).all(1) & (array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])
    if not is_box.all():
        index = int((~is_box).argmax())
        raise InputError(
            f"box {index + 1}: received {_plain(array[index])}; accepted: top, left, bottom, right in pixels, top < "
            "bottom, left < right"
        )
    inside = (array[:, 2:] > 0).all(1) & (array[:, :2] < image_size).all(1)
    if not inside.all():
        index = int((~inside).argmax())
        raise InputError(
            f"box {index + 1}: received {_plain(array[index])}; accepted: boxes that overlap the image of "
            f"{image_size[0]} x {image_size[1]} pixels"
        )
    return array


def read_boxes(path: str | Path) -> np.ndarray:
    """Read boxes in pixels from a .csv or .json file: (n, 4) of (top, left, bottom, right).

    A CSV file has a header with the columns top, left, bottom, right, or ymin, xmin, ymax, xmax; others are left alone.
    A JSON file holds a list of boxes: four numbers each, or an object with these names or with `box`, four numbers.

    Raises:
        InputError: where the file cannot be read or has another form, naming the first box at fault.
    """
    path = check_boxes_file(path, "boxes")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(io.StringIO(text), strict=True))
    except OSError as error:
        raise InputError(f"boxes {str(path)!r}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"boxes {str(path)!r}: broken ({' '.join(str(error).split())})") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"boxes {str(path)!r}: has none; accepted: at least one")
    boxes = []
    for index, row in enumerate(rows, start=1):
        try:
            boxes.append([float(number) for number in _four(row)])
        except (TypeError, ValueError, KeyError):
            raise InputError(
                f"boxes {str(path)!r}: box {index}: received {_short(row)}; accepted: numbers named "
                f"{', '.join(_SIDES)} (or {', '.join(_OTHER_NAMES)})"
            ) from None
    return np.array(boxes)


def check_boxes_file(path: str | Path, what: str = "output") -> Path:
    """See that a path is that of a .csv or .json file, and return it.

    Raises:
        InputError: beginning with `what`, for another ending, or a folder.
    """
    path = Path(path)
    if path.suffix not in _ENDINGS:
        raise InputError(f"{what} {str(path)!r}: accepted: a name that ends in {' or '.join(_ENDINGS)}")
    return check_output(path, what)


def _four(row: Any) -> Sequence:
    if isinstance(row, dict):
        if "box" in row:
            return _four(row["box"])
        row = {str(name).strip().lower(): value for name, value in row.items()}
        return [row[name] for name in (_SIDES if _SIDES[0] in row else _OTHER_NAMES)]
    if not isinstance(row, list) or len(row) != 4 or any(isinstance(number, str) for number in row):
        raise ValueError
    return row


def _plain(box: np.ndarray) -> list[int | float]:
    """A box with whole numbers as such."""
    return [int(side) if float(side).is_integer() else float(side) for side in box]


def _short(received: Any) -> str:
    text = str(list(received.values()) if isinstance(received, dict) else received)
    return text if len(text) <= 60 else f"{text[:60]}..."
