"""The objects of scanned images as files: tables, JSON with what made objects of peaks, and GeoJSON for QuPath."""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.files import Output, remove, replacing_all
from zoo.made_by import MadeBy, key_of, maker_of
from zoo.scanning.overlay import palette
from zoo.scanning.summary import Summary

# The record names who made the tables, which have no room for that.
RECORD, TABLES, GEOJSON = "objects.json", ("objects.csv", "counts.csv"), "objects.geojson"


@dataclass(frozen=True)
class ImageObjects:
    """The objects of one image, as its files hold them.

    `image`: its file's name. `image_size`: (height, width) in pixels. `scale`: scanned pixels for each of the image's,
    (vertical, horizontal). `pixel_size`: that of the image in micrometres, None where not known. `background`: the
    class that stands for nothing. `peaks`: by class, the least probability (`threshold`), how far apart objects are at
    least (`distance`) and how far from the border (`margin`), in pixels that are scanned. `counts`: by class, how many
    objects there are. `area_shares`: by class, the share of the scanned grid cells whose middle lies in the image.
    `objects`: a dict each, by falling score, with `class`, `score`, and the place `x`, to the right, and `y`, down, in
    continuous pixels of the image: the centre of the first one is (0.5, 0.5).
    """

    image: str
    image_size: tuple[int, int]
    scale: tuple[float, float]
    pixel_size: tuple[float, float] | None
    background: str | None
    peaks: dict[str, dict[str, float]]
    counts: dict[str, int]
    area_shares: dict[str, float]
    objects: list[dict[str, Any]]

    @classmethod
    def of(cls, image: str, summary: Summary) -> "ImageObjects":
        """Those that were found in a map, of a model that knows a background."""
        score_map, found, cells = summary.score_map, summary.found, max(summary.cells, 1)
        assert found is not None
        names, rules = score_map.class_names, score_map.peak_finder()
        return cls(
            image,
            score_map.image_size,
            score_map.scale,
            score_map.pixel_size,
            score_map.background,
            {names[index]: rules.rule(index).model_dump() for index in score_map.cell_classes.objects},
            score_map.counts_of(found),
            {names[index]: int(summary.wins[index]) / cells for index in score_map.cell_classes.objects},
            [
                {"class": names[index], "score": round(score, 6), "x": round(x, 3), "y": round(y, 3)}
                for index, score, (y, x) in zip(
                    found.classes.tolist(), found.scores.tolist(), found.centres.tolist(), strict=True
                )
            ],
        )

    @classmethod
    def read(cls, folder: Path) -> "ImageObjects":
        """Those of a folder that `write` wrote."""
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        del content["made_by"]
        return cls(**content)


def outputs(folder: Path, of_many: bool = False) -> list[Output]:
    """The files of objects in the folder of an image, or those `of_many` in the folder of all of them."""
    record = folder / RECORD
    others = [] if of_many else [Output(folder / GEOJSON)]
    return [Output(record), *others, *(Output(folder / name, owner=record) for name in TABLES)]


def discard(folder: Path, kept: Collection[Path]) -> None:
    """Remove the files of objects that a scan left in a folder, but for those that are `kept`."""
    maker = maker_of(folder / RECORD)
    if folder / RECORD in kept or maker is None or maker.command != "zoo scan":
        return
    own = [name for name in TABLES if (folder / name).is_file() and maker.beside.get(name) == key_of(folder / name)]
    for name in (*own, GEOJSON, RECORD):
        remove(folder / name)


def write(folder: Path, image: ImageObjects, class_names: Sequence[str], made_by: MadeBy) -> None:
    """Write the objects of an image into its folder: objects.csv, objects.geojson, objects.json and counts.csv."""
    colours = np.round(255 * palette(len(class_names))).astype(int).tolist()
    features = (
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [each["x"], each["y"]]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": each["class"], "color": colours[class_names.index(each["class"])]},
                "measurements": {"score": each["score"]},
            },
        }
        for each in image.objects
    )
    with replacing_all(folder / RECORD) as working:
        head = {"type": "FeatureCollection", "made_by": made_by.to_dict()}
        _write_listed(working / GEOJSON, head, "features", features)
        _write_tables(working, [image])
        _write_record(working, {**vars(image)}, "objects", made_by)


def write_all(folder: Path, images: Iterable[ImageObjects], made_by: MadeBy) -> dict[str, int]:
    """Write objects.csv and counts.csv of several images, and objects.json: the counts of all together and of each.

    The images are taken one after the other. Returns how many objects of each class all have together.
    """
    each_one: list[dict[str, Any]] = []
    total: dict[str, int] = {}

    def noted() -> Iterator[ImageObjects]:
        for image in images:
            each_one.append({"image": image.image, "counts": image.counts, "area_shares": image.area_shares})
            total.update({name: total.get(name, 0) + count for name, count in image.counts.items()})
            yield image

    with replacing_all(folder / RECORD) as working:
        _write_tables(working, noted())
        _write_record(working, {"counts": total, "images": each_one}, "images", made_by)
    return total


def _write_tables(folder: Path, images: Iterable[ImageObjects]) -> None:
    """Write the two tables; a file's name that is no text is written as it is."""
    with ExitStack() as opened:
        objects, counts = (
            csv.writer(
                opened.enter_context((folder / name).open("w", encoding="utf-8", errors="surrogateescape", newline="")),
                lineterminator="\n",
            )
            for name in TABLES
        )
        objects.writerow(["image", "class", "score", "x", "y"])
        counts.writerow(["image", "class", "count"])
        for image in images:
            objects.writerows([image.image, *each.values()] for each in image.objects)
            counts.writerows([image.image, *each] for each in image.counts.items())


def _write_record(folder: Path, record: dict[str, Any], key: str, made_by: MadeBy) -> None:
    """Write the record with its list `key` last; it answers for the tables (see `zoo.files.Output`)."""
    made_by = replace(made_by, beside={name: key_of(folder / name) for name in TABLES})
    head = {name: value for name, value in record.items() if name != key}
    _write_listed(folder / RECORD, {**head, "made_by": made_by.to_dict()}, key, record[key])


def _write_listed(path: Path, head: dict[str, Any], key: str, items: Iterable[Any]) -> None:
    """Write a JSON object with a long list at its end, of which each item has a line."""
    first = json.dumps(head, indent=2, allow_nan=False).removesuffix("\n}")
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{first},\n  "{key}": [')
        for index, item in enumerate(items):
            file.write(f"{',' if index else ''}\n{json.dumps(item, allow_nan=False)}")
        file.write("\n]\n}\n")
