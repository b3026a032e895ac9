"""Which files of a folder are pictures."""

from dataclasses import dataclass
from pathlib import Path

from zoo.errors import InputError, listing
from zoo.pictures.picture import is_picture


@dataclass(frozen=True)
class Listing:
    """What a folder holds, in the order of names: its pictures, and what is left out as it is none."""

    pictures: tuple[Path, ...]
    left_out: tuple[Path, ...]

    @property
    def note(self) -> str:
        """What is left out, as a line: a count and up to three names; empty where nothing is."""
        names = [f"{path.name}/" if path.is_dir() else path.name for path in self.left_out]
        return f"left out {len(names)} that are no pictures: {listing(names, 3)}" if names else ""


def list_pictures(folder: Path) -> Listing:
    """The pictures of a folder, by their content, whatever their endings; a Zarr folder is one.

    Hidden files are passed over, and with them the companions that macOS writes (`._name`).

    Raises:
        InputError: where the folder cannot be read.
    """
    try:
        shown = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror})") from None
    found = {path: is_picture(path) for path in shown}
    return Listing(
        tuple(path for path, is_one in found.items() if is_one),
        tuple(path for path, is_one in found.items() if not is_one),
    )
