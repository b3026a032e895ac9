"""What a counter says of scanned images as files: a table of counts, and JSON with what they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.files import replacing_all
from zoo.made_by import MadeBy
from zoo.scanning.density import Density, density_unit, why_approximate
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.tables import Tables, read_record

DENSITY = "density.png"
COUNTS = Tables("counts.json", ("counts.csv",), (DENSITY,))
# Digits after the point: fewer than what float32 scores add up to, and more than any counter is right to.
_DIGITS = 3


@dataclass(frozen=True)
class ImageCounts:
    """The counts of one image, as its files hold them.

    `image`: its file's name. `image_size`: (height, width) in pixels. `scale`: scanned pixels for each of the image's,
    (vertical, horizontal). `pixel_size`: that of the image in micrometres, None where not known. `counts`: by class,
    how many objects there are. `largest_density`: by class, the largest of a cell, in `density_unit`. `approximate`:
    why the counts of true numbers would not be exact (see `zoo.scanning.density.why_approximate`).
    """

    image: str
    image_size: tuple[int, int]
    scale: tuple[float, float]
    pixel_size: tuple[float, float] | None
    counts: dict[str, float]
    largest_density: dict[str, float]
    density_unit: str
    approximate: list[str]

    @classmethod
    def of(cls, image: str, score_map: ScoreMap, density: Density) -> "ImageCounts":
        """Those of a map that was read."""
        by, unit = density_unit(score_map)
        largest = {name: by * density.largest(index) for index, name in enumerate(score_map.class_names)}
        return cls(
            image,
            score_map.image_size,
            score_map.scale,
            score_map.pixel_size,
            density.counts,
            largest,
            unit,
            list(why_approximate(score_map)),
        )

    @classmethod
    def read(cls, folder: Path) -> "ImageCounts":
        """Those of a folder that `write` wrote."""
        return cls(**read_record(folder / COUNTS.record))

    def rows(self, table: str) -> Iterable[Iterable[Any]]:
        """Its rows of the table, with a point in every number; see `zoo.scanning.tables.Tabled`."""
        return ((name, f"{count:.{_DIGITS}f}") for name, count in self.counts.items())

    def among_others(self) -> dict[str, Any]:
        """What the record of several images says of it."""
        return {"counts": self.counts, "approximate": self.approximate}


def write(folder: Path, image: ImageCounts, made_by: MadeBy) -> None:
    """Write the counts of an image into its folder: counts.json and counts.csv."""
    with replacing_all(folder / COUNTS.record) as working:
        COUNTS.write_tables(working, [image])
        COUNTS.write_record(working, {**vars(image)}, "approximate", made_by)
