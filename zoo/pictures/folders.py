"""Which files of a folder are pictures."""

from dataclasses import dataclass
from pathlib import Path

from zoo.errors import InputError, listing
from zoo.pictures.picture import is_picture

# What systems keep in a folder of their own accord, in small letters.
OF_SYSTEMS = {".ds_store", "._.ds_store", ".localized", ".directory", "thumbs.db", "ehthumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Listing:
    """What a folder holds, in the order of names: its pictures, what is left out as it is none, and what is hidden."""

    pictures: tuple[Path, ...]
    left_out: tuple[Path, ...]
    hidden: tuple[Path, ...] = ()

    @property
    def note(self) -> str:
        """What is left out, as a line: counts and up to three names each; empty where nothing is."""
        kinds = ((self.left_out, "that are no pictures"), (self.hidden, "hidden"))
        texts = [f"{len(paths)} {kind}: {listing(_names(paths), 3)}" for paths, kind in kinds if paths]
        return f"left out {'; '.join(texts)}" if texts else ""


def _names(paths: tuple[Path, ...]) -> list[str]:
    return [f"{path.name}/" if path.is_dir() else path.name for path in paths]


def list_pictures(folder: Path) -> Listing:
    """The pictures of a folder, by their content, whatever their endings; a Zarr folder is one.

    Hidden files and folders, whose names begin with a dot, are left out, and with them the companions that macOS
    writes (`._name`). What systems keep of their own in a folder, such as `.DS_Store` and `Thumbs.db`, is not worth a
    word.

    Raises:
        InputError: where the folder cannot be read.
    """
    try:
        held = sorted(path for path in folder.iterdir() if path.name.lower() not in OF_SYSTEMS)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror})") from None
    visible = {path: is_picture(path) for path in held if not path.name.startswith(".")}
    return Listing(
        tuple(path for path, is_one in visible.items() if is_one),
        tuple(path for path, is_one in visible.items() if not is_one),
        tuple(path for path in held if path not in visible),
    )
