"""Which large images are for training, validation and testing: by a file, by content, by specimen."""

import pytest
from data_sets import POINTS, one_line, scene_parts, scenes, split_file, write_scenes
from hypothesis import given
from hypothesis import strategies as st

from zoo.config.data import DataConfig
from zoo.data import load
from zoo.data.scene_splits import draw_split
from zoo.data.splits import draw
from zoo.errors import InputError

digests = st.lists(st.integers(0, 2**256 - 1), min_size=3, max_size=40, unique=True)


@given(digests, st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_every_part_has_an_image_and_shares_are_drawn(numbers, test, validation):
    keys = [f"{number:064x}" for number in numbers]
    data = DataConfig(name="scenes", dir=".", test=test, validation=validation)
    divided = draw_split(data, keys, [None] * len(keys))
    drawn = {part: [draw(key) for key, of in zip(keys, divided, strict=True) if of == part] for part in set(divided)}
    assert drawn.keys() == {"train", "validation", "test"}
    assert max(drawn["test"]) <= min(drawn["validation"]) <= max(drawn["validation"]) <= min(drawn["train"])
    # Where each part has an image of its own, who is in it is a function of its own number alone.
    for part, least, most in (("test", 0, test), ("validation", test, test + (1 - test) * validation)):
        inside = [number for number in map(draw, keys) if least <= number < most]
        if len(inside) and all(len(each) > 1 for each in drawn.values()):
            assert sorted(drawn[part]) == sorted(inside) or len(drawn["train"]) == 1
    assert divided == draw_split(data, keys, [None] * len(keys))


@given(digests, st.integers(1, 50))
def test_validation_may_be_a_number_of_images(numbers, count):
    keys = [f"{number:064x}" for number in numbers]
    divided = draw_split(DataConfig(name="scenes", dir=".", validation=count), keys, [None] * len(keys))
    others = len(keys) - divided.count("test")
    assert divided.count("validation") == min(count, others - 1)


def test_specimens_stay_together(tmp_path):
    root = write_scenes(tmp_path, 12)
    for index in range(12):
        (root / "images" / f"{index}.tif").rename(root / "images" / f"p{index % 4}_{index}.tif")
    table = root / "points.csv"
    lines = table.read_text().splitlines(True)[1:]
    table.write_text(POINTS + "".join(f"p{int(line.split('.')[0]) % 4}_{line}" for line in lines))
    data = load(scenes(root, group="p[0-9]"))
    where = [{name[:2] for name in each} for each in scene_parts(data).values()]
    assert sum(map(len, where)) == 4 and set.union(*where) == {"p0", "p1", "p2", "p3"}
    with pytest.raises(InputError, match="finds no specimen in 12 of 12 paths"):
        load(scenes(root, group="q"))
    with pytest.raises(InputError, match=r"1 specimens .* at least 3, for train and validation and test"):
        load(scenes(root, group="p"))


def test_a_split_file_divides(tmp_path):
    root = write_scenes(tmp_path, 5)
    rows = [("0.tif", "test"), ("images/1.tif", "train"), ("2", "validation"), ("3.tif", "Train"), ("4.tif", "test")]
    data = load(scenes(root, split=split_file(root, rows)))
    assert scene_parts(data) == {"train": {"1.tif", "3.tif"}, "validation": {"2.tif"}, "test": {"0.tif", "4.tif"}}
    assert "chosen by data.split" in data.protocol
    rows[2] = ("2", "train")
    data = load(scenes(root, split=split_file(root, rows), validation=0))
    assert data.validation is None and data.scenes.validation == ()


@pytest.mark.parametrize(
    "rows, options, message",
    [
        ([("0.tif", "test"), ("1.tif", "train")], {}, r"no row for 1 of 3 images \(2.tif\); accepted: a row for each"),
        ([("0.tif", "test"), ("9.tif", "train")], {}, r"1 images that are not in data.dir \(9.tif\)"),
        ([("0.tif", "test"), ("0.tif", "train")], {}, "row 2: received image '0.tif' again"),
        ([("0.tif", "tests")], {}, "row 1: received '0.tif,tests'; accepted: an image and train, validation, test"),
        ([(f"{i}.tif", "train") for i in range(3)], {"validation": 0}, "no test image; accepted: at least one$"),
        ([(f"{i}.tif", "test") for i in range(3)], {}, "no train image"),
        (
            [("0.tif", "test"), ("1.tif", "train"), ("2.tif", "train")],
            {},
            "no validation image; accepted: at least one",
        ),
        ([("0.tif", "test")], {"test": 0.5}, "data.test: received 0.5; accepted: none .*beside data.split"),
    ],
)
def test_split_files_that_are_refused(tmp_path, rows, options, message):
    root = write_scenes(tmp_path, 3)
    with pytest.raises(InputError, match=message) as raised:
        load(scenes(root, split=split_file(root, rows), **options))
    one_line(raised)
