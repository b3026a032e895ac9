"""Files of `zoo scan` that are about all images whose results one folder has."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from zoo.files import Output, writing
from zoo.made_by import MadeBy, maker_of


class FolderFiles:
    """Such files, and the images that they are about: those that the same model has scanned by the same options.

    One command may have scanned them, or several. `made_by` says which model and options, and is in the files' record.
    """

    def __init__(
        self, folder: Path, outputs: Sequence[Output], made_by: MadeBy, inputs: Sequence[Path], overwrite: bool
    ):
        """Check, before any work, that they can be written.

        Raises:
            InputError: where files of these names are there, and are not this command's.
        """
        self.folder, self.made_by = folder, made_by
        self.writing = partial(writing, outputs, made_by, inputs, overwrite)
        with self.writing():
            pass

    def scanned(self, record: str, failed: Collection[Path]) -> list[Path]:
        """The folders of those images, as their records of this name say, without those that `failed` now."""
        folders = []
        for each in sorted(self.folder.glob(f"*/{record}")):
            maker = maker_of(each)
            inputs = {} if maker is None else maker.inputs
            same = all(inputs.get(name) == value for name, value in self.made_by.inputs.items())
            if same and each.parent not in failed:
                folders.append(each.parent)
        return folders
