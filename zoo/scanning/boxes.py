"""Boxes in an image, and their files: lists of boxes read, and their scores written, as CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError, refuse
from zoo.files import check_output, replacing
from zoo.pictures.box_forms import (
    COORDINATES,
    SIDES,
    array_rows,
    json_rows,
    of_image,
    parse_json,
    short,
    table_rows,
)
from zoo.pictures.tables import cut, plain
from zoo.scores import Outputs, to_probabilities

# Below it, in magnitude, coordinates of all sides of a box are fractions of the image's.
_FRACTIONS = 1.5
_ENDINGS = (".csv", ".json")


@dataclass(frozen=True)
class BoxScores:
    """What a model says about boxes: `boxes` (n, 4) in pixels (top, left, bottom, right), `scores` (n, classes).

    Of a counter the scores are how many objects of each class are in the boxes.

    `further`: what their file says of each besides, which is written with the scores. `beyond`: how many boxes reach
    beyond the image, of which the part inside was scored. `notes`: what to know of the answers, a line each.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...]
    outputs: Outputs = "logits"
    further: tuple[dict[str, Any], ...] = ()
    beyond: int = 0
    notes: tuple[str, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax over the classes, or the scores where they are probabilities: (n, classes)."""
        return to_probabilities(self.scores, self.outputs)

    def save(self, path: str | Path) -> Path:
        """Write box, likeliest class and its probability as `score`, a box a row, to a .csv or .json file.

        Of a counter the numbers of objects follow in place of these, those of a class as `count NAME`.
        What is further known of the boxes follows; names that are taken become `given_class` and so on.

        Raises:
            InputError: for another ending.
        """
        path = check_boxes_file(path)
        with replacing(path) as temporary:
            temporary.write_text(self.text(path), encoding="utf-8")
        return path

    def text(self, path: Path) -> str:
        """What `save` writes to a file of that name."""
        if path.suffix == ".json":
            return "[\n" + ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in self.rows()) + "\n]\n"
        answers = self._answers()
        further, boxes = self._further(), [_plain(box) for box in self.boxes]
        file, names = io.StringIO(), list(dict.fromkeys(name for row in further for name in row))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*SIDES, *answers[0], *names))
        for box, new, old in zip(boxes, answers, further, strict=True):
            writer.writerow((*box, *new.values(), *(_cell(old.get(name)) for name in names)))
        return file.getvalue()

    def rows(self) -> list[dict[str, Any]]:
        """What is written of each box: box, class and score, of a counter `count NAME`, and what is further known."""
        boxes = [_plain(box) for box in self.boxes]
        return [
            {"box": box, **new, **old} for box, new, old in zip(boxes, self._answers(), self._further(), strict=True)
        ]

    def _answers(self) -> list[dict[str, Any]]:
        """What is written of each box."""
        if self.outputs == "counts":
            names = [f"count {name}" for name in self.class_names]
            return [dict(zip(names, np.round(counts, 3).tolist(), strict=True)) for counts in self.scores]
        probabilities = self.probabilities
        winners = probabilities.argmax(-1)
        return [
            {"class": self.class_names[winner], "score": round(float(chances[winner]), 6)}
            for winner, chances in zip(winners, probabilities, strict=True)
        ]

    def _further(self) -> list[dict[str, Any]]:
        """What is further known of each box, under names that the output does not have itself."""
        names = list(dict.fromkeys(name for row in self.further for name in row))
        taken, new = {*COORDINATES, "box", "bbox", *map(plain, self._answers()[0])}, {}
        given = {plain(name) for name in names}
        for name in names:
            new[name] = name
            while plain(new[name]) in taken or new[name] != name and plain(new[name]) in given:
                new[name] = f"given_{new[name]}"
            taken.add(plain(new[name]))
        rows = self.further or ({},) * len(self.boxes)
        return [{new[name]: value for name, value in row.items()} for row in rows]


@dataclass(frozen=True)
class Boxes:
    """Boxes from a file: `boxes` (n, 4) in pixels (top, left, bottom, right).

    `further`: what else the file says of each. `image_size`: (height, width) of their image, where the file says so.
    """

    boxes: np.ndarray
    further: tuple[dict[str, Any], ...] = ()
    image_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self.boxes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The boxes alone."""
        return np.array(self.boxes, dtype)


def check_boxes(boxes: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Boxes in pixels as an array (n, 4) of (top, left, bottom, right), each of which overlaps the image.

    A table with names, such as a data frame, a structured array or a list of dicts, has those of `read_boxes`.

    Raises:
        InputError: naming the first box that does not, or that is no box or looks like fractions of the image's sides;
            where there are none; or where their file says that they are of an image of another size.
    """
    stated = boxes.image_size if isinstance(boxes, Boxes) else None
    if stated not in (None, tuple(image_size)):
        received = f"those of an image of {stated[0]} x {stated[1]} pixels"
        refuse("boxes", received, f"{image_size[0]} x {image_size[1]}, as this image is")
    try:
        named = array_rows(boxes)
    except InputError as error:
        raise InputError(f"boxes: {error}") from None
    try:
        array = np.asarray(boxes if named is None else [each.sides for each in named], np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        refuse("boxes", short(boxes), "at least one box (top, left, bottom, right)")
    _check_sides(array, "")
    inside = (array[:, 2:] > 0).all(1) & (array[:, :2] < image_size).all(1)
    if not inside.all():
        index = int((~inside).argmax())
        accepted = f"boxes that overlap the image of {image_size[0]} x {image_size[1]} pixels"
        refuse(f"box {index + 1}", _plain(array[index]), accepted)
    return array


def read_boxes(path: str | Path, image: str | Path | None = None) -> Boxes:
    """Read boxes in pixels from a file.

    A .csv file, separated by commas, semicolons or tabs, has a header with the columns top, left, bottom, right, or
    ymin, xmin, ymax, xmax, or x, y, width, height, where x, y is the top left corner; in any case of letters. A .json
    file holds a list of boxes: four numbers each (top, left, bottom, right), or an object with these names or with
    `box`, four numbers; or it is COCO's, whose `bbox` is (x, y, width, height). A .geojson or .json file may be
    GeoJSON, as QuPath writes it: a polygon's bounding box, and of a point the pixel that it lies in. What else a row
    says is kept. Of a file that says which images its boxes are of, those of `image` are read (see
    `zoo.pictures.box_forms.of_image`).

    Raises:
        InputError: where the file cannot be read, has another form, the same column twice, or fractions of the image's
            sides for pixels, naming the first box at fault; or says that its boxes are of images other than `image`.
    """
    path = check_boxes_file(path, "boxes", (*_ENDINGS, ".geojson"))
    name = f"boxes {str(path)!r}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows, sizes = (table_rows(text), {}) if path.suffix == ".csv" else json_rows(parse_json(text))
        rows = of_image(rows, image)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{name}: broken ({cut(str(error))})") from None
    if not rows:
        raise InputError(f"{name}: has none; accepted: at least one")
    array = np.array([row.sides for row in rows], np.float64)
    points = [row.is_point for row in rows]
    # Of a point, the pixel that it lies in.
    array[points] = np.floor(array[points]) + (0, 0, 1, 1)
    _check_sides(array, f"{name}: ")
    return Boxes(array, tuple(row.further for row in rows), sizes.get(rows[0].image))


def _check_sides(array: np.ndarray, where: str) -> None:
    """Check that boxes are such, in pixels."""
    is_box = np.isfinite(array).all(1) & (array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])
    if not is_box.all():
        index = int((~is_box).argmax())
        accepted = "top, left, bottom, right in pixels, top < bottom, left < right"
        refuse(f"{where}box {index + 1}", _plain(array[index]), accepted)
    # Fractions may reach a little beyond the image. Whole numbers among larger ones are a pixel at the corner.
    small = (np.abs(array) < _FRACTIONS).all(1)
    fractions = small if small.all() else small & (array % 1 != 0).any(1)
    if fractions.any():
        index = int(fractions.argmax())
        refuse(
            f"{where}box {index + 1}",
            f"{_plain(array[index])}, fractions of the image's sides by their looks",
            "pixels (top and bottom times the height, left and right times the width)",
        )


def check_boxes_file(path: str | Path, what: str = "output", endings: Sequence[str] = _ENDINGS) -> Path:
    """Check that a path is that of a file with one of `endings`, and return it.

    Raises:
        InputError: beginning with `what`, for another ending, or a folder.
    """
    path = Path(path)
    if path.suffix not in endings:
        raise InputError(f"{what} {str(path)!r}: accepted: a name that ends in {' or '.join(endings)}")
    return check_output(path, what)


def _plain(box: np.ndarray) -> list[int | float]:
    """A box with whole numbers as such."""
    return [int(side) if float(side).is_integer() else float(side) for side in box]


def _cell(value: Any) -> Any:
    """A value for a table."""
    return json.dumps(value, allow_nan=False) if isinstance(value, dict | list) else value
