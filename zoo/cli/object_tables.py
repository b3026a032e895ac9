"""What `zoo scan` says of objects and counts, and the tables of all images in one folder."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import writing
from zoo.made_by import MadeBy, maker_of
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


class FolderTables:
    """The tables of all images that a folder has the results of, and their record.

    These are the ones that the same model has scanned by the same options, in one command or in several.
    """

    def __init__(self, scanner: "Scanner", tables: "Tables", folder: Path, inputs: Sequence[Path], overwrite: bool):
        """Check, before any work, that they can be written.

        Raises:
            InputError: where files of these names are there, and are not this command's.
        """
        self._folder, self._tables, self._inputs, self._overwrite = folder, tables, inputs, overwrite
        self._made_by = MadeBy("zoo scan", {**scanner.for_all_images, **asked_of(scanner)})
        with self._writing():
            pass

    def _writing(self) -> Any:
        return writing(self._tables.outputs(self._folder, True), self._made_by, self._inputs, self._overwrite)

    def write(self, failed: Collection[Path]) -> dict[str, float]:
        """Write them, without the folders of images that `failed` now, and tell the user about all together.

        Returns how many objects of each class all have together; nothing where no image has results.
        """
        from zoo.scanning.count_files import COUNTS, ImageCounts
        from zoo.scanning.object_files import ImageObjects

        read = ImageCounts.read if self._tables is COUNTS else ImageObjects.read
        there = folders_of(self._folder, self._tables.record, self._made_by)
        folders = [folder for folder in there if folder not in failed]
        if not folders:
            return {}
        with self._writing():
            total = self._tables.write_all(self._folder, map(read, folders), self._made_by)
        say(f"{len(folders)} images:")
        say(aligned([("class", "objects"), *((name, _number(count)) for name, count in total.items())]))
        say(f"wrote {' and '.join(str(self._folder / name) for name in self._tables.names)}")
        return total


def folders_of(folder: Path, record: str, made_by: MadeBy) -> Iterator[Path]:
    """The folders of images in `folder` that the same model has scanned by the same options, as their records say."""
    for each in sorted(folder.glob(f"*/{record}")):
        maker = maker_of(each)
        if maker is not None and all(maker.inputs.get(name) == value for name, value in made_by.inputs.items()):
            yield each.parent


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
