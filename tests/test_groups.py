"""What holds for every split: nothing is lost, specimens stay whole, and a file's part depends on it alone."""

import hashlib
import re
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from data_sets import config, image_folder, one_line, random_image
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import load_config
from zoo.data import load
from zoo.data.class_folders import ImageFile
from zoo.data.folder import OpenedFile, _draw_test
from zoo.data.splits import RecordedSplit, Records, hold_out
from zoo.errors import InputError


def specimens_of(labels, specimens):
    count = len(labels)
    records = Records(
        np.arange(count).astype(str).astype(object),
        np.arange(count, dtype=np.uint64),
        np.ones((count, 2), int),
        np.array([f"p{each}" for each in specimens], object),
    )
    return RecordedSplit(np.arange(count).reshape(-1, 1, 1, 1), np.array(labels, np.int32), records)


@settings(max_examples=150, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=60),
    validation=st.one_of(st.floats(0.01, 0.99), st.integers(1, 20)),
    seed=st.integers(0, 5),
)
def test_specimens_are_never_on_both_sides(images, validation, seed):
    labels, specimens = zip(*images, strict=True)
    whole = specimens_of(labels, specimens)
    if (
        validation >= len(images)
        or 0 < validation < 1
        and round(validation * len(images)) == len(images)
        or len(set(specimens)) == 1
    ):
        with pytest.raises(InputError, match="data.validation: received|data.group: all training images are of the sp"):
            hold_out(whole, validation, seed)
        return
    train, held = hold_out(whole, validation, seed)
    assert len(train) and len(held)
    assert not set(train.records.specimens) & set(held.records.specimens)
    assert sorted([*train.images.ravel(), *held.images.ravel()]) == list(range(len(images)))
    for part in (train, held):
        np.testing.assert_array_equal(part.labels, whole.labels[part.images.ravel()])
        np.testing.assert_array_equal(part.records.specimens, whole.records.specimens[part.images.ravel()])
    np.testing.assert_array_equal(held.images, hold_out(whole, validation, seed)[1].images)


@pytest.mark.parametrize("validation", [0.1, 0.25, 0.5])
def test_whole_specimens_meet_the_share_of_every_class(validation):
    rng = np.random.default_rng(0)
    specimens = np.repeat(np.arange(100), 10)
    labels = rng.choice(3, 1000, p=[0.7, 0.2, 0.1])
    chosen = []
    for seed in range(5):
        held = hold_out(specimens_of(labels, specimens), validation, seed)[1]
        shares = np.bincount(held.labels, minlength=3) / np.bincount(labels)
        np.testing.assert_allclose(shares, validation, atol=0.04)
        chosen.append(frozenset(held.records.specimens))
    assert len(set(chosen)) == 5


def file(content, specimen=None, name="a"):
    digest = hashlib.sha256(str(content).encode()).hexdigest()
    return OpenedFile(ImageFile(Path(name), 0, name, specimen), digest, np.dtype(np.uint8), (1, 1))


@settings(max_examples=100, deadline=None)
@given(
    contents=st.sets(st.integers(), min_size=1, max_size=30),
    more=st.sets(st.integers(), max_size=30),
    share=st.floats(0.05, 0.95),
)
def test_renaming_and_adding_files_moves_no_other(contents, more, share):
    before = [file(each) for each in contents]
    train, test = ({each.digest for each in part} for part in _draw_test(before, share))
    assert not train & test and train | test == {each.digest for each in before}
    after = [file(each, name=f"other{each}") for each in contents | more]
    later_train, later_test = ({each.digest for each in part} for part in _draw_test(after, share))
    assert train <= later_train and test <= later_test


@settings(max_examples=100, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(), st.text("pq", min_size=1, max_size=3)), min_size=2, max_size=40),
    share=st.floats(0.05, 0.95),
)
def test_specimens_are_drawn_whole_by_their_names_alone(images, share):
    files = [file(*each) for each in images]
    names = {specimen for _, specimen in images}
    drawn = {name: int(hashlib.sha256(name.encode()).hexdigest()[:13], 16) / 16**13 < share for name in names}
    if len(set(drawn.values())) == 1:
        with pytest.raises(InputError):
            _draw_test(files, share)
        return
    train, test = _draw_test(files, share)
    assert {each.file.specimen for each in test} == {name for name in names if drawn[name]}
    assert {each.file.specimen for each in train} == {name for name in names if not drawn[name]}


def specimens(root, names=tuple("abcdefghijkl"), classes=("cat", "dog"), each=4):
    for label, name in enumerate(classes):
        for number, specimen in enumerate(names):
            (root / name).mkdir(parents=True, exist_ok=True)
            for index in range(each):
                pixels = random_image(6, 5, 3, seed=10_000 * label + 100 * number + index)
                (root / name / f"case-{specimen}_{index}.png").write_bytes(imagecodecs.png_encode(pixels))
    return root


def names_of(split):
    return {re.search("case-(.)", name)[1] for name in split.records.names}


@pytest.mark.parametrize("group", [r"case-(\w)_", "case-[a-z]", "(?:cat|dog)/case-(.)"])
def test_a_folder_of_specimens(tmp_path, group):
    root = specimens(tmp_path / "set")
    data = load(image_folder(root, group=group, validation=0.2, test=0.4))
    parts = [names_of(part) for part in (data.train, data.validation, data.test)]
    assert all(parts) and sum(map(len, parts)) == 12 == len(set.union(*parts))
    assert len(data.train) + len(data.validation) + len(data.test) == 96 and data.faults == ()
    assert " more, of whole specimens, held out" in data.protocol and "chosen by specimen" in data.protocol
    without = load(image_folder(root, validation=0.2, test=0.4))
    assert without.protocol.endswith("chosen by content hash, used once") and without.train.records.specimens is None


def test_specimens_in_several_parts_are_told_and_those_held_out_are_whole(tmp_path):
    specimens(tmp_path / "train", names="abcdef")
    specimens(tmp_path / "test", names="ghfa", each=3)
    data = load(image_folder(tmp_path, group="case-(.)", validation=0.3))
    (line,) = [str(each) for each in data.faults if each.kind == "specimen"]
    assert line == "2 of 4 specimens of the test images are also among the specimens of the training images: a, f"
    assert not names_of(data.train) & names_of(data.validation)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"group": "case-([a-k])"},
            "finds no specimen in 8 of 96 paths (cat/case-l_0.png, cat/case-l_1.png, cat/case-",
        ),
        ({"group": "z*"}, "finds no specimen in 96 of 96 paths"),
        ({"group": "case"}, "data.group: finds the single specimen 'case'; accepted: two or more"),
        ({"group": "case-(.)", "test": 0.001}, "of 12 specimens none is for testing; accepted: above 0."),
        ({"group": "case-(.)", "test": 0.999}, "of 12 specimens none is left to train on; accepted: at most 0."),
    ],
)
def test_patterns_that_do_not_serve(tmp_path, options, message):
    with pytest.raises(InputError) as raised:
        load(image_folder(specimens(tmp_path / "set"), **options))
    assert message in one_line(raised)
    if "accepted: above" in message:
        share = float(str(raised.value).rsplit(" ", 1)[1])
        assert len(load(image_folder(tmp_path / "set", group="case-(.)", test=share + 1e-4)).test) == 8


def test_one_specimen_to_train_on(tmp_path):
    specimens(tmp_path / "train", names="a")
    specimens(tmp_path / "test", names="b")
    with pytest.raises(InputError, match="all training images are of the specimen 'a'; accepted: data.validation=0"):
        load(image_folder(tmp_path, group="case-(.)"))
    assert len(load(image_folder(tmp_path, group="case-(.)", validation=0)).train) == 8


def test_the_key_is_checked_before_anything_is_read():
    for pattern in ("(", "a{99999999999999999999}"):
        with pytest.raises(InputError, match=r"data.group: received .*accepted: a regular expression"):
            load_config("nin_digits", [f"data.group='{pattern}'"])
    with pytest.raises(InputError, match="data.group: received 'a'; accepted: null with data.name = digits"):
        load(config("digits", group="a"))


def test_a_folder_that_is_moved_keeps_its_split(tmp_path):
    root = specimens(tmp_path / "set")
    before = load(image_folder(root, group="case-(.)", test=0.4))
    shutil.move(root, tmp_path / "moved")
    after = load(image_folder(tmp_path / "moved", group="case-(.)", test=0.4))
    assert before.fingerprint == after.fingerprint
    np.testing.assert_array_equal(before.validation.images, after.validation.images)
