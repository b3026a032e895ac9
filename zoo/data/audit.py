"""What is at fault with the images of a data set: copies, contradictions, leaks, sizes, empty classes."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from zoo.data.faults import Fault, fault
from zoo.data.splits import RecordedSplit

# How many images are looked at, and between which deviations their samples lie for a model that can see them.
_SOME, _LEAST, _MOST = 64, 0.02, 50.0


def audit(parts: Mapping[str, RecordedSplit], size: tuple[int, int], resize: bool) -> list[Fault]:
    """What is at fault within and between the parts of a data set, as it comes.

    Args:
        parts: splits, by what their images are called: training, test and so on.
        size: height and width of the model's images.
        resize: whether images of another size are scaled.
    """
    faults = _sizes(parts, size, resize)
    for name, part in parts.items():
        faults += _copies(name, part)
    faults += _labels(list(parts.values()))
    for (earlier, one), (later, other) in combinations(parts.items(), 2):
        faults += _specimens(earlier, one, later, other) + leaks(earlier, one, later, other)
    return faults


def empty_classes(parts: Mapping[str, RecordedSplit], class_names: Sequence[str]) -> list[Fault]:
    """The classes of which a part holds no image, a fault for each such part."""
    faults: list[Fault] = []
    for name, part in parts.items():
        counts = np.bincount(part.labels, minlength=len(class_names))
        empty = [class_names[label] for label in np.flatnonzero(counts == 0).tolist()]
        faults += fault("class", "classes", f"have no {name} images", empty, len(class_names))
    return faults


def far_from_range(images: Any, mean: Sequence[float], std: Sequence[float]) -> list[Fault]:
    """A fault where (x - mean) / std leaves next to nothing of training images (N, H, W, C), or numbers far too large.

    Samples of 8 bits are what the zoo's means and deviations are of; others, of 16 bits or of floats from 0 to 1, have
    any range.
    """
    if images.dtype == np.uint8:
        return []
    some = images[np.unique(np.linspace(0, len(images) - 1, _SOME).astype(int))].astype(np.float64)
    seen = (some - mean) / std
    if _LEAST <= seen.std() <= _MOST:
        return []
    text = (
        f"training images have samples of {some.mean():.3g} ± {some.std():.3g}, {seen.mean():.3g} ± {seen.std():.3g} "
        "to the model; a mean and a deviation of theirs bring them to 0 ± 1"
    )
    return [Fault("note", text, 1, ("model.preprocess",))]


def leaks(earlier: str, one: RecordedSplit, later: str, other: RecordedSplit) -> list[Fault]:
    """The images of a later part that are also images of an earlier one."""
    common = np.isin(other.records.digests, one.records.digests)
    verb = f"are also among the {earlier} images"
    return fault("leak", f"{later} images", verb, other.records.names[common], len(other))


def _copies(name: str, part: RecordedSplit) -> list[Fault]:
    """The images of a part that are copies of other images of the same part and class."""
    pairs = np.stack([part.records.digests, part.labels.astype(np.uint64)], axis=1)
    first = np.unique(pairs, axis=0, return_index=True)[1]
    copies = np.delete(np.arange(len(part)), first)
    return fault("copy", f"{name} images", f"are a copy of another {name} image", part.records.names[copies], len(part))


def _labels(parts: Sequence[RecordedSplit]) -> list[Fault]:
    """The images that are in two classes or more, counted once each."""
    digests = np.concatenate([part.records.digests for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    names = np.concatenate([part.records.names for part in parts])
    order = np.lexsort((labels, digests))
    digests, labels, names = digests[order], labels[order], names[order]
    # In this order a contradiction is a step from one label to another inside a run of equal digests.
    steps = np.flatnonzero((digests[1:] == digests[:-1]) & (labels[1:] != labels[:-1]))
    _, first = np.unique(digests[steps], return_index=True)
    pairs = sorted(f"{names[step]} = {names[step + 1]}" for step in steps[first])
    return fault("label", "images", "are in two classes or more", pairs)


def _sizes(parts: Mapping[str, RecordedSplit], size: tuple[int, int], resize: bool) -> list[Fault]:
    """The images of another size than the model's, and what is done to them."""
    sizes = np.concatenate([part.records.sizes for part in parts.values()])
    names = np.concatenate([part.records.names for part in parts.values()])
    origins = np.repeat(list(parts), [len(part) for part in parts.values()])
    # A size of 0 is one that a broken header hides; decoding will refuse the file.
    others = (sizes != size).any(1) & sizes.all(1)
    if not others.any():
        return []
    ways, counts = np.unique([_way(each, size, resize) for each in sizes[others]], return_counts=True)
    done = " or ".join(f"{way} ({count:,})" for way, count in zip(ways, counts, strict=True))
    where = [f"{(origins[others] == name).sum():,} {name}" for name in parts if name in origins[others]]
    verb = f"are of another size than the model's {size[0]} x {size[1]}, {done}"
    return fault("size", f"images ({', '.join(where)})", verb, names[others], len(sizes))


def _way(received: np.ndarray, size: tuple[int, int], resize: bool) -> str:
    """What `fit_image` does to an image of another size."""
    if resize and (scale := max(np.divide(size, received))) != 1:
        return "scaled up" if scale > 1 else "scaled down"
    cropped, padded = (received > size).any(), (received < size).any()
    return "cropped and padded" if cropped and padded else "cropped" if cropped else "padded"


def _specimens(earlier: str, one: RecordedSplit, later: str, other: RecordedSplit) -> list[Fault]:
    """The specimens of a later part that are also in an earlier one."""
    if one.records.specimens is None or other.records.specimens is None:
        return []
    theirs = np.unique(other.records.specimens)
    common = theirs[np.isin(theirs, np.unique(one.records.specimens))]
    verb = f"are also among the specimens of the {earlier} images"
    return fault("specimen", f"specimens of the {later} images", verb, common, len(theirs))
