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

from zoo.config import Config
from zoo.config.experiment import DataConfig
from zoo.data.faults import Fault, noted
from zoo.data.layout import Place, read_layout
from zoo.data.splits import IN_MEMORY, Records, Source, Split, check_classes, draw, pixel_digest
from zoo.errors import InputError, listing
from zoo.pictures import Wanted, decoders, fit_image, read_picture, stored_form
from zoo.progress import track

_THREADS = 4
_CHUNK = 64


@dataclass(frozen=True)
class File:
    """An image file: its place, the SHA-256 of its content, and the type and (height, width) of its samples."""

    place: Place
    digest: str
    dtype: np.dtype
    size: tuple[int, int]

    @property
    def label(self) -> int:
        """The number of its class."""
        return self.place.label

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.place.path


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
        # What was noted of images that were read, and of which.
        self.notes: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """How many images."""
        return len(self._files)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """Decode images (n, h, w, C), several at a time."""
        images, problems = np.empty((len(np.arange(len(self))[index]), *self.shape[1:]), self.dtype), []
        for place, image in enumerate(self.decoded(index, self.fit)):
            if isinstance(image, Unreadable):
                problems.append(image)
            else:
                images[place] = image
        if problems:
            raise _refusal(problems)
        return images

    def decoded(self, index: np.ndarray | slice, use: Callable[[np.ndarray], Any]) -> Iterator[Any]:
        """What `use` makes of each image (H, W, C) of its file's size, several at a time, or why there is none."""
        files = [self._files[i] for i in np.arange(len(self))[index]]
        with decoders(), ThreadPoolExecutor(_THREADS) as pool:
            for file, found in zip(files, pool.map(partial(self._decode, use=use), files), strict=True):
                if isinstance(found, Unreadable):
                    yield found
                    continue
                image, notes = found
                for note in notes:
                    self.notes.setdefault(note, set()).add(file.place.name)
                yield image

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Bring an image to the model's size: (H, W, C) -> (h, w, C)."""
        model = self._config.model
        return fit_image(image, model.image_size, self._config.data.resize, model.preprocess.mean)

    def _decode(self, file: File, use: Callable[[np.ndarray], Any]) -> Any:
        try:
            image, notes = read_picture(file.path, Wanted(self._config.model.channels))
        except InputError as error:
            return Unreadable(file.path, str(error))
        return use(image), notes


def read_folder(config: Config) -> Source:
    """A folder with train/, test/ and perhaps val/, each with one folder a class; or with the class folders themselves.

    In the second case a file is a test image where a number in [0, 1) drawn from its content's SHA-256 is below
    `data.test`, so that adding or renaming files moves no other; with `data.group`, drawn from its specimen's name.
    Training images are in the order of their content's hashes. PNG, JPEG, BMP and TIFF, all of 8 or all of 16 bits;
    hidden files and other suffixes are left out, and named as faults.

    Files that cannot be decoded are refused together, or with `data.unreadable` = "skip" left out and named in the
    result, for which every file is decoded once more. Images are compared by their pixels, or by their files' content
    where they are decoded when asked for.

    Raises:
        InputError: naming the folder or file; for a `data.test` beside test/.
    """
    root, share = config.data.dir, config.data.test
    layout = read_layout(root, config.data.group)
    check_classes(config, layout.class_names)
    if layout.parts.keys() != {""} and share != (usual := DataConfig.model_fields["test"].default):
        raise InputError(
            f"data.test: received {share:g}; accepted beside {root / 'test'}, which holds the test images: none (or "
            f"{usual:g}, which is not used)"
        )
    parts, problems = {}, []
    for part, places in layout.parts.items():
        parts[part], some = _files(places, config)
        problems += some
    note = "test split used once"
    if "" in parts:
        train, test = _draw_test(parts.pop(""), share)
        parts = {"train": train, "test": test}
        chosen = "content hash" if config.data.group is None else "specimen"
        note = f"test images ({share:.0%}) chosen by {chosen}, used once"
    _check_dtypes([file for files in parts.values() for file in files])
    by_pixels = all(_fit_in_memory(FolderImages(files, config)) for files in parts.values())
    splits, broken, notes = {}, [], {}
    for part, files in parts.items():
        splits[part], some = _split(files, config, by_pixels, notes)
        broken += some
    if broken or problems and config.data.unreadable == "refuse":
        raise _refusal(problems + broken)
    skipped = tuple(str(problem.path.relative_to(root)) for problem in problems)
    return Source(
        layout.class_names,
        splits["train"],
        splits["test"],
        _fingerprint(layout.stored_names, *parts.values()),
        _fingerprint(layout.stored_names, parts["test"]),
        note,
        skipped,
        splits.get(layout.validation),
        (*layout.faults, *_unreadable(skipped), *noted(notes)),
    )


def _unreadable(names: Sequence[str]) -> list[Fault]:
    if not names:
        return []
    images = "image that" if len(names) == 1 else "images that"
    return [Fault("unreadable", f"left out {len(names):,} {images} cannot be read", len(names), tuple(names[:3]))]


def _draw_test(files: list[File], share: float) -> tuple[list[File], list[File]]:
    """The training and the test images among files, by a number drawn from each file's content, or its specimen."""
    specimens = {file.place.specimen for file in files} - {None}
    draws = {name: draw(hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()) for name in specimens}
    if len(specimens) == 1:
        raise InputError(f"data.group: finds the single specimen {specimens.pop()!r}; accepted: two or more")
    if draws and not (low := min(draws.values())) < share <= (high := max(draws.values())):
        received = f"data.test: received {share:g}, by which of {len(draws)} specimens"
        if share <= low:
            raise InputError(f"{received} none is for testing; accepted: above {math.ceil(low * 1e4) / 1e4:g}")
        raise InputError(f"{received} none is left to train on; accepted: at most {math.floor(high * 1e4) / 1e4:g}")
    drawn = [draws.get(file.place.specimen, draw(file.digest)) for file in files]
    train = [file for file, number in zip(files, drawn, strict=True) if number >= share]
    return train, [file for file, number in zip(files, drawn, strict=True) if number < share]


def _fingerprint(class_names: tuple[str, ...], *parts: list[File]) -> str:
    content = [class_names, *([(file.digest, file.label) for file in part] for part in parts)]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _fit_in_memory(images: FolderImages) -> bool:
    return np.prod(images.shape, dtype=np.int64) * images.dtype.itemsize <= IN_MEMORY


def _split(
    files: list[File], config: Config, by_pixels: bool, notes: dict[str, set[str]]
) -> tuple[Split, list[Unreadable]]:
    """The images of files, in memory where they are few, and those that are found to be broken on the way.

    What is to be said of images, and of which, goes into `notes`.
    """
    images, problems = FolderImages(files, config), []

    def about(image: np.ndarray) -> tuple[np.ndarray, int, tuple[int, int]]:
        fitted = images.fit(image)
        # Two images that are one when the model sees them are copies.
        return fitted, pixel_digest(fitted), image.shape[:2]

    digests = np.zeros(len(files), np.uint64)
    sizes = np.array([file.size for file in files], np.int64).reshape(-1, 2)
    if _fit_in_memory(images):
        held = np.empty(images.shape, images.dtype)
        for start in track(range(0, len(files), _CHUNK), "decoding images"):
            for place, image in enumerate(images.decoded(slice(start, start + _CHUNK), about), start):
                if isinstance(image, Unreadable):
                    problems.append(image)
                else:
                    held[place], digests[place], sizes[place] = image
        for text, noted in images.notes.items():
            notes.setdefault(text, set()).update(noted)
        images = held
    if not by_pixels:
        digests = np.array([int(file.digest[:16], 16) for file in files], np.uint64)
    names = np.array([file.place.name for file in files], object)
    specimens = None
    if config.data.group is not None:
        specimens = np.array([file.place.specimen for file in files], object)
    labels = np.array([file.label for file in files], np.int32)
    return Split(images, labels, Records(names, digests, sizes, specimens)), problems


def _files(places: Sequence[Place], config: Config) -> tuple[list[File], list[Unreadable]]:
    """The image files at places, in the order of their content's hashes, and those to leave out."""
    skip = config.data.unreadable == "skip"
    with decoders(), ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(partial(_file, whole=skip), places)
        found = list(track(found, "reading image files", len(places)))
    problems = sorted((each for each in found if isinstance(each, Unreadable)), key=lambda each: each.path)
    files = [each for each in found if isinstance(each, File)]
    if missing := {place.label for place in places} - {file.label for file in files}:
        folder = next(place.path.parent for place in places if place.label == min(missing))
        problem = next(each.problem for each in problems if each.path.parent == folder)
        raise InputError(f"{folder}: none of its images can be read ({problem})")
    return sorted(files, key=lambda file: (file.digest, file.label, file.path)), problems


def _refusal(problems: list[Unreadable]) -> InputError:
    first, *others = problems
    names = listing([f"{each.path.parent.name}/{each.path.name}" for each in others])
    count = f"; and {names}: {len(problems)} images in all" if others else ""
    return InputError(f"{first.problem}{count}; data.unreadable=skip leaves out what cannot be read")


def _file(place: Place, whole: bool) -> File | Unreadable:
    """Read a file's content and header, and, with `whole`, see that its image decodes."""
    path = place.path
    try:
        content = _content(path)
        if whole:
            read_picture(path)
        return File(place, hashlib.sha256(content).hexdigest(), *stored_form(path))
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
