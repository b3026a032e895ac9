"""Image folders by their names alone: parts, classes, image files, specimens, what is left out. No file is opened."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.classes import class_list, normal
from zoo.config.sources import SOURCES
from zoo.data.faults import Fault, fault, plain
from zoo.errors import InputError, listing, quoted, refuse

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_VALIDATION = ("val", "valid", "validation")


@dataclass(frozen=True)
class ImageFile:
    """An image file: where it is, its class, its path below the folder, and what `data.group` finds in that."""

    path: Path
    label: int
    name: str
    specimen: str | None = None


@dataclass(frozen=True)
class ClassFolders:
    """An image folder: one folder a class, once or in several parts.

    `class_names`: in Unicode's composed form (NFC). `stored_names`: as the file system has them. `parts`: the image
    files, by the folder they are of, train, test and perhaps one for validation; a folder without parts has one: "".
    `validation`: the name of the part that is for validation. `faults`: what is left out.
    """

    class_names: tuple[str, ...]
    stored_names: tuple[str, ...]
    parts: dict[str, list[ImageFile]]
    validation: str | None
    faults: tuple[Fault, ...]


@dataclass
class _LeftOut:
    """The names of what is left out, by why."""

    hidden: list[str] = field(default_factory=list)
    ending: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

    def faults(self) -> tuple[Fault, ...]:
        """A fault for each reason."""
        endings = ", ".join(SUFFIXES)
        return (
            *fault("left out", "hidden items", "are left out", self.hidden),
            *fault("left out", "files", f"are left out for an ending other than {endings}", self.ending),
            *fault("left out", "items", "are left out, being no file", self.special),
            *fault("left out", "items", "are left out, being in no class folder", self.beside),
        )


def read_class_folders(root: Path, group: str | None = None) -> ClassFolders:
    """Find out what an image folder holds.

    It holds train/ and test/, and perhaps one of val/, valid/ and validation/, each with one folder a class; or the
    class folders themselves. Names that differ only in how Unicode writes their accents are one class.

    Args:
        root: the folder.
        group: a regular expression, searched in each file's path below `root`, with / between folders.

    Raises:
        InputError: naming the folder or file, for other folders than these, classes that differ between the parts,
            folders inside class folders, a class without images, or a file in whose path `group` finds nothing.
    """
    if not root.is_dir():
        refuse("data.dir", quoted(str(root)), SOURCES["image_folder"].dir)
    left_out = _LeftOut()
    parts, validation = _parts(root, left_out)
    folders = {part: _class_folders(root / part, root, left_out) for part in parts}
    first = parts[0]
    for part in parts[1:]:
        if surplus := {*folders[part]} - {*folders[first]}:
            difference = map(plain, sorted(surplus | {*folders[first]} - {*folders[part]}))
            raise InputError(
                f"{root}: {first}/ and {part}/ have different classes (in one only: {listing([*difference], 3)})"
            )
    class_names = class_list(folders[first], str(root))
    files: dict[str, list[ImageFile]] = {}
    for part in parts:
        by_class = [
            [path for folder in folders[part].get(name, []) for path in _images(folder, root, left_out)]
            for name in class_names
        ]
        if part == first:
            _check_filled(folders[part], by_class)
        files[part] = _files(root, by_class, group)
    stored_names = tuple(folders[first][name][0].name for name in class_names)
    return ClassFolders(class_names, stored_names, files, validation, left_out.faults())


def _parts(root: Path, left_out: _LeftOut) -> tuple[list[str], str | None]:
    """The folders that are parts, train first; [""] where the class folders lie in `root` itself."""
    entries = _shown(root, root, left_out)
    validations = [path.name for path in entries if path.name in _VALIDATION and path.is_dir()]
    if all((root / part).is_dir() for part in ("train", "test")):
        if len(validations) > 1:
            raise InputError(f"{root}: has {_slashed(validations)}; accepted: one of them")
        parts = ["train", *validations, "test"]
        left_out.beside += [_name(path, root) for path in entries if path.name not in parts]
        return parts, validations[0] if validations else None
    # A class may be called train, but then it holds images, not folders.
    parts = [part for part in ("train", *validations, "test") if _subfolders(root / part)]
    if parts:
        missing = [part for part in ("train", "test") if part not in parts]
        raise InputError(
            f"{root}: has {_slashed(parts)} but no {_slashed(missing)}; accepted: train/ and test/, with or without "
            "val/, or class folders alone"
        )
    return [""], None


def _class_folders(root: Path, base: Path, left_out: _LeftOut) -> dict[str, list[Path]]:
    """The folders of each class; more than one where the names differ in their Unicode form alone."""
    # The folder itself was looked through before, where it has no parts.
    entries = _shown(root, base, left_out if root != base else _LeftOut())
    left_out.beside += [_name(path, base) for path in entries if not path.is_dir()]
    folders = defaultdict(list)
    for path in entries:
        if path.is_dir():
            folders[normal(path.name)].append(path)
    if not folders:
        raise InputError(f"{root}: has no folders; accepted: one folder a class")
    return dict(folders)


def _images(folder: Path, base: Path, left_out: _LeftOut) -> list[Path]:
    """The image files of a class folder."""
    images, nested = [], []
    for path in _shown(folder, base, left_out):
        if path.is_dir():
            nested.append(path)
        elif path.suffix.lower() not in SUFFIXES:
            left_out.ending.append(_name(path, base))
        elif path.is_file() or path.is_symlink():
            images.append(path)
        else:
            left_out.special.append(_name(path, base))
    if nested:
        others = f" (and {len(nested) - 1} more)" if len(nested) > 1 else ""
        raise InputError(f"{nested[0]}: a folder inside a class folder{others}; accepted: image files")
    return images


def _check_filled(folders: dict[str, list[Path]], by_class: Sequence[Sequence[Path]]) -> None:
    """Check that every class has images, where they are what is trained on."""
    empty = [paths[0] for paths, images in zip(folders.values(), by_class, strict=True) if not images]
    if empty:
        others = len(_shown(empty[0], empty[0], _LeftOut()))
        ignored = f" (only {others} other files)" if others else ""
        more = f", like {listing([path.name for path in empty[1:]], 2)}" if len(empty) > 1 else ""
        raise InputError(f"{empty[0]}: has no images{ignored}{more}; accepted: {', '.join(SUFFIXES)}")


def _files(root: Path, by_class: Sequence[Sequence[Path]], group: str | None) -> list[ImageFile]:
    files = []
    for label, paths in enumerate(by_class):
        for path in paths:
            name = path.relative_to(root).as_posix()
            files.append(ImageFile(path, label, name, None if group is None else specimen_of(group, name)))
    check_specimens(group, {file.name: file.specimen for file in files})
    return files


def check_specimens(group: str | None, found: dict[str, str | None]) -> None:
    """Check that `group` finds a specimen in the path of every image.

    Raises:
        InputError: naming those where it does not.
    """
    if unnamed := [name for name, specimen in found.items() if specimen == ""]:
        raise InputError(
            f"data.group: {quoted(group)} finds no specimen in {len(unnamed):,} of {len(found):,} paths "
            f"({listing([*map(plain, unnamed)], 3)}); accepted: a regular expression that does in each"
        )


def specimen_of(group: str, name: str) -> str:
    """The first group that `group` finds in a name, else its whole match; empty where it finds nothing."""
    match = re.search(normal(group), normal(name))
    if match is None:
        return ""
    return match[1] if match.re.groups and match[1] is not None else match[0]


def _shown(folder: Path, base: Path, left_out: _LeftOut) -> list[Path]:
    """What a folder holds, in the order of names, without what is hidden."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror})") from None
    left_out.hidden += [_name(path, base) for path in entries if path.name.startswith(".")]
    return [path for path in entries if not path.name.startswith(".")]


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in _shown(folder, folder, _LeftOut()) if path.is_dir()] if folder.is_dir() else []


def _name(path: Path, base: Path) -> str:
    """A path below `base`, with a slash at the end of a folder's."""
    return path.relative_to(base).as_posix() + ("/" if path.is_dir() else "")


def _slashed(names: Sequence[str]) -> str:
    return " and ".join(f"{name}/" for name in names)
