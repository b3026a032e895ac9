"""The forms in which files list boxes and points: tables, JSON of our own, COCO's and GeoJSON."""

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from zoo.errors import InputError, listing, refuse
from zoo.pictures.tables import cut, plain, table_lines

SIDES = ("top", "left", "bottom", "right")
# Names of (top, left, bottom, right), without case, spaces, "_" and "-".
_CORNERS = (
    SIDES,
    ("ymin", "xmin", "ymax", "xmax"),
    ("miny", "minx", "maxy", "maxx"),
    ("y1", "x1", "y2", "x2"),
    ("y0", "x0", "y1", "x1"),
)
# Names of (top, left, height, width). ImageJ writes the centre as X, Y and the corner as BX, BY.
_SIZES = (
    ("top", "left", "height", "width"),
    ("y", "x", "height", "width"),
    ("by", "bx", "height", "width"),
    ("y", "x", "h", "w"),
)
COORDINATES = {name for form in (*_CORNERS, *_SIZES) for name in form}
_ACCEPTED = "numbers named top, left, bottom, right (or ymin, xmin, ymax, xmax; or x, y, width, height of the corner)"
_OR_POINTS = f"x, y of a point, or {_ACCEPTED}"
# Names of what says which image a box is of; the first of them that a row has does.
_IMAGE = ("filename", "imagename", "imagefile", "imagepath", "image", "imageid")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_GEOMETRIES = ("Point", "MultiPoint", "Polygon", "MultiPolygon")


class ListedBox(NamedTuple):
    """A box of a list: its sides, what else its entry says, and its image's name, "" where the entry has none.

    `is_point`: it is a point, whose sides meet. `is_whole`: a point's x and y are written without a decimal point.
    """

    sides: list[float]
    further: dict[str, Any]
    image: str = ""
    is_point: bool = False
    is_whole: bool = False


def table_rows(text: str, points: bool = False) -> list[ListedBox]:
    """The rows of a table with a header, separated by commas, semicolons or tabs; empty lines are none.

    With `points`, a row may have x and y alone.
    """
    lines = table_lines(text)
    if not lines:
        return []
    header, *lines = lines
    names = [name.strip() for name in header]
    known = {*map(plain, names)}
    if not any(known.issuperset(form) for form in (*_CORNERS, *_SIZES, *([("x", "y")] if points else []))):
        refuse("first line", short(header), f"a header there, with {_accepted(points)}")
    lines = [row[: len(names)] + [each for each in row[len(names) :] if each.strip()] for row in lines]
    # Columns without a name and without content are a spreadsheet's.
    kept = [at for at, name in enumerate(names) if name or any(row[at : at + 1] not in ([], [""]) for row in lines)]
    _once([names[at] for at in kept], "column")
    rows = []
    for index, row in enumerate(lines, start=1):
        if len(row) != len(names):
            refuse(f"box {index}", f"{short(row)}, {len(row)} of {len(names)} columns", _accepted(points))
        rows.append(_row({names[at]: row[at] for at in kept}, index, points))
    return rows


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        InputError: for an object with a key twice.
        ValueError: where it is broken, or has a number that is none or too large.
    """
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)


def json_rows(content: Any, points: bool = False) -> tuple[list[ListedBox], dict[str, tuple[int, int]]]:
    """The rows of a JSON text, parsed, and the size (height, width) of each image whose one it states.

    With `points`, an entry of a list may have x and y alone. A point of GeoJSON is one in any case.
    """
    if isinstance(content, dict) and "annotations" in content:
        return _coco(content)
    features = _features(content)
    if features is not None:
        return [row for index, feature in enumerate(features, start=1) for row in _feature(feature, index)], {}
    if content in ({}, []):
        return [], {}
    if not isinstance(content, list):
        raise InputError(f"received {short(content)}; accepted: a list of boxes, COCO's JSON or GeoJSON")
    return [_row(row, index, points) for index, row in enumerate(content, start=1)], {}


def array_rows(boxes: Any) -> list[ListedBox] | None:
    """The rows of a table at hand by its columns' names: a data frame, a structured array or dicts; None of another."""
    names = list(getattr(boxes, "columns", getattr(getattr(boxes, "dtype", None), "names", None) or ()))
    if any(isinstance(name, str) for name in names):
        _once([str(name) for name in names], "column")
        columns = [np.asarray(boxes[name]).tolist() for name in names]
        boxes = [dict(zip(map(str, names), row, strict=True)) for row in zip(*columns, strict=True)]
    elif not (isinstance(boxes, list | tuple) and boxes and all(map(_is, boxes))):
        return None
    rows = [
        {name: getattr(value, "tolist", lambda value=value: value)() for name, value in row.items()} for row in boxes
    ]
    return [_row(row, index) for index, row in enumerate(rows, start=1)]


def of_image(rows: list[ListedBox], image: str | Path | None) -> list[ListedBox]:
    """Those of the rows that are of an image, by its file's name; all of them where they do not say of which they are.

    The name that shares most of the image's path, from its end on, is the image's; where none shares the file's name,
    one without its ending and in any case of letters. A number alone names a file that is itself named by one.

    Raises:
        InputError: where none is, the image is not named, several names are alike for it, or some rows do not say.
    """
    names = sorted({row.image for row in rows})
    if "" in names and len(names) > 1:
        index = [row.image for row in rows].index("") + 1
        refuse(f"box {index}", f"no image, others are of {short(names[1])}", "one for each box")
    if len(names) <= 1 and (image is None or not any(names)):
        return rows
    wanted = None if image is None else PureWindowsPath(os.path.abspath(image))
    if wanted is not None and names[0].isdecimal() and len(names) == 1 and not wanted.stem.isdecimal():
        return rows
    same = [] if wanted is None else _same(names, wanted)
    if len(same) == 1:
        return [row for row in rows if row.image == same[0]]
    received = listing([short(name) for name in same or names], 3)
    many = "another image" if len(names) == 1 else f"{len(same or names)} images"
    accepted = "one name that fits" if same else "some of"
    raise InputError(
        f"received boxes of {many}: {received}; accepted: {accepted} {'' if wanted is None else wanted.name!r}"
    )


def _same(names: Sequence[str], wanted: PureWindowsPath) -> list[str]:
    """Those of some names of files that share most with a path, from its end on."""

    def exactly(path: PureWindowsPath) -> int:
        return shared_parts(path.parts, wanted.parts)

    def loosely(path: PureWindowsPath) -> int:
        ends = {path.stem, path.name}
        if path.name.isdecimal() and wanted.stem.isdecimal() and int(path.name) == int(wanted.stem):
            ends.add(wanted.stem)
        whole = [part.casefold() for part in (*wanted.parts[:-1], wanted.stem)]
        return max(shared_parts([part.casefold() for part in (*path.parts[:-1], end)], whole) for end in ends)

    for shared in (exactly, loosely):
        counts = [shared(PureWindowsPath(name)) for name in names]
        if max(counts):
            return [name for name, count in zip(names, counts, strict=True) if count == max(counts)]
    return []


def shared_parts(parts: Sequence[str], others: Sequence[str]) -> int:
    """How many parts of two paths are the same, from their ends on."""
    pairs = zip(reversed(parts), reversed(others), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def short(received: Any) -> str:
    """What was received, on one short line."""
    return cut(repr(list(received.values()) if _is(received) else received))


def _is(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _accepted(points: bool) -> str:
    return _OR_POINTS if points else _ACCEPTED


def _row(row: Any, index: int, points: bool = False) -> ListedBox:
    """A row by names, or four numbers; with `points`, perhaps of a point."""
    try:
        if not isinstance(row, dict):
            return ListedBox(_numbers(row), {})
        at = _point(row) if points else None
        box, used = _named(row) if at is None else ([_number(row[name]) for name in at * 2], set(at))
    except InputError as error:
        raise InputError(f"box {index}: {error}") from None
    except (TypeError, ValueError, OverflowError):
        refuse(f"box {index}", short(row), _accepted(points))
    further = {name: value for name, value in row.items() if name not in used}
    names = sorted((name for name in row if plain(name) in _IMAGE), key=lambda name: _IMAGE.index(plain(name)))
    image = "" if not names or row[names[0]] is None else str(row[names[0]]).strip()
    return ListedBox(box, further, image, at is not None, at is not None and all(_is_whole(row[name]) for name in at))


def _point(row: dict[str, Any]) -> list[str] | None:
    """The names of a point's y and x; None of a row that has other coordinates or another box."""
    whose = {plain(name): name for name in row}
    others = (COORDINATES | {"box", "bbox"}) - {"x", "y"}
    return [whose["y"], whose["x"]] if {"x", "y"} <= set(whose) and not others & set(whose) else None


def _named(row: dict[str, Any]) -> tuple[list[float], set[str]]:
    """The box of a row, and the names that make it."""
    names = [name for name in row if plain(name) in ("box", "bbox")]
    if len(names) == 1 and not any(each in map(plain, row) for each in SIDES):
        (name,) = names
        if isinstance(row[name], dict):
            return _named(row[name])[0], {name}
        if plain(name) == "box":
            return _numbers(row[name]), {name}
        if not {"imageid", "categoryid"} & set(map(plain, row)):
            raise InputError(
                "received 'bbox' alone; accepted: 'box' for top, left, bottom, right, or COCO's image_id too"
            )
        return _from_size(*_numbers(row[name])), {name}
    names = [plain(name) for name in row]
    _once([name for name in names if any(name in form for form in (*_CORNERS, *_SIZES))], "column")
    whose = dict(zip(names, row, strict=True))
    for forms, has_size in ((_CORNERS, False), (_SIZES, True)):
        complete = [form for form in forms if all(name in whose for name in form)]
        boxes = [_numbers([row[whose[name]] for name in form]) for form in complete]
        if any(box != boxes[0] for box in boxes):
            raise InputError(
                f"received two boxes, by {' and '.join(', '.join(form) for form in complete)}; accepted: one"
            )
        if boxes:
            top, left, *rest = boxes[0]
            box = _from_size(left, top, rest[1], rest[0]) if has_size else boxes[0]
            return box, {whose[name] for form in complete for name in form}
    raise ValueError


def _from_size(x: float, y: float, width: float, height: float) -> list[float]:
    return [y, x, y + height, x + width]


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


def _is_whole(value: Any) -> bool:
    """Whether a number is written without a decimal point."""
    return value.strip().lstrip("+-").isdecimal() if isinstance(value, str) else isinstance(value, int)


def _coco(content: dict[str, Any]) -> tuple[list[ListedBox], dict[str, tuple[int, int]]]:
    """COCO's object detection: `annotations`, each with a bbox (x, y, width, height) of one of the `images`."""
    images, annotations = content.get("images", []), content["annotations"]
    if not all(isinstance(each, list) and all(map(_is, each)) for each in (images, annotations)):
        raise InputError("received 'annotations' or 'images' that are no lists of objects; accepted: COCO's JSON")
    files: dict[str, dict[str, Any]] = {}
    for each in images:
        if files.setdefault(str(each.get("id")), each) is not each:
            raise InputError(f"received the id {short(each.get('id'))} of two 'images'; accepted: one for each")
    rows, sizes = [], {}
    for index, annotation in enumerate(annotations, start=1):
        try:
            box = _from_size(*_numbers(annotation["bbox"]))
        except (KeyError, ValueError, OverflowError):
            received = short(annotation.get("bbox"))
            refuse(f"box {index}", f"bbox {received}", "x, y, width, height")
        identity = str(annotation.get("image_id", ""))
        if identity not in files and (identity or len(files) > 1) and files:
            received = short(annotation.get("image_id"))
            refuse(f"box {index}", f"image_id {received}", "the id of one of 'images'")
        entry = files.get(identity, {})
        name = str(entry.get("file_name", identity))
        if (size := stated_size(entry.get("height"), entry.get("width"))) is not None:
            sizes[name] = size
        further = {key: value for key, value in annotation.items() if key != "bbox"}
        rows.append(ListedBox(box, further, name))
    return rows, sizes


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """An image's (height, width), as numbers or texts state it; None where one is no whole number above 0."""
    try:
        sides = float(height), float(width)
    except (TypeError, ValueError):
        return None
    return (int(sides[0]), int(sides[1])) if all(side > 0 and side.is_integer() for side in sides) else None


def _features(content: Any) -> list | None:
    """The features of GeoJSON, None for something else."""
    if isinstance(content, list):
        return content if content and all(_is(each) and each.get("type") == "Feature" for each in content) else None
    if not isinstance(content, dict) or "type" not in content:
        return None
    if "crs" in content:
        raise InputError("received GeoJSON with a 'crs', in coordinates of a map; accepted: pixels")
    if content["type"] == "FeatureCollection" and isinstance(content.get("features"), list):
        return content["features"]
    return [content if content["type"] == "Feature" else {"geometry": content}]


def _feature(feature: Any, index: int) -> Iterator[ListedBox]:
    """A feature's box: the bounding box of polygons, or a point; of several points, one each."""
    members = feature if _is(feature) else {}
    geometry = members.get("geometry")
    kind = geometry.get("type") if _is(geometry) else None
    try:
        if not _is(geometry) or kind not in _GEOMETRIES:
            raise ValueError
        points = list(_points(geometry.get("coordinates"), _GEOMETRIES.index(kind)))
        if not points:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        received = short(kind if _is(geometry) else geometry)
        accepted = f"{', '.join(_GEOMETRIES)} of pixels x, y"
        refuse(f"box {index}", f"a geometry {received}", accepted)
    properties = members.get("properties")
    further = {key: value for key, value in members.items() if key not in ("type", "geometry", "properties", "bbox")}
    further |= properties if _is(properties) else {}
    if "Point" in kind:
        given = geometry["coordinates"] if kind == "MultiPoint" else [geometry["coordinates"]]
        for (x, y), written in zip(points, given, strict=True):
            yield ListedBox([y, x, y, x], further, "", True, all(map(_is_whole, written[:2])))
    else:
        (left, right), (top, bottom) = ((min(each), max(each)) for each in zip(*points, strict=True))
        yield ListedBox([top, left, bottom, right], further)


def _points(coordinates: Any, depth: int) -> Iterator[tuple[float, float]]:
    """The points x, y of lists of lists; points may have a height."""
    if not isinstance(coordinates, list):
        raise ValueError
    if depth == 0:
        x, y, *_ = map(_number, coordinates)
        yield x, y
        return
    for each in coordinates:
        yield from _points(each, depth - 1)


def _once(names: Sequence[str], what: str) -> None:
    folded = [name.casefold() for name in names]
    twice = next((name for at, name in enumerate(names) if folded[at] in folded[:at]), None)
    if twice is not None:
        raise InputError(f"received the {what} {short(twice)} twice; accepted: once")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        _once(names, "key")
    return dict(pairs)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{cut(text)} is too large a number")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
