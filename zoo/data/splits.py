"""What every data source hands over: splits with random access, and what is known of each image."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np

from zoo.config.data import DataConfig
from zoo.data.faults import Fault
from zoo.data.form import ImageForm
from zoo.errors import InputError, listing, quoted, refuse
from zoo.objects.marked import Scenes

# Below this size a part of an array is copied, beyond it is a view that looks images up when they are asked for.
IN_MEMORY = 2**30


@dataclass(frozen=True)
class Records:
    """What is known of each of N images beside its pixels.

    `names`: (N,) text. `digests`: (N,) uint64, see `pixel_digest`. `sizes`: (N, 2), height and width as stored.
    `specimens`: (N,) text, what `data.group` finds in each name; None without it.
    """

    names: np.ndarray
    digests: np.ndarray
    sizes: np.ndarray
    specimens: np.ndarray | None = None

    def at(self, indices: np.ndarray) -> "Records":
        """The records at `indices`."""
        specimens = None if self.specimens is None else self.specimens[indices]
        return Records(self.names[indices], self.digests[indices], self.sizes[indices], specimens)


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    `images`: (N, H, W, C), an array or anything with `len`, `shape`, `dtype` and `images[slice or indices]` -> array.
    `labels`: (N,) int32.
    """

    images: Any
    labels: np.ndarray

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)

    def at(self, indices: np.ndarray) -> Self:
        """The images at `indices`; of an array that is large they are looked up when they are asked for."""
        small = isinstance(self.images, np.ndarray) and self.images.nbytes <= IN_MEMORY
        images = self.images[indices] if small else Subset(self.images, indices)
        return replace(self, images=images, labels=self.labels[indices])


@dataclass(frozen=True)
class RecordedSplit(Split):
    """A split as readers make it, with what else is known of each image."""

    records: Records

    def at(self, indices: np.ndarray) -> Self:
        """The images at `indices`, with their records."""
        return replace(super().at(indices), records=self.records.at(indices))


AnySplit = TypeVar("AnySplit", bound=Split)


@dataclass(frozen=True)
class Dataset:
    """Images to train on, to choose by (None where nothing is held out), and to test on.

    `protocol`: one sentence on what was held out and how. `fingerprint`: the SHA-256 of images, labels and class names
    as they are stored, so independent of model, seed and validation; `test_fingerprint`: that of the test split alone.
    `unreadable`: the files that were left out because they cannot be decoded. `faults`: what the user may not mean.
    `scenes`: the large images that the images are crops of; None of other data.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    protocol: str
    fingerprint: str
    test_fingerprint: str
    unreadable: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    scenes: Scenes | None = None


@dataclass(frozen=True)
class SourceData:
    """What a reader gives: the data of a source.

    `validation`: None where it is to be carved from `train`. `note`: how `test` came about. `faults`: what was left
    out. `scenes`: the large images that the images are crops of.
    """

    class_names: tuple[str, ...]
    train: RecordedSplit
    test: RecordedSplit
    fingerprint: str
    test_fingerprint: str
    note: str = "test split used once"
    unreadable: tuple[str, ...] = ()
    validation: RecordedSplit | None = None
    faults: tuple[Fault, ...] = ()
    scenes: Scenes | None = None

    @property
    def parts(self) -> dict[str, RecordedSplit]:
        """The splits, by what their images are called."""
        given = {} if self.validation is None else {"validation": self.validation}
        return {"training": self.train, **given, "test": self.test}


# A reader: of the data section, the form that images are brought to, and the number of classes that there have to be.
Reader = Callable[[DataConfig, ImageForm, int], SourceData]


class Subset:
    """The images of `images` at `indices`, looked up when they are asked for."""

    def __init__(self, images: Any, indices: np.ndarray):
        """Take images with random access and the (n,) indices of those to show."""
        self._images, self._indices = images, indices
        self.shape, self.dtype = (len(indices), *images.shape[1:]), images.dtype

    @property
    def notes(self) -> dict[str, set[str]]:
        """What the reader has noted of the images so far, where they are decoded when asked for."""
        return getattr(self._images, "notes", {})

    def __len__(self) -> int:
        """How many images."""
        return len(self._indices)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """Images (n, H, W, C)."""
        return self._images[self._indices[index]]


class Fingerprint:
    """A SHA-256 of images and labels, the same for any batching of them."""

    def __init__(self, class_names: Iterable[str]):
        """Begin with the class names."""
        self._hash = hashlib.sha256(repr(tuple(class_names)).encode())

    def add(self, images: Iterable[np.ndarray], labels: Iterable[int]) -> None:
        """Take in images (n, H, W, C) of any sizes, with labels (n,)."""
        for image, label in zip(images, labels, strict=True):
            self._hash.update(f"{image.shape} {image.dtype.str} {int(label)}".encode())
            self._hash.update(np.ascontiguousarray(image).data)

    def hexdigest(self) -> str:
        """The digest of what was added."""
        return self._hash.hexdigest()


def pixel_digest(image: np.ndarray) -> int:
    """A number below 2**64 that two images share only where size, type and pixels are equal."""
    content = hashlib.blake2b(f"{image.shape} {image.dtype.str}".encode(), digest_size=8)
    content.update(np.ascontiguousarray(image).data)
    return int.from_bytes(content.digest(), "big")


def draw(digest: str) -> float:
    """A number in [0, 1) that is a function of a hexadecimal SHA-256 alone."""
    return int(digest[:13], 16) / 16**13


def check_classes(name: str, class_names: Sequence[str], num_classes: int) -> None:
    """Check that the model has as many classes as the data set of this name, before its images are read.

    Raises:
        InputError: with both numbers.
    """
    if num_classes != len(class_names):
        classes = "class" if len(class_names) == 1 else "classes"
        raise InputError(
            f"model.num_classes: received {num_classes}; data set {name} has {len(class_names)} {classes} "
            f"({listing(class_names)})"
        )


def hold_out(train: AnySplit, validation: float, seed: int) -> tuple[AnySplit, AnySplit | None]:
    """Carve validation images from the training images, stratified by class.

    Where the images' specimens are known, each stays whole: the number of images and the classes' shares are then met
    as nearly as specimens allow.

    Args:
        train: all training images.
        validation: a share below 1, or a number of images; 0 holds nothing out.
        seed: what the choice is a function of.

    Returns:
        The training images that are left and those held out, both in their former order.

    Raises:
        InputError: where no image would be left to train on.
    """
    if validation == 0:
        return train, None
    count = max(round(validation * len(train)), 1) if validation < 1 else int(validation)
    if count >= len(train):
        refuse("data.validation", f"{validation:g}", f"fewer than {len(train):,} images")
    rng = np.random.default_rng(seed)
    specimens = train.records.specimens if isinstance(train, RecordedSplit) else None
    if specimens is None:
        held_out = _choose_images(train.labels, count, rng)
    else:
        held_out = _choose_specimens(train.labels, specimens, count, rng)
    return train.at(np.flatnonzero(~held_out)), train.at(np.flatnonzero(held_out))


def _choose_images(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Which `count` images to hold out, (N,) bool."""
    order = rng.permutation(len(labels))
    # Each image's rank in its class, as a share of it: the first `count` hold every class's share of the images.
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    held_out = np.zeros(len(labels), bool)
    held_out[order[np.argsort(rank[order], kind="stable")[:count]]] = True
    return held_out


def _choose_specimens(labels: np.ndarray, specimens: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Which images to hold out, (N,) bool: whole specimens, about `count` images of them."""
    names, owner = np.unique(specimens, return_inverse=True)
    if len(names) < 2:
        raise InputError(
            f"data.group: all training images are of the specimen {quoted(names[0])}; accepted: data.validation=0, "
            "or a pattern that finds two specimens or more"
        )
    classes, label = np.unique(labels, return_inverse=True)
    # What each specimen (rows) holds of every class (columns), and of all images (the last).
    shares = np.zeros((len(names), len(classes) + 1))
    np.add.at(shares, (owner, label), 1 / np.bincount(label)[label])
    np.add.at(shares[:, -1], owner, 1 / len(labels))
    # In random order, each is taken or put back where that brings the sums nearer to the share wanted; at least one is
    # held out, and never all.
    order = rng.permutation(len(names))
    missing = np.full(shares.shape[1], count / len(labels))
    held_out = np.zeros(len(names), bool)
    changed = True
    while changed:
        changed = False
        for index in order:
            after = missing + shares[index] if held_out[index] else missing - shares[index]
            last = not held_out[index] and held_out.sum() == len(names) - 1
            if not last and after @ after < missing @ missing * (1 - 1e-9):
                held_out[index], missing, changed = not held_out[index], after, True
    if not held_out.any():
        held_out[np.square(missing - shares).sum(1).argmin()] = True
    return held_out[owner]
