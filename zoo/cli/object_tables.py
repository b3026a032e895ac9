"""What `zoo scan` says of objects and counts, and the tables of all images in one folder."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.folder_files import FolderFiles
from zoo.made_by import MadeBy
from zoo.progress import aligned, say

if TYPE_CHECKING:
    from zoo.scanning.count_files import ImageCounts
    from zoo.scanning.object_files import ImageObjects
    from zoo.scanning.scan import Scanner
    from zoo.scanning.tables import Tables


def asked_of(scanner: "Scanner") -> dict[str, Any]:
    """What objects or counts are made by, beside the scores, in a scan's record; empty where there are none."""
    if scanner.counts:
        return {"target": "count"}
    if not scanner.cell_classes.find_objects:
        return {}
    peaks = {name: rule.model_dump() for name, rule in scanner.cell_classes.peaks.items()}
    return {"objects": {"background": scanner.cell_classes.background, "peaks": peaks}}


def tables_of(scanner: "Scanner") -> "Tables | None":
    """The tables of its images: those of objects, of a counter those of counts; None where there are none."""
    from zoo.scanning.count_files import COUNTS
    from zoo.scanning.object_files import OBJECTS

    if scanner.counts:
        return COUNTS
    return OBJECTS if scanner.cell_classes.find_objects else None


class FolderTables(FolderFiles):
    """The tables of all images that a folder has the results of, and their record."""

    def __init__(self, tables: "Tables", folder: Path, made_by: MadeBy, inputs: Sequence[Path], overwrite: bool):
        """Check, before any work, that they can be written."""
        super().__init__(folder, tables.outputs(folder, True), made_by, inputs, overwrite)
        self._tables = tables

    def write(self, failed: Collection[Path]) -> dict[str, float]:
        """Write them, without the folders of images that `failed` now, and tell the user about all together.

        Returns how many objects of each class all have together; nothing where no image has results.
        """
        from zoo.scanning.count_files import COUNTS, ImageCounts
        from zoo.scanning.object_files import ImageObjects

        read = ImageCounts.read if self._tables is COUNTS else ImageObjects.read
        folders = self.scanned(self._tables.record, failed)
        if not folders:
            return {}
        with self.writing():
            total = self._tables.write_all(self.folder, map(read, folders), self.made_by)
        say(f"{len(folders)} images:")
        say(aligned([("class", "objects"), *((name, _number(count)) for name, count in total.items())]))
        say(f"wrote {' and '.join(str(self.folder / name) for name in self._tables.names)}")
        return total


def say_objects(image: "ImageObjects") -> None:
    """Print a table of the objects of an image: by class their number, share of cells, and threshold."""
    rows = [
        (name, str(count), f"{image.area_shares[name]:.1%}", f"{image.peaks[name]['threshold']:.3g}")
        for name, count in image.counts.items()
    ]
    say(aligned([("class", "objects", "share of cells", "threshold"), *rows]))


def say_counts(image: "ImageCounts") -> None:
    """Print a table of the counts of an image: by class the number of objects, and the largest density."""
    rows = [
        (name, _number(count), f"{image.largest_density[name]:.3g} {image.density_unit}")
        for name, count in image.counts.items()
    ]
    say(aligned([("class", "objects", "largest density"), *rows]))
    if image.approximate:
        say(f"the counts are approximate: {'; '.join(image.approximate)}")


def _number(count: float) -> str:
    """How many objects there are, of a counter to a tenth."""
    return str(count) if isinstance(count, int) else f"{count:.1f}"
