"""What `python -m zoo.cli.ship` writes: weights in float16, measured as they are then, in an index."""

import datetime
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
from conftest import randomize
from finished_runs import change_report, finished_run

import zoo
from zoo import shipped, shipping
from zoo.card import Card, attach, card
from zoo.cli import main
from zoo.cli.ship import ship
from zoo.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of a changed config; not to be changed."""
    return finished_run(
        tmp_path_factory.mktemp("runs") / "made", "train.epochs=2", "train.milestones=[0.5, 0.75]", "seed=3"
    )


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run."""
    return shutil.copytree(made, tmp_path / "run")


def shipped_by_command(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, words)], command=ship, name="ship")
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


@pytest.mark.extended
def test_a_run_is_shipped_and_shipped_again(capsys, run, tmp_path):
    release = tmp_path / "release"
    words = (run, "nin_digits", "-o", release)
    code, out, err = shipped_by_command(capsys, *words)
    assert code == 0 and "accuracy 99.72% of 360 test images, as shipped" in out, err
    index = shipped.read_index(release)
    row = index.models["nin_digits"]
    assert list(index.data) == ["digits"] and row.sha256 == shipped.checksum(release / "nin_digits.keras")
    assert row.overrides == ("train.epochs=2", "train.milestones=[0.5, 0.75]") and row.seed == 3
    assert row.command() == "zoo train nin_digits train.epochs=2 'train.milestones=[0.5, 0.75]' seed=3"
    assert row.date == datetime.date(2026, 11, 26) and row.logits == shipped.index().models["nin_digits"].logits
    assert shipped_by_command(capsys, *words)[0] == 0
    # Another run needs leave, and other rows stay.
    (release / shipped.INDEX).write_text((release / shipped.INDEX).read_text().replace("  nin_digits:", "  nin_mnist:"))
    zoo.save(randomize(zoo.load(run)), run / "model.keras")
    code, _, err = shipped_by_command(capsys, *words)
    assert code == 2 and "made from another model; accepted: another path, or --overwrite" in err
    code, _, err = shipped_by_command(capsys, *words, "--overwrite")
    assert code == 2 and "as float16; accepted: 99.72% of 360, as there" in err
    shutil.copyfile(shipped.shipped_file("nin_digits"), run / "model.keras")
    assert shipped_by_command(capsys, *words, "--overwrite")[0] == 0
    assert sorted(shipped.read_index(release).models) == ["nin_digits", "nin_mnist"]


@pytest.mark.extended
def test_data_that_lay_elsewhere_and_numbers_for_names(run, tmp_path):
    model = zoo.load(run)
    names = tuple(f"number {index}" for index in range(10))
    zoo.save(
        attach(model, Card.model_validate({**card(model).model_dump(), "class_names": names})), run / "model.keras"
    )
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: digits\n  dir: null", "name: npz\n  dir: /nowhere/digits.npz"))
    with pytest.raises(InputError, match="source: received 'npz'; accepted: one of those described .*: .*digits"):
        shipping.ship(run, "nin_digits", tmp_path / "release")
    row = shipping.ship(run, "nin_digits", tmp_path / "release", overrides=["data.name=digits", "data.dir=null"])
    assert "nowhere" not in (tmp_path / "release" / shipped.INDEX).read_text() and row.data == "digits"
    assert not any(each.startswith("data.") for each in row.overrides)
    assert card(zoo.load(tmp_path / "release" / "nin_digits.keras")).class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("nin_mnist", None, "model.image_size: received .8, 8.; accepted: .28, 28., as nin_mnist in the catalogue"),
        ("nin", None, "unknown model 'nin'"),
        ("nin_digits", ("name: nin_digits", "name: mine"), "unknown config 'mine'"),
        ("nin_digits", ("weights: null", "weights: /home/me/run"), "train.weights: received '/home/me/run'; accepted"),
    ],
)
def test_what_is_not_the_catalogues_is_refused(run, tmp_path, name, change, text):
    if change:
        (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(*change))
    with pytest.raises(InputError, match=text):
        shipping.ship(run, name, tmp_path / "release")
    assert not (tmp_path / "release").exists()


@pytest.mark.extended
def test_a_run_that_is_not_finished_or_reached_something_else_is_refused(run, tmp_path):
    change_report(run, accuracy=0.9)
    with pytest.raises(InputError, match="99.72% of 360 test images as float16; accepted: 90.00% of 360, as there"):
        shipping.ship(run, "nin_digits", tmp_path / "release")
    (run / "evaluation.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        shipping.ship(run, "nin_digits", tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_weights_are_rounded_once_and_everything_else_stays(tmp_path):
    model = randomize(zoo.build("nin_digits"))
    file = zoo.save(model, tmp_path / "net.keras")
    before = file.stat().st_size
    shipping.store_as_float16(file)
    with zipfile.ZipFile(file) as archive:
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5", "zoo.json"]
        kinds = set()
        with archive.open("model.weights.h5") as weights, h5py.File(weights) as stored:
            stored.visititems(lambda _, node: kinds.add(node.dtype.name) if isinstance(node, h5py.Dataset) else None)
    assert kinds == {"float16"} and file.stat().st_size < 0.7 * before
    for given, wanted in zip(keras.models.load_model(file).weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(given), np.asarray(wanted).astype(np.float16))
    model.weights[0].assign(np.full(model.weights[0].shape, 1e5))
    with pytest.raises(InputError, match="weight 'layers/.*': received 100000; accepted: at most 65504"):
        shipping.store_as_float16(zoo.save(model, tmp_path / "large.keras"))


def test_the_fixed_images_are_noise_and_digits():
    images = shipping.fixed_images(12, 10, 3)
    assert images.shape == (8, 12, 10, 3) and images.dtype == np.uint8
    assert images[0, 0, :, 0].tolist() == [172, 192, 195, 211, 36, 216, 58, 39, 88, 25]
    # A digit is a drawing in the middle, the same in all channels, and nothing around it.
    assert (images[4:] == images[4:, ..., :1]).all() and images[4:, 2:10, 1:9].any() and not images[4:, [0, -1]].any()
