"""What `zoo scan` says of objects, and the tables of all images in one folder."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import writing
from zoo.made_by import MadeBy, maker_of
from zoo.progress import aligned, say

if TYPE_CHECKING:
    from zoo.objects.cell_classes import CellClasses
    from zoo.scanning.object_files import ImageObjects
    from zoo.scanning.scan import Scanner


def asked_of(cell_classes: "CellClasses") -> dict[str, Any]:
    """What makes objects, beside the scores, as a scan's record holds it; nothing of a model that has none."""
    if not cell_classes.find_objects:
        return {}
    peaks = {name: rule.model_dump() for name, rule in cell_classes.peaks.items()}
    return {"objects": {"background": cell_classes.background, "peaks": peaks}}


class FolderTables:
    """objects.csv, counts.csv and objects.json of all images that a folder has the results of.

    These are the ones that the same model has scanned by the same options, in one command or in several.
    """

    def __init__(self, scanner: "Scanner", folder: Path, inputs: Sequence[Path], overwrite: bool):
        """Check, before any work, that they can be written.

        Raises:
            InputError: where files of these names are there, and are not this command's.
        """
        self._folder, self._inputs, self._overwrite = folder, inputs, overwrite
        self._made_by = MadeBy("zoo scan", {**scanner.for_all_images, **asked_of(scanner.cell_classes)})
        with self._writing():
            pass

    def _writing(self) -> Any:
        from zoo.scanning import object_files

        return writing(object_files.outputs(self._folder, True), self._made_by, self._inputs, self._overwrite)

    def write(self, failed: Collection[Path]) -> None:
        """Write them, without the folders of images that `failed` now, and tell the user about all together."""
        from zoo.scanning import object_files

        there = folders_of(self._folder, object_files.RECORD, self._made_by)
        folders = [folder for folder in there if folder not in failed]
        if not folders:
            return
        with self._writing():
            images = map(object_files.ImageObjects.read, folders)
            total = object_files.write_all(self._folder, images, self._made_by)
        say(f"{len(folders)} images:")
        say(aligned([("class", "objects"), *((name, str(count)) for name, count in total.items())]))
        say(f"wrote {' and '.join(str(self._folder / name) for name in object_files.TABLES)}")


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
