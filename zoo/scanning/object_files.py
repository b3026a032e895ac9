"""The objects of scanned images as files: tables, JSON with what made objects of peaks, and GeoJSON for QuPath."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.files import replacing_all
from zoo.made_by import MadeBy
from zoo.scanning.overlay import palette
from zoo.scanning.summary import Summary
from zoo.scanning.tables import Tables, read_record, write_listed

GEOJSON = "objects.geojson"
OBJECTS = Tables("objects.json", ("objects.csv", "counts.csv"), (GEOJSON,))


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
        return cls(**read_record(folder / OBJECTS.record))

    def rows(self, table: str) -> Iterable[Iterable[Any]]:
        """Its rows of a table; see `zoo.scanning.tables.Tabled`."""
        return self.counts.items() if table == "counts.csv" else (each.values() for each in self.objects)

    def among_others(self) -> dict[str, Any]:
        """What the record of several images says of it."""
        return {"counts": self.counts, "area_shares": self.area_shares}


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
    with replacing_all(folder / OBJECTS.record) as working:
        head = {"type": "FeatureCollection", "made_by": made_by.to_dict()}
        write_listed(working / GEOJSON, head, "features", features)
        OBJECTS.write_tables(working, [image])
        OBJECTS.write_record(working, {**vars(image)}, "objects", made_by)
