import os
from pathlib import Path

import numpy as np
import pytest
from data_sets import config, one_line, random_image

from zoo.config.sources import SOURCES
from zoo.data import fit_image, load
from zoo.data.tfds import _allocate
from zoo.errors import InputError


def prepared(name):
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip(f"TFDS_DATA_DIR holds no {name}")


@pytest.mark.extended
def test_mnist():
    prepared("mnist")
    data = load(config("mnist", size=(28, 28), validation=5000, seed=3))
    assert data.train.images.shape == (55_000, 28, 28, 1) and data.train.images.dtype == np.uint8
    assert (len(data.validation), len(data.test)) == (5000, 10_000)
    assert data.class_names == tuple("0123456789")
    # Class counts of the published test set.
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    both = np.concatenate([data.train.images, data.validation.images])
    assert both.mean() == pytest.approx(33.318, abs=1e-3)


@pytest.mark.extended
def test_cifar10():
    prepared("cifar10")
    data = load(config("cifar10", size=(32, 32), channels=3, validation=0))
    assert data.train.images.shape == (50_000, 32, 32, 3) and len(data.test) == 10_000
    assert data.class_names[:3] == ("airplane", "automobile", "bird") and data.class_names[9] == "truck"
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    np.testing.assert_allclose(data.train.images.mean((0, 1, 2)), [125.3, 123.0, 113.9], atol=0.1)


@pytest.fixture(scope="module")
def own_set(tmp_path_factory):
    """A prepared set without a test split, whose images differ in size; the images by their label."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    images = {split: [random_image(4 + i, 9 - i, 3, seed=i) for i in range(4)] for split in ("train", "validation")}
    datasets = {
        split: tf.data.Dataset.from_generator(
            lambda some=some: ({"image": image, "label": index % 2, "size": index} for index, image in enumerate(some)),
            output_signature={
                "image": tf.TensorSpec((None, None, 3), tf.uint8),
                "label": tf.TensorSpec((), tf.int64),
                "size": tf.TensorSpec((), tf.int64),
            },
        )
        for split, some in images.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="own_set",
        version="1.0.0",
        data_dir=root,
        split_datasets=datasets,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
                "size": np.int64,
            }
        ),
        disable_shuffling=True,
    )
    return root, images["validation"]


def test_prepared_set_of_varying_sizes_without_test_split(own_set, monkeypatch):
    root, images = own_set
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    data = load(config("own_set", size=(5, 8), channels=3, classes=2, mean=(50,), validation=1))
    assert data.class_names == ("even", "odd") and data.test.labels.tolist() == [0, 1, 0, 1]
    assert "has no test split, so its validation split is the test split" in data.protocol
    size, leak, empty = map(str, data.faults)
    assert size.startswith("6 of 8 images (3 training, 3 test) are of another size than the model's 5 x 8, cropped and")
    assert leak.startswith("4 of 4 test images are also among the training images: validation[0], validation[1], valid")
    assert empty == "1 of 2 classes has no validation images: odd"
    for image, fitted in zip(images, data.test.images, strict=True):
        np.testing.assert_array_equal(fitted, fit_image(image, (5, 8), fill=50))


def test_set_on_disk_is_the_set_in_memory(own_set, monkeypatch):
    options = {"dir": own_set[0], "size": (5, 8), "channels": 3, "classes": 2, "validation": 1}
    held = load(config("own_set", **options))
    monkeypatch.setattr("zoo.data.tfds._IN_MEMORY", 0)
    mapped = load(config("own_set", **options))
    assert isinstance(mapped.test.images, np.memmap) and not isinstance(held.test.images, np.memmap)
    np.testing.assert_array_equal(mapped.test.images, held.test.images)
    assert mapped.fingerprint == held.fingerprint
    other = load(config("own_set", **options | {"size": (4, 4)}))
    assert other.test_fingerprint == held.test_fingerprint != held.fingerprint


def test_no_room_on_disk():
    with pytest.raises(InputError, match="the decoded images need 1000000.0 GB, but .* GB free"):
        _allocate([10**9], (1000, 1000, 1), np.dtype(np.uint8))


@pytest.mark.parametrize(
    "name, message",
    [
        ("mnits", "unknown data set 'mnits'; nearest: mnist"),
        ("digit", "unknown data set 'digit'; nearest: digits"),
        ("no set at all", f"unknown data set 'no set at all'; accepted: {', '.join(SOURCES)}, or a set of tensor"),
        ("mnist:9.9.9", "data.name: 'mnist:9.9.9' cannot be opened"),
        ("imdb_reviews", "has text (Text), label (ClassLabel); accepted: sets with one Image and one ClassLabel"),
    ],
)
def test_set_that_cannot_be_used(tmp_path, name, message):
    with pytest.raises(InputError) as raised:
        load(config(name, dir=tmp_path))
    assert message in one_line(raised)


def test_set_that_cannot_be_downloaded(tmp_path, monkeypatch):
    import requests

    def no_network(*_, **__):
        raise requests.ConnectionError("no route\nto host")

    monkeypatch.setattr(requests, "head", no_network)
    with pytest.raises(InputError) as raised:
        load(config("kmnist", size=(28, 28), dir=tmp_path))
    message = one_line(raised)
    for part in ("kmnist", "could not be downloaded (no connection to codh.rois.ac.jp)", "TFDS_DATA_DIR or data.dir"):
        assert part in message
    assert "tfds.load('kmnist')" in message and "configs/nin_digits.yaml needs no download" in message
    assert not list(tmp_path.iterdir())
