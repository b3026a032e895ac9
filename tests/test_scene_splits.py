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
from zoo.pictures.tables import read_table

digests = st.lists(st.integers(0, 2**256 - 1), min_size=3, max_size=40, unique=True)


def drawn_parts(keys, specimens=None, **options):
    """Each part's images, as indices of `keys`."""
    data = DataConfig(name="scenes", dir=".", **options)
    divided = draw_split(data, keys, specimens or [None] * len(keys))
    assert divided == draw_split(data, keys, specimens or [None] * len(keys))
    return {part: [index for index, of in enumerate(divided) if of == part] for part in ("test", "validation", "train")}


@given(digests, st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_shares_are_exact_and_parts_in_the_order_of_hashes(numbers, test, validation):
    keys = [f"{number:064x}" for number in numbers]
    parts = drawn_parts(keys, test=test, validation=validation)
    tests = min(max(round(test * len(keys)), 1), len(keys) - 2)
    held_out = min(max(round(validation * (len(keys) - tests)), 1), len(keys) - tests - 1)
    assert [len(part) for part in parts.values()] == [tests, held_out, len(keys) - tests - held_out]
    numbers = [[draw(keys[index]) for index in part] for part in parts.values()]
    assert max(numbers[0]) <= min(numbers[1]) <= max(numbers[1]) <= min(numbers[2])


@given(digests, st.integers(1, 50))
def test_validation_may_be_a_number_of_images(numbers, count):
    keys = [f"{number:064x}" for number in numbers]
    others = len(keys) - max(round(0.2 * len(keys)), 1)
    if count < others:
        assert len(drawn_parts(keys, validation=count)["validation"]) == count
        return
    with pytest.raises(InputError, match=f"received {count}; accepted: fewer than the {others} images that are not"):
        drawn_parts(keys, validation=count)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.floats(0.05, 0.6), st.floats(0.05, 0.6))
def test_specimens_are_whole_and_near_to_their_shares(sizes, test, validation):
    specimens = [f"s{index}" for index, size in enumerate(sizes) for _ in range(size)]
    keys = [f"{index:064x}" for index in range(len(specimens))]
    parts = drawn_parts(keys, specimens, test=test, validation=validation)
    owners = {name: {specimens[index] for index in part} for name, part in parts.items()}
    assert sum(map(len, owners.values())) == len(sizes) and all(owners.values())
    total, available = len(specimens), owners["test"] | owners["validation"] | owners["train"]
    for name, share in (("test", test), ("validation", validation)):
        wanted, away = round(share * total), abs(round(share * total) - len(parts[name]))
        others = available - owners[name]
        if len(owners[name]) > 1 or len(parts[name]) < 2 * wanted:
            # No other specimen would have brought it nearer, unless the parts that follow needed that one.
            nearer = [each for each in others if abs(wanted - len(parts[name]) - specimens.count(each)) < away]
            assert not nearer or len(others) == (2 if name == "test" else 1)
        else:
            assert len(parts[name]) == min(map(specimens.count, available))
        total, available = total - len(parts[name]), others


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
    with pytest.raises(InputError, match=r"1 specimen .* at least 3, for train and validation and test"):
        load(scenes(root, group="p"))


def test_a_split_file_divides(tmp_path):
    root = write_scenes(tmp_path, 5)
    rows = [("0.tif", "test"), ("images/1.tif", "train"), ("2", "validation"), ("3.tif", "Train"), ("4.tif", "test")]
    data = load(scenes(root, split=split_file(root, rows)))
    assert scene_parts(data) == {"train": {"1.tif", "3.tif"}, "validation": {"2.tif"}, "test": {"0.tif", "4.tif"}}
    assert "chosen by data.split" in data.protocol
    # The division is a part of the data that a run began with.
    swapped = [*rows[:1], (rows[1][0], "validation"), (rows[2][0], "train"), *rows[3:]]
    again = load(scenes(root, split=split_file(root, swapped)))
    assert again.fingerprint != data.fingerprint and again.test_fingerprint == data.test_fingerprint
    rows[2] = ("2", "train")
    data = load(scenes(root, split=split_file(root, rows), validation=0))
    assert data.validation is None and data.scenes.validation == ()


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
def test_tables_may_be_written_by_any_program(tmp_path, separator):
    lines = [("Note", '"Split"', "IMAGE", ""), ("a", "TEST", '"x 1.png"', ""), ("", "train", "y.png", ""), (" ",), ()]
    (tmp_path / "split.csv").write_text("\ufeff" + "\r\n".join(map(separator.join, lines)))
    rows = list(read_table(tmp_path / "split.csv", "table", ("image", "split")))
    assert [(row.number, row.values["image"], row.values["split"]) for row in rows] == [
        (1, "x 1.png", "TEST"), (2, "y.png", "train"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text, message",
    [
        ("image,split\na.png\n", "table: row 1: received 'a.png', 1 values; accepted: 2, as in the header"),
        ("image,split\na.png,test\nb,c,d\n", "table: row 2: received 'b,c,d', 3 values; accepted: 2"),
        (
            "image,Image,split\n",
            "table: received a first line 'image,Image,split'; accepted: a header there, with the columns image,",
        ),
        ("", "table: received a first line ''; accepted: a header there"),
        ('image,split\n"a,b\n', r"table: broken \(unexpected end of data\)"),
        ("image,split\n\udcff", "table: broken .*codec can't decode"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    (tmp_path / "split.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message) as raised:
        list(read_table(tmp_path / "split.csv", "table", ("image", "split")))
    one_line(raised)


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
