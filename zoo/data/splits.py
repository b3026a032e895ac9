"""What every data source hands over: splits with random access, and a data set made of them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import Config
from zoo.errors import InputError

# Below this size a part of an array is copied, beyond it is a view that looks images up when they are asked for.
IN_MEMORY = 2**30


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


@dataclass(frozen=True)
class Dataset:
    """Images to train on, to choose by (None where nothing is held out), and to test on.

    `protocol`: one sentence on what was held out and how. `fingerprint`: the SHA-256 of images, labels and class names
    as they are stored, so independent of model, seed and validation; `test_fingerprint`: that of the test split alone.
    `unreadable`: the files that were left out because they cannot be decoded.
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


@dataclass(frozen=True)
class Source:
    """What a reader found, before validation images are carved from `train`; `note` says how `test` came about."""

    class_names: tuple[str, ...]
    train: Split
    test: Split
    fingerprint: str
    test_fingerprint: str
    note: str = "test split used once"
    unreadable: tuple[str, ...] = ()


class Part:
    """The images of `images` at `indices`, looked up when they are asked for."""

    def __init__(self, images: Any, indices: np.ndarray):
        """Take images with random access and the (n,) indices of those to show."""
        self._images, self._indices = images, indices
        self.shape, self.dtype = (len(indices), *images.shape[1:]), images.dtype

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


def check_classes(config: Config, class_names: Sequence[str]) -> None:
    """See that the model has as many classes as the data set, before its images are read.

    Raises:
        InputError: with both numbers.
    """
    if config.model.num_classes != len(class_names):
        raise InputError(
            f"model.num_classes: received {config.model.num_classes}; "
            f"data set {config.data.name} has {len(class_names)} classes"
        )


def hold_out(train: Split, validation: float, seed: int) -> tuple[Split, Split | None]:
    """Carve validation images from the training images, stratified by class.

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
        raise InputError(f"data.validation: received {validation:g}; accepted: fewer than {len(train):,} images")
    order = np.random.default_rng(seed).permutation(len(train))
    # Each image's place in its class, as a share of it: the first `count` hold every class's share of the images.
    place = np.empty(len(train))
    for label in np.unique(train.labels):
        members = order[train.labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    held_out = np.zeros(len(train), bool)
    held_out[order[np.argsort(place[order], kind="stable")[:count]]] = True
    return _part(train, np.flatnonzero(~held_out)), _part(train, np.flatnonzero(held_out))


def _part(split: Split, indices: np.ndarray) -> Split:
    small = isinstance(split.images, np.ndarray) and split.images.nbytes <= IN_MEMORY
    images = split.images[indices] if small else Part(split.images, indices)
    return Split(images, split.labels[indices])
