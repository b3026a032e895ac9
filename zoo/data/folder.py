"""Image folders: one folder a class, decoded when asked for."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from zoo.classes import class_list, normal
from zoo.config import Config
from zoo.data.splits import IN_MEMORY, Source, Split, check_classes
from zoo.errors import InputError, listing
from zoo.images import decode, fit_image, quiet, stored_dtype, to_channels
from zoo.progress import track

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_THREADS = 4
_CHUNK = 64


@dataclass(frozen=True)
class File:
    """An image file: the SHA-256 of its content, its class, its path, and the type of its samples."""

    digest: str
    label: int
    path: Path
    dtype: np.dtype

    @property
    def draw(self) -> float:
        """A number in [0, 1) that is a function of the content alone."""
        return int(self.digest[:13], 16) / 16**13


@dataclass(frozen=True)
class Unreadable:
    """An image file that cannot be decoded, and why."""

    path: Path
    problem: str


class FolderImages:
    """Random access to image files at the model's size: (N, h, w, C)."""

    def __init__(self, files: list[File], config: Config):
        """Take the files, and the config whose model's size, channels and fill value apply."""
        self._files, self._config = files, config
        model = config.model
        self.shape = (len(files), *model.image_size, model.channels)
        self.dtype = files[0].dtype if files else np.dtype(np.uint8)

    def __len__(self) -> int:
        """How many images."""
        return len(self._files)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """Decode images (n, h, w, C), several at a time."""
        images, problems = self.read(index)
        if problems:
            raise _refusal(problems)
        return images

    def read(self, index: np.ndarray | slice) -> tuple[np.ndarray, list[Unreadable]]:
        """Decode images (n, h, w, C), and say which of them cannot be; their places hold anything."""
        files = [self._files[i] for i in np.arange(len(self))[index]]
        images, problems = np.empty((len(files), *self.shape[1:]), self.dtype), []
        with quiet(), ThreadPoolExecutor(_THREADS) as pool:
            for place, image in enumerate(pool.map(self._read, files)):
                if isinstance(image, Unreadable):
                    problems.append(image)
                else:
                    images[place] = image
        return images, problems

    def _read(self, file: File) -> np.ndarray | Unreadable:
        model = self._config.model
        try:
            image = decode(_content(file.path), file.path)
        except InputError as error:
            return Unreadable(file.path, str(error))
        image = to_channels(image, model.channels, f"image {file.path}")
        return fit_image(image, model.image_size, self._config.data.resize, model.preprocess.mean)


def read_folder(config: Config) -> Source:
    """A folder with train/ and test/, each with one folder a class; or with the class folders themselves.

    In the second case a file is a test image where a number in [0, 1) drawn from its content's SHA-256 is below
    `data.test`, so that adding or renaming files moves no other. Training images are in the order of their content's
    hashes. PNG, JPEG, BMP and TIFF, all of 8 or all of 16 bits; hidden files and other suffixes are ignored.

    Files that cannot be decoded are refused together, or with `data.unreadable` = "skip" left out and named in the
    result, for which every file is decoded once more.

    Raises:
        InputError: naming the folder or file.
    """
    root, share = config.data.dir, config.data.test
    if not root.is_dir():
        raise InputError(f"data.dir: received {str(root)!r}; accepted: a folder with one folder a class")
    train, test = root / "train", root / "test"
    note = "test split used once"
    if train.is_dir() and test.is_dir():
        class_names = _class_names(train)
        if (others := _class_names(test)) != class_names:
            difference = ", ".join(sorted({*class_names} ^ {*others}))
            raise InputError(f"{root}: train/ and test/ have different classes (in one only: {difference})")
        check_classes(config, class_names)
        (train_files, train_problems), (test_files, test_problems) = (
            _files(folder, class_names, config) for folder in (train, test)
        )
        problems = train_problems + test_problems
    else:
        class_names = _class_names(root)
        for only, other in ((train, test), (test, train)):
            if only.is_dir() and _folders(only):
                raise InputError(
                    f"{root}: has {only.name}/ but no {other.name}/; accepted: both, or class folders alone"
                )
        check_classes(config, class_names)
        files, problems = _files(root, class_names, config)
        train_files = [file for file in files if file.draw >= share]
        test_files = [file for file in files if file.draw < share]
        note = f"test images ({share:.0%}) chosen by content hash, used once"
    _check_dtypes([*train_files, *test_files])
    digests = _fingerprint(class_names, train_files, test_files), _fingerprint(class_names, test_files)
    (train_split, broken), (test_split, more) = (_split(files, config) for files in (train_files, test_files))
    if broken or more or problems and config.data.unreadable == "refuse":
        raise _refusal(problems + broken + more)
    skipped = tuple(str(problem.path.relative_to(root)) for problem in problems)
    return Source(class_names, train_split, test_split, *digests, note, skipped)


def _fingerprint(class_names: tuple[str, ...], *parts: list[File]) -> str:
    content = [class_names, *([(file.digest, file.label) for file in part] for part in parts)]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _split(files: list[File], config: Config) -> tuple[Split, list[Unreadable]]:
    """The images of files, in memory where they are few, and those that are found to be broken on the way."""
    images, problems = FolderImages(files, config), []
    if np.prod(images.shape, dtype=np.int64) * images.dtype.itemsize <= IN_MEMORY:
        decoded = np.empty(images.shape, images.dtype)
        for start in track(range(0, len(files), _CHUNK), "decoding images"):
            decoded[start : start + _CHUNK], some = images.read(slice(start, start + _CHUNK))
            problems += some
        images = decoded
    return Split(images, np.array([file.label for file in files], np.int32)), problems


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_names(root: Path) -> tuple[str, ...]:
    folders = _folders(root)
    if not folders:
        raise InputError(f"{root}: has no folders; accepted: one folder a class")
    return tuple(sorted(class_list((path.name for path in folders), str(root))))


def _files(root: Path, class_names: Sequence[str], config: Config) -> tuple[list[File], list[Unreadable]]:
    """The image files below the class folders, in the order of their content's hashes, and those to leave out."""
    folders = {normal(folder.name): folder for folder in _folders(root)}
    places = [(path, label) for label, name in enumerate(class_names) for path in _image_paths(folders[name])]
    skip = config.data.unreadable == "skip"
    with quiet(), ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(partial(_file, whole=skip), places)
        found = list(track(found, "reading image files", len(places)))
    problems = sorted((each for each in found if isinstance(each, Unreadable)), key=lambda each: each.path)
    files = [each for each in found if isinstance(each, File)]
    if missing := set(range(len(class_names))) - {file.label for file in files}:
        empty = folders[class_names[min(missing)]]
        problem = next(each.problem for each in problems if each.path.parent == empty)
        raise InputError(f"{empty}: none of its images can be read ({problem})")
    return sorted(files, key=lambda file: (file.digest, file.label, file.path)), problems


def _refusal(problems: list[Unreadable]) -> InputError:
    first, *others = problems
    count = f"; and {listing([str(each.path) for each in others])}: {len(problems)} images in all" if others else ""
    return InputError(f"{first.problem}{count}; data.unreadable=skip leaves out what cannot be read")


def _image_paths(folder: Path) -> list[Path]:
    shown = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if nested := [path for path in shown if path.is_dir()]:
        raise InputError(f"{nested[0]}: a folder inside a class folder; accepted: image files")
    images = [path for path in shown if path.suffix.lower() in _SUFFIXES]
    if not images:
        ignored = f" (only {len(shown)} other files)" if shown else ""
        raise InputError(f"{folder}: has no images{ignored}; accepted: {', '.join(_SUFFIXES)}")
    return images


def _file(place: tuple[Path, int], whole: bool) -> File | Unreadable:
    """Read a file's content and header, and, with `whole`, see that its image decodes."""
    path, label = place
    try:
        content = _content(path)
        if whole:
            decode(content, path)
        return File(hashlib.sha256(content).hexdigest(), label, path, stored_dtype(content, path))
    except InputError as error:
        return Unreadable(path, str(error))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"image {path}: cannot be read ({error.strerror})") from None


def _check_dtypes(files: list[File]) -> None:
    for file in files:
        if file.dtype != files[0].dtype:
            bits = [8 * each.dtype.itemsize for each in (files[0], file)]
            raise InputError(
                f"image {file.path}: has {bits[1]} bits, but {files[0].path} {bits[0]}; accepted: one depth for all"
            )
