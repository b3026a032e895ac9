import shutil

import imagecodecs
import numpy as np
import pytest
from data_sets import image_folder, one_line, random_image, rows, write_images

from zoo.data import folder as folder_module
from zoo.data import load
from zoo.errors import InputError


def test_folder_splits_by_content(tmp_path):
    root = write_images(tmp_path / "set")
    before = load(image_folder(root))
    assert len(rows(before.train) | rows(before.validation) | rows(before.test)) == 60
    assert len(before.train) + len(before.validation) + len(before.test) == 60
    assert before.class_names == ("cat", "dog") and 4 <= len(before.test) <= 20
    assert before.protocol.endswith("test images (20%) chosen by content hash, used once")

    for path in list(root.glob("*/*.png")):
        path.rename(path.with_name(f"{999 - int(path.stem)}-renamed.PNG"))
    (root / "cat" / ".hidden").write_text("")
    (root / "dog" / "notes.txt").write_text("")
    renamed = load(image_folder(root))
    assert renamed.fingerprint == before.fingerprint
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(renamed, part).images, getattr(before, part).images)
        np.testing.assert_array_equal(getattr(renamed, part).labels, getattr(before, part).labels)

    write_images(root, classes=("cat",), count=31)
    (root / "cat" / "030.png").rename(root / "cat" / "new.png")
    for path in root.glob("cat/0*.png"):
        path.unlink()
    added = load(image_folder(root))
    assert added.fingerprint != before.fingerprint
    assert rows(before.test) <= rows(added.test)
    assert rows(before.train) | rows(before.validation) <= rows(added.train) | rows(added.validation)


def test_folder_labels_belong_to_their_images(tmp_path):
    root = write_images(tmp_path, count=12)
    data = load(image_folder(root, validation=0))
    dogs = {random_image(6, 5, 3, seed=1000 + index).tobytes() for index in range(12)}
    for split in (data.train, data.test):
        np.testing.assert_array_equal([image.tobytes() in dogs for image in split.images], split.labels == 1)


def test_folder_with_train_and_test(tmp_path):
    write_images(tmp_path / "train", count=9)
    write_images(tmp_path / "test", count=4)
    data = load(image_folder(tmp_path, validation=2))
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 2, 8)
    assert data.protocol == "16 training images, 2 more held out for validation by seed 0; test split used once"


def test_folder_of_16_bit_images(tmp_path):
    root = write_images(tmp_path, count=8, dtype=np.uint16)
    data = load(image_folder(root, validation=0, test=0.5))
    assert data.train.images.dtype == np.uint16
    written = {random_image(6, 5, 3, seed=1000 * k + i, dtype=np.uint16).tobytes() for k in (0, 1) for i in range(8)}
    assert rows(data.train) | rows(data.test) == written


def test_folder_on_demand_gives_what_memory_holds(tmp_path, monkeypatch):
    root = write_images(tmp_path, count=30, size=(7, 4))
    options = {"mean": (10, 20, 30.6), "size": (6, 6)}
    held = load(image_folder(root, **options))
    monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    lazy = load(image_folder(root, **options))
    assert not isinstance(lazy.test.images, np.ndarray) and isinstance(held.test.images, np.ndarray)
    for part in ("train", "validation", "test"):
        one, other = getattr(held, part).images, getattr(lazy, part).images
        assert one.shape == other.shape and one.dtype == other.dtype
        order = np.arange(len(one))[::-1]
        np.testing.assert_array_equal(one[order], other[order])
        np.testing.assert_array_equal(one[1:3], other[1:3])
    np.testing.assert_array_equal(held.test.images[0, 0, 0], [10, 20, 31])


def break_folder(root, what):
    cat = root / "cat"
    if what == "empty class":
        (root / "eel").mkdir()
    elif what == "other files":
        shutil.rmtree(root / "dog")
        (root / "dog").mkdir()
        (root / "dog" / "a.txt").write_text("")
        (root / "dog" / "b.gif").write_text("")
    elif what == "no folders":
        shutil.rmtree(root)
        root.mkdir()
    elif what == "truncated":
        content = (cat / "000.png").read_bytes()
        (cat / "000.png").write_bytes(content[: len(content) // 2])
    elif what == "no image":
        (cat / "000.png").write_text("hello")
    elif what == "depth":
        (cat / "deep.png").write_bytes(imagecodecs.png_encode(random_image(6, 5, 3, dtype=np.uint16)))
    elif what == "nested":
        (cat / "more").mkdir()
    elif what == "only train":
        write_images(root / "train")
    elif what == "classes differ":
        write_images(root / "train")
        write_images(root / "test", classes=("cat", "eel"))


@pytest.mark.parametrize(
    "what, classes, message",
    [
        ("empty class", 3, "eel: has no images; accepted: .png"),
        ("other files", 2, "dog: has no images (only 2 other files); accepted: .png"),
        ("no folders", 2, "has no folders; accepted: one folder a class"),
        ("truncated", 2, "000.png: broken or truncated"),
        ("no image", 2, "000.png: unknown format; accepted: PNG, JPEG, BMP, TIFF and .npy"),
        ("depth", 2, "one depth for all"),
        ("nested", 2, "more: a folder inside a class folder"),
        ("only train", 2, "has train/ but no test/"),
        ("classes differ", 2, "different classes (in one only: dog, eel)"),
        ("", 7, "model.num_classes: received 7; data set image_folder has 2 classes"),
    ],
)
def test_folder_errors(tmp_path, what, classes, message):
    root = write_images(tmp_path / "set", count=3)
    break_folder(root, what)
    with pytest.raises(InputError) as raised:
        load(image_folder(root, classes=classes))
    assert message in one_line(raised)


def spoil(root):
    """Five files that are no images any more, in five ways; the three that remain of each class stay as they are."""
    cut = (root / "cat" / "000.png").read_bytes()
    (root / "cat" / "000.png").write_bytes(cut[: len(cut) // 2])
    (root / "cat" / "001.png").write_bytes(b"")
    (root / "dog" / "000.png").write_text("hello")
    (root / "dog" / "001.png").write_bytes(cut[:60] + bytes(len(cut) - 60))
    (root / "dog" / "002.tif").write_bytes(b"II*\0 broken")
    return {"cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png", "dog/002.tif"}


@pytest.mark.parametrize("in_memory", [True, False])
def test_folder_without_what_cannot_be_read_is_the_folder_without_those_files(tmp_path, monkeypatch, in_memory):
    root = write_images(tmp_path / "set", count=12)
    names = spoil(root)
    if not in_memory:
        monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    skipped = load(image_folder(root, unreadable="skip"))
    assert skipped.unreadable == tuple(sorted(names))
    for name in names:
        (root / name).unlink()
    removed = load(image_folder(root))
    assert removed.unreadable == () and removed.fingerprint == skipped.fingerprint
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(skipped, part).images[:], getattr(removed, part).images[:])
        np.testing.assert_array_equal(getattr(skipped, part).labels, getattr(removed, part).labels)


def test_folder_of_train_and_test_counts_what_it_skips_in_both(tmp_path):
    write_images(tmp_path / "train", count=9)
    write_images(tmp_path / "test", count=4)
    for name in ("train/cat/003.png", "test/dog/002.png"):
        (tmp_path / name).write_bytes(b"")
    data = load(image_folder(tmp_path, unreadable="skip", validation=0))
    assert data.unreadable == ("train/cat/003.png", "test/dog/002.png")
    assert (len(data.train), len(data.test)) == (17, 7)


def test_folder_refuses_all_that_cannot_be_read_together(tmp_path):
    root = write_images(tmp_path / "set", count=12)
    names = spoil(root)
    with pytest.raises(InputError) as raised:
        load(image_folder(root))
    text = one_line(raised)
    assert all(name in text for name in names)
    assert "5 images in all" in text and text.endswith("data.unreadable=skip leaves out what cannot be read")


def test_folder_on_demand_names_what_it_cannot_read_when_it_is_asked_for(tmp_path, monkeypatch):
    root = write_images(tmp_path / "set", count=12)
    (root / "cat" / "004.png").write_bytes((root / "cat" / "004.png").read_bytes()[:70])
    monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    data = load(image_folder(root, validation=0))
    with pytest.raises(InputError, match="004.png: broken or truncated .*; data.unreadable=skip"):
        data.train.images[:], data.test.images[:]


def test_folder_with_a_class_of_which_nothing_can_be_read(tmp_path):
    root = write_images(tmp_path / "set", count=3)
    for path in root.glob("dog/*.png"):
        path.write_bytes(b"gone")
    with pytest.raises(InputError, match="dog: none of its images can be read .*unknown format"):
        load(image_folder(root, unreadable="skip"))


def test_folder_of_another_number_of_channels_is_no_unreadable_one(tmp_path):
    root = write_images(tmp_path / "set", count=3)
    with pytest.raises(InputError, match="received 3 channels in colour; accepted: 1"):
        load(image_folder(root, channels=1, unreadable="skip"))


def test_folder_missing(tmp_path):
    with pytest.raises(InputError, match="accepted: a folder with one folder a class"):
        load(image_folder(tmp_path / "none"))
