"""Labels in lists: a .csv table, COCO's JSON or a list of our own, GeoJSON as QuPath writes it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.labels.written import Written, reading
from zoo.errors import InputError, listing, refuse
from zoo.pictures.box_forms import ListedBox, json_rows, parse_json, short, table_rows
from zoo.pictures.tables import plain

# Names of what says the class, without case, spaces, "_" and "-"; the first of them that a row has does.
_CLASS = (
    *("class", "classname", "label", "labelname", "category", "categoryname"),
    *("classification", "classid", "labelid", "categoryid"),
)
# What a table has for COCO's iscrowd where it is not set.
_NOT_SET = ("", "0", "0.0", "false", "none", "no")


def read_list(path: Path) -> dict[str, Written]:
    """The labels of a .csv, .json or .geojson file, by what it calls their images: "" where it does not say.

    A .csv file, separated by commas, semicolons or tabs, has a header: `x`, `y` of points, or the columns of
    `zoo.scanning.boxes.read_boxes`; `class`; and `image`, where it is of several. COCO's classes are its categories,
    and an image that it lists without annotations is one without objects. GeoJSON's are `classification.name` of the
    properties; a polygon is its bounding box. Where a file has points alone, none with a decimal point, these are
    indices of pixels, and the objects at the pixels' centres.

    Raises:
        InputError: naming the file and the first entry at fault; see `read_boxes`.
    """
    with reading(path) as name:
        try:
            text = path.read_text(encoding="utf-8-sig")
            if path.suffix.lower() == ".csv":
                return _by_image(table_rows(text, points=True), {}, ())
            content = parse_json(text)
            rows, sizes = json_rows(content, points=True)
            if isinstance(content, dict) and "annotations" in content:
                images = [str(each.get("file_name", each.get("id"))) for each in content.get("images", [])]
                return _by_image(_with_categories(rows, content.get("categories") or []), sizes, images)
            return _by_image(rows, sizes, ())
        except csv.Error as error:
            raise InputError(f"{name}: broken ({error})") from None


def _by_image(rows: list[ListedBox], sizes: dict[str, tuple[int, int]], listed: Sequence[str]) -> dict[str, Written]:
    """The rows of each image, and those that are listed without any."""
    names = dict.fromkeys([row.image for row in rows] + list(listed))
    if "" in names and len(names) > 1:
        index = [row.image for row in rows].index("") + 1
        other = next(name for name in names if name)
        refuse(f"object {index}", f"no image, others are of {short(other)}", "one for each object")
    # Half a pixel takes the index of a pixel to its centre.
    moved = 0.5 if rows and all(row.is_point and row.is_whole for row in rows) else 0.0
    of_images: dict[str, list[tuple[ListedBox, str]]] = {name: [] for name in names or {"": None}}
    for index, row in enumerate(rows, start=1):
        if not np.isfinite(row.sides).all():
            refuse(f"object {index}", short(row.sides), "coordinates in pixels")
        of_images[row.image].append((row, _class(row.further, index)))
    return {
        name: Written.of(
            [np.add(row.sides, moved) for row, _ in its],
            [class_name for _, class_name in its],
            [row.is_point for row, _ in its],
            sizes.get(name),
            [str(row.further.get("iscrowd", "")).strip().casefold() not in _NOT_SET for row, _ in its],
        )
        for name, its in of_images.items()
    }


def _class(further: dict[str, Any], index: int) -> str:
    """The class of an entry, from what it says beside its place."""
    found = further.get("classification")
    if isinstance(found, dict):
        # Of a derived class, QuPath writes the parts.
        name, parts = found.get("name"), found.get("names")
        found = ": ".join(map(str, parts)) if name is None and isinstance(parts, list) else name or ""
    else:
        by_name = {plain(str(key)): value for key, value in further.items()}
        found = next((by_name[key] for key in _CLASS if by_name.get(key) is not None), "")
    if not isinstance(found, str | int) or isinstance(found, bool):
        refuse(f"object {index}", f"class {short(found)}", "a name")
    return str(found).strip()


def _with_categories(rows: list[ListedBox], categories: Any) -> list[ListedBox]:
    """COCO's rows with the names of their categories for their ids; the ids are the names where none are listed."""
    if not isinstance(categories, list) or not all(isinstance(each, dict) for each in categories):
        raise InputError("received 'categories' that are no list of objects; accepted: COCO's JSON")
    names: dict[str, str] = {}
    for each in categories:
        name = str(each.get("name", each.get("id")))
        if names.setdefault(str(each.get("id")), name) != name:
            raise InputError(f"received the id {short(each.get('id'))} of two 'categories'; accepted: one for each")
    named = []
    for index, row in enumerate(rows, start=1):
        identity = str(row.further.get("category_id", ""))
        if names and identity not in names:
            refuse(f"object {index}", f"category_id {short(identity)}", f"one of 'categories' ({listing([*names])})")
        named.append(
            row._replace(further={"class": names.get(identity, identity), "iscrowd": row.further.get("iscrowd")})
        )
    return named
