"""Sets of tensorflow-datasets, prepared or downloaded, as arrays in memory or on disk."""

import difflib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config.data import DataConfig
from zoo.config.sources import SOURCES
from zoo.data.faults import fault
from zoo.data.form import ImageForm
from zoo.data.splits import Fingerprint, RecordedSplit, Records, SourceData, check_classes, pixel_digest
from zoo.errors import InputError
from zoo.pictures import to_channels
from zoo.progress import track

# Above this size, both splits together, decoded images are kept in a temporary file instead of memory.
_IN_MEMORY = 4 * 2**30
_BATCH = 256


def is_prepared(data: DataConfig) -> bool:
    """Whether a set is at hand, so that reading it downloads nothing.

    Raises:
        InputError: where the set is unknown.
    """
    with _quiet():
        return _builder(data.name, _folder(data)).is_prepared()


def _folder(data: DataConfig) -> Path | str | None:
    # tensorflow-datasets reads the variable when it is imported, which may be before it is set.
    return data.dir or os.environ.get("TFDS_DATA_DIR")


def read_tfds(data: DataConfig, form: ImageForm, num_classes: int) -> SourceData:
    """An image classification set of tensorflow-datasets, from `data.dir` or the environment's TFDS_DATA_DIR.

    A prepared set is read without any network. Where there is no `test` split, `validation` takes its place.

    Raises:
        InputError: where the set is unknown, cannot be downloaded, or has no images, class labels or test images.
    """
    name = data.name
    with _quiet():
        builder = _builder(name, _folder(data))
        image_key, label_key = _keys(name, builder)
        if not builder.is_prepared():
            _download(name, builder)
        splits = builder.info.splits
        test_name = "test" if "test" in splits else "validation"
        if "train" not in splits or test_name not in splits:
            raise InputError(
                f"data set {name}: has the splits {', '.join(splits)}; accepted: train, and test or validation"
            )
        class_names = tuple(builder.info.features[label_key].names)
        check_classes(name, class_names, num_classes)
        dtype = np.dtype(builder.info.features[image_key].np_dtype)
        sizes = [splits[split].num_examples for split in ("train", test_name)]
        arrays = _allocate(sizes, (*form.size, form.channels), dtype)
        fingerprint, test_fingerprint = Fingerprint(class_names), Fingerprint(class_names)
        filled = []
        for split, images in zip(("train", test_name), arrays, strict=True):
            labels = np.empty(len(images), np.int32)
            digests, stored = np.empty(len(images), np.uint64), np.empty((len(images), 2), np.int64)
            batches = _batches(builder, split, image_key, label_key)
            start = 0
            for some, some_labels in track(batches, f"reading {name} {split}", -(-len(images) // _BATCH)):
                fingerprint.add(some, some_labels)
                if split == test_name:
                    test_fingerprint.add(some, some_labels)
                for image, label in zip(some, some_labels, strict=True):
                    digests[start], stored[start] = pixel_digest(image), image.shape[:2]
                    images[start] = form.fit(to_channels(image, form.channels, f"data set {name}"))
                    labels[start] = label
                    start += 1
            names = np.array([f"{split}[{index}]" for index in range(len(images))], object)
            filled.append(RecordedSplit(images, labels, Records(names, digests, stored)))
    note = "test split used once"
    if test_name != "test":
        note = "the set has no test split, so its validation split is the test split, used once"
    unused = sorted({*splits} - {"train", test_name})
    faults = tuple(fault("left out", "splits", "are not used", unused))
    train, test = filled
    return SourceData(
        class_names, train, test, fingerprint.hexdigest(), test_fingerprint.hexdigest(), note, faults=faults
    )


def _builder(name: str, folder: Path | str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(f"data.name: {name!r} needs tensorflow-datasets ({error}); digits needs nothing") from None
    try:
        return tfds.builder(name, data_dir=folder)
    except (ValueError, AssertionError, ImportError) as error:
        names = [*SOURCES, *tfds.list_builders(with_community_datasets=False)]
        if name.split("/")[0].split(":")[0] in names:
            raise InputError(f"data.name: {name!r} cannot be opened ({_short(error)})") from None
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        accepted = ", ".join([*SOURCES, "or a set of tensorflow-datasets"])
        raise InputError(f"data.name: unknown data set {name!r}{hint}; accepted: {accepted}") from None


def _keys(name: str, builder: Any) -> tuple[str, str]:
    """The features that hold image and class, as the set itself pairs them, else the only ones of their kind."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    images, labels = (
        [key for key, feature in features.items() if isinstance(feature, kind)]
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    )
    pair = builder.info.supervised_keys
    if pair and len(pair) == 2 and pair[0] in images and pair[1] in labels:
        return pair
    if len(images) != 1 or len(labels) != 1:
        has = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
        raise InputError(f"data set {name}: has {has}; accepted: sets with one Image and one ClassLabel")
    return images[0], labels[0]


def _download(name: str, builder: Any) -> None:
    import requests

    cause = ""
    try:
        # tensorflow-datasets tries for over three minutes before it reports that there is no network.
        for url in list(builder.url_infos or ())[:1]:
            requests.head(url, timeout=10)
    except requests.ConnectionError:
        cause = f"no connection to {requests.utils.urlparse(url).hostname}"
    except requests.RequestException:
        pass
    if not cause:
        try:
            return builder.download_and_prepare()
        # Every set has its own code, and fails in its own way.
        except Exception as error:
            cause = _short(error)
    raise InputError(
        f"data set {name}: is not in {builder.data_dir} and could not be downloaded ({cause}); set TFDS_DATA_DIR or "
        f"data.dir to a folder that holds it, made on a machine with network by python -c "
        f"\"import tensorflow_datasets as tfds; tfds.load('{name}')\"; configs/nin_digits.yaml needs no download"
    )


def _batches(builder: Any, split: str, image_key: str, label_key: str) -> Iterator[tuple[Any, np.ndarray]]:
    """Images (n, H, W, C), or a list of one where sizes vary, with labels (n,), always in the same order."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    # Where Keras runs on another backend, TensorFlow only reads, and must not take the accelerator's memory.
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
    wanted = tfds.decode.PartialDecoding({image_key: True, label_key: True})
    order = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    examples = builder.as_dataset(split=split, shuffle_files=False, decoders=wanted, read_config=order)
    if None in builder.info.features[image_key].shape:
        images, labels = [], []
        for example in examples.as_numpy_iterator():
            images.append(example[image_key])
            labels.append(example[label_key])
            if len(images) == _BATCH:
                yield images, np.array(labels)
                images, labels = [], []
        if images:
            yield images, np.array(labels)
    else:
        for batch in examples.batch(_BATCH).as_numpy_iterator():
            yield batch[image_key], batch[label_key]


def _allocate(sizes: list[int], shape: tuple[int, int, int], dtype: np.dtype) -> list[np.ndarray]:
    """Arrays (N, h, w, C) for splits of these sizes, in memory, or in temporary files that vanish with the process."""
    shapes = [(size, *shape) for size in sizes]
    needed = sum(int(np.prod(each, dtype=np.int64)) * dtype.itemsize for each in shapes)
    if needed <= _IN_MEMORY:
        return [np.empty(each, dtype) for each in shapes]
    folder = tempfile.gettempdir()
    if needed > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"model.image_size: the decoded images need {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            "free; accepted: a smaller size, or another folder in TMPDIR"
        )
    arrays: list[np.ndarray] = []
    for each in shapes:
        with tempfile.TemporaryFile(prefix="zoo-") as file:
            arrays.append(np.memmap(file, dtype, "w+", shape=each))
    return arrays


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the remarks of TensorFlow, where it is not yet loaded, and of tensorflow-datasets from the user."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _short(error: Exception) -> str:
    """An error's first words, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
