"""Image folders: one folder a class, decoded when asked for."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.classes import normal
from zoo.config.data import DataConfig
from zoo.data.class_folders import ImageFile, read_class_folders
from zoo.data.faults import noted, plain, unreadable_fault, unreadable_refusal
from zoo.data.form import ImageForm
from zoo.data.splits import IN_MEMORY, RecordedSplit, Records, SourceData, check_classes, draw, pixel_digest
from zoo.errors import InputError, quoted, refuse, unknown
from zoo.pictures import Wanted, decoders, read_picture, stored_form
from zoo.progress import track

_THREADS = 4
_CHUNK = 64


@dataclass(frozen=True)
class OpenedFile:
    """An image file with the SHA-256 of its content, and the type and (height, width) of its samples."""

    file: ImageFile
    digest: str
    dtype: np.dtype
    size: tuple[int, int]

    @property
    def label(self) -> int:
        """The number of its class."""
        return self.file.label

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path


@dataclass(frozen=True)
class Unreadable:
    """An image file that cannot be decoded, and why."""

    file: ImageFile
    problem: str


class FolderImages:
    """Random access to image files in the form that a model takes: (N, h, w, C)."""

    def __init__(self, files: list[OpenedFile], form: ImageForm):
        """Take the files, and the form to bring their images to."""
        self._files, self._form = files, form
        self.shape = (len(files), *form.size, form.channels)
        self.dtype = files[0].dtype if files else np.dtype(np.uint8)
        # What was noted of images that were read, and of which.
        self.notes: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """How many images."""
        return len(self._files)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """Decode images (n, h, w, C), several at a time."""
        images, problems = np.empty((len(np.arange(len(self))[index]), *self.shape[1:]), self.dtype), []
        for number, image in enumerate(self.decoded(index, self._form.fit)):
            if isinstance(image, Unreadable):
                problems.append(image)
            else:
                images[number] = image
        if problems:
            raise _refusal(problems)
        return images

    def decoded(self, index: np.ndarray | slice, use: Callable[[np.ndarray], Any]) -> Iterator[Any]:
        """What `use` makes of each image (H, W, C) of its file's size, several at a time, or why there is none."""
        files = [self._files[i] for i in np.arange(len(self))[index]]
        with decoders(), ThreadPoolExecutor(_THREADS) as pool:
            for opened, decoded in zip(files, pool.map(partial(self._decode, use=use), files), strict=True):
                if isinstance(decoded, Unreadable):
                    yield decoded
                    continue
                image, notes = decoded
                for note in notes:
                    self.notes.setdefault(note, set()).add(opened.file.name)
                yield image

    def _decode(self, file: OpenedFile, use: Callable[[np.ndarray], Any]) -> Any:
        try:
            image, notes = read_picture(file.path, Wanted(self._form.channels))
        except InputError as error:
            return Unreadable(file.file, str(error))
        return use(image), notes


def read_folder(data: DataConfig, form: ImageForm, num_classes: int) -> SourceData:
    """A folder with train/, test/ and perhaps val/, each with one folder a class; or with the class folders themselves.

    In the second case a file is a test image where a number in [0, 1) drawn from its content's SHA-256 is below
    `data.test`, so that adding or renaming files moves no other; with `data.group`, drawn from its specimen's name.
    Training images are in the order of their content's hashes. PNG, JPEG, BMP and TIFF, all of 8 or all of 16 bits;
    hidden files and other suffixes are left out, and named as faults.

    Files that cannot be decoded are refused together, or with `data.unreadable` = "skip" left out and named in the
    result, for which every file is decoded once more. Images are compared by their pixels, or by their files' content
    where they are decoded when asked for.

    Raises:
        InputError: naming the folder or file; for a `data.test` beside test/, or a `data.background` that is no class.
    """
    root, share, skip = data.given_dir(), data.test, data.unreadable == "skip"
    folders = read_class_folders(root, data.group)
    check_classes(data.name, folders.class_names, num_classes)
    if data.background is not None and normal(data.background) not in folders.class_names:
        raise InputError(unknown("data.background", data.background, folders.class_names))
    if folders.parts.keys() != {""} and share != (usual := DataConfig.model_fields["test"].default):
        accepted = f"none (or {usual:g}, which is not used) beside {root / 'test'}, which holds the test images"
        refuse("data.test", f"{share:g}", accepted)
    parts, problems = {}, []
    for part, files in folders.parts.items():
        parts[part], some = _open(files, skip, folders.class_names)
        problems += some
    note = "test split used once"
    if "" in parts:
        train, test = _draw_test(parts.pop(""), share)
        parts = {"train": train, "test": test}
        chosen = "content hash" if data.group is None else "specimen"
        note = f"test images ({share:.0%}) chosen by {chosen}, used once"
    _check_dtypes([file for files in parts.values() for file in files])
    by_pixels = all(_fit_in_memory(FolderImages(files, form)) for files in parts.values())
    splits, broken = {}, []
    notes: dict[str, set[str]] = {}
    for part, opened in parts.items():
        splits[part], some = _split(opened, form, by_pixels, notes)
        broken += some
    if broken or problems and not skip:
        raise _refusal(problems + broken)
    skipped = tuple(problem.file.name for problem in problems)
    return SourceData(
        folders.class_names,
        splits["train"],
        splits["test"],
        _fingerprint(folders.stored_names, *parts.values()),
        _fingerprint(folders.stored_names, parts["test"]),
        note,
        skipped,
        splits.get(folders.validation) if folders.validation else None,
        (*folders.faults, *unreadable_fault(skipped), *noted(notes)),
    )


def _draw_test(files: list[OpenedFile], share: float) -> tuple[list[OpenedFile], list[OpenedFile]]:
    """The training and the test images among files, by a number drawn from each file's content, or its specimen."""
    specimens = {opened.file.specimen for opened in files if opened.file.specimen is not None}
    draws = {name: draw(hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()) for name in specimens}
    if len(specimens) == 1:
        raise InputError(f"data.group: finds the single specimen {quoted(specimens.pop())}; accepted: two or more")
    if draws and not (low := min(draws.values())) < share <= (high := max(draws.values())):
        received = f"{share:g}, by which of {len(draws)} specimens"
        if share <= low:
            refuse("data.test", f"{received} none is for testing", f"above {math.ceil(low * 1e4) / 1e4:g}")
        refuse("data.test", f"{received} none is left to train on", f"at most {math.floor(high * 1e4) / 1e4:g}")
    drawn = [draw(opened.digest) if opened.file.specimen is None else draws[opened.file.specimen] for opened in files]
    train = [file for file, number in zip(files, drawn, strict=True) if number >= share]
    return train, [file for file, number in zip(files, drawn, strict=True) if number < share]


def _fingerprint(class_names: tuple[str, ...], *parts: list[OpenedFile]) -> str:
    content = [class_names, *([(file.digest, file.label) for file in part] for part in parts)]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _fit_in_memory(images: FolderImages) -> bool:
    return math.prod(images.shape) * images.dtype.itemsize <= IN_MEMORY


def _split(
    files: list[OpenedFile], form: ImageForm, by_pixels: bool, notes: dict[str, set[str]]
) -> tuple[RecordedSplit, list[Unreadable]]:
    """The images of files, in memory where they are few, and those that are found to be broken on the way.

    What the reader notes of images, and of which, goes into `notes`.
    """
    stored, problems = FolderImages(files, form), []

    def described(image: np.ndarray) -> tuple[np.ndarray, int, tuple[int, int]]:
        fitted = form.fit(image)
        # Two images that are one when the model sees them are copies.
        return fitted, pixel_digest(fitted), image.shape[:2]

    images: np.ndarray | FolderImages = stored
    digests = np.zeros(len(files), np.uint64)
    sizes = np.array([file.size for file in files], np.int64).reshape(-1, 2)
    if _fit_in_memory(stored):
        images = held = np.empty(stored.shape, stored.dtype)
        for start in track(range(0, len(files), _CHUNK), "decoding images"):
            for number, image in enumerate(stored.decoded(slice(start, start + _CHUNK), described), start):
                if isinstance(image, Unreadable):
                    problems.append(image)
                else:
                    held[number], digests[number], sizes[number] = image
        for text, of in stored.notes.items():
            notes.setdefault(text, set()).update(of)
    if not by_pixels:
        digests = np.array([int(file.digest[:16], 16) for file in files], np.uint64)
    names = np.array([opened.file.name for opened in files], object)
    specimens = None
    if any(opened.file.specimen is not None for opened in files):
        specimens = np.array([opened.file.specimen for opened in files], object)
    labels = np.array([file.label for file in files], np.int32)
    return RecordedSplit(images, labels, Records(names, digests, sizes, specimens)), problems


def _open(
    files: Sequence[ImageFile], whole: bool, class_names: Sequence[str]
) -> tuple[list[OpenedFile], list[Unreadable]]:
    """Open image files: those that can be read, in the order of their content's hashes, and the others."""
    with decoders(), ThreadPoolExecutor(_THREADS) as pool:
        reading = pool.map(partial(_opened, whole=whole), files)
        results = list(track(reading, "reading image files", len(files)))
    problems = sorted((each for each in results if isinstance(each, Unreadable)), key=lambda each: each.file.path)
    opened = [each for each in results if isinstance(each, OpenedFile)]
    if missing := {file.label for file in files} - {each.label for each in opened}:
        label = min(missing)
        problem = next(each.problem for each in problems if each.file.label == label)
        raise InputError(f"class {plain(class_names[label])}: none of its images can be read ({problem})")
    return sorted(opened, key=lambda each: (each.digest, each.label, each.path)), problems


def _refusal(problems: list[Unreadable]) -> InputError:
    return unreadable_refusal(problems[0].problem, [each.file.name for each in problems[1:]])


def _opened(file: ImageFile, whole: bool) -> OpenedFile | Unreadable:
    """Read a file's content and header, and, with `whole`, check that its image decodes."""
    path = file.path
    try:
        content = _content(path)
        if whole:
            read_picture(path)
        return OpenedFile(file, hashlib.sha256(content).hexdigest(), *stored_form(path))
    except InputError as error:
        return Unreadable(file, str(error))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"image {path}: cannot be read ({error.strerror})") from None


def _check_dtypes(files: list[OpenedFile]) -> None:
    for file in files:
        if file.dtype != files[0].dtype:
            bits = [8 * each.dtype.itemsize for each in (files[0], file)]
            raise InputError(
                f"image {file.path}: has {bits[1]} bits, but {files[0].path} {bits[0]}; accepted: one depth for all"
            )
