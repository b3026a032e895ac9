"""Packages for bioimage.io: sizes of outputs, what is in them, and that project's own checker."""

import hashlib
import json
import math
import subprocess
import sys
import venv
import zipfile
from fractions import Fraction

import keras
import numpy as np
import pytest
import small_nets
import yaml
from conftest import command, noise, randomize
from keras import layers
from PIL import Image

import zoo
from zoo.card import Card, Preprocess, attach
from zoo.errors import InputError
from zoo.exported.reading import opened
from zoo.exporting.bioimageio_description import About, _exact, _identifiers
from zoo.exporting.size_rules import size_rules
from zoo.network.network import Network
from zoo.scores import relative_error

pytest.importorskip("tf2onnx")


def chain(*parts, shape=(None, None, 3), **known):
    return attach(small_nets.chain(*parts, shape=shape), Card(**known))


def conv(filters, kernel, strides=1, padding="valid", **more):
    return layers.Conv2D(filters, kernel, strides, padding, **more)


def several():
    image = keras.Input((None, None, 3))
    x = conv(4, 3, 2)(image)
    up = layers.UpSampling2D(4)(conv(4, 2, 2)(x))
    return randomize(keras.Model(image, [conv(2, 1, name="Map-one")(x), conv(2, 1, name="up")(up), mean(x)]))


def merged():
    """Branches that have one size at sides 1 and 2 beyond a multiple of 4 alone."""
    image = keras.Input((None, None, 3))
    x = conv(4, 3, 2)(image)
    return randomize(keras.Model(image, layers.Concatenate()([conv(2, 2, 2)(x), conv(2, 1, 2)(x)])))


def mean(x):
    return layers.Dense(3, name="all", activation="softmax")(layers.GlobalAveragePooling2D()(x))


def digits(**options):
    return zoo.convolutionalize(zoo.load("nin_digits"), **options)


# A model, and by axis and output: the least side, the step, and (stride, offset, halo) of its maps.
RULES = {
    "no padding": (lambda: zoo.convolutionalize(zoo.load("nin_mnist_valid")), [(28, 4, [(4, -6, 0)])] * 2),
    "padded": (lambda: chain(conv(4, 3, 1, "same"), layers.MaxPooling2D(2), conv(2, 3, 1, "same")), None),
    "strides by axis": (lambda: chain(conv(2, (3, 5), (1, 3))), [(3, 1, [(1, -2, 0)]), (6, 3, [(3, -1, 0)])]),
    "a window that is no multiple": (lambda: chain(conv(2, 10, 4)), [(12, 4, [(4, -2, 0)])] * 2),
    "upsampled": (lambda: chain(conv(2, 2, 1), layers.UpSampling2D(2)), [(2, 1, [(Fraction(1, 2), -2, 0)])] * 2),
    "a reach that is not known": (
        lambda: chain(layers.Conv2DTranspose(2, 3, 2)),
        [(1, 1, [(Fraction(1, 2), 1, 0)])] * 2,
    ),
    "fixed": (lambda: chain(conv(2, 3), shape=(20, 15, 3)), [(20, 0, [(0, 18, 0)]), (15, 0, [(0, 13, 0)])]),
    "one axis": (
        lambda: chain(layers.Conv1D(2, 5, 2), shape=(None, 2)),
        [(6, 2, [(2, -2, 0)])],
    ),
    "several": (several, None),
    "sizes that merge": (merged, [(5, 0, [(0, 1, 0)])] * 2),
    "no map": (lambda: digits(pooling="global"), [(8, 1, [])] * 2),
}


@pytest.mark.parametrize("name", RULES)
def test_sizes_of_outputs_follow_their_rule(name):
    """Against the shapes that Keras itself gives, for many images of the sizes that the rule admits."""
    build, wanted = RULES[name]
    network = Network.of(build())
    rules = size_rules(network)
    for axis, rule in enumerate(rules):
        if wanted is not None:
            least, step, maps = wanted[axis]
            assert (rule.least, rule.step) == (least, step)
            assert [(each.stride, each.offset, each.halo) for each in rule.maps.values()] == maps
        for count in (0, 1, 2, 3, 10, 17) if rule.step else (0,):
            sides = [each.side(2) for each in rules]
            sides[axis] = rule.side(count)
            shapes = network.model.compute_output_shape((1, *sides, network.channels))
            shapes = shapes if isinstance(shapes, list) else [shapes]
            for number, of_map in rule.maps.items():
                assert of_map.rows(sides[axis]) == shapes[number][1 + axis], (count, number)
                # What programs compute in floats and whole numbers, rounding down or to the nearest.
                if of_map.stride:
                    parts = sides[axis] / float(of_map.stride)
                    assert int(parts) == round(parts) == parts
    assert name != "several" or [len(rule.maps) for rule in rules] == [2, 2]


@pytest.mark.parametrize(("kernel", "strides"), [(3, 1), (5, 1), (5, 2)])
def test_a_halo_is_the_cells_that_see_padding(kernel, strides):
    """Moving the image by a stride moves every other cell: those inside the halo are the crop's own."""
    model = chain(conv(4, kernel, strides, "same"), conv(2, 3, 1, "same", use_bias=False))
    network = Network.of(model)
    rule = size_rules(network)[0]
    halo, side = rule.maps[0].halo, rule.side(6)
    assert halo > 0 and rule.maps[0].rows(rule.least) > 2 * halo
    image = noise(1, side + 8 * strides, side + 8 * strides, 3)
    at = slice(4 * strides, 4 * strides + side)
    whole, crop = np.asarray(model(image)), np.asarray(model(image[:, at, at]))
    count = crop.shape[1]
    apart = np.abs(whole[:, 4 : 4 + count, 4 : 4 + count] - crop).max((0, 3))
    inside = slice(halo, count - halo)
    assert apart[inside, inside].max() <= 1e-4 < apart.max()
    cells = np.argwhere(apart > 1e-3)
    assert np.minimum(cells, count - 1 - cells).min(1).max() == halo - 1  # and no fewer would do


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(InputError, match="an output whose size follows no rule"):
        size_rules(Network.of(chain(conv(2, 3, 1000))))


def test_a_pixel_size_keeps_sizes_exact():
    """In floats side * size / (size * stride) is at times just below the whole number that it means."""
    assert int(32744 * 0.2505 / (0.2505 * 8.0)) == 4092 != 32744 // 8
    for size in [*np.random.default_rng(0).uniform(0.05, 3, 40).round(3).tolist(), 0.1, 0.325, 0.2505]:
        exact = _exact(size)
        assert math.isclose(exact, size, rel_tol=1e-9)
        for stride in (1.0, 7.0, 8.0, 0.5):
            assert exact * stride * 2 / exact == stride * 2
            sides = np.arange(7 * 8, 10**6, 7 * 8)
            np.testing.assert_array_equal((sides * exact / (exact * stride)).astype(int), sides / stride)
    assert _exact(0.5) == 0.5 and _exact(None) is None


def test_names_are_those_of_the_format():
    assert _identifiers(["image", "is-it", "is_it", "Z last", "1st", "x" * 40]) == [
        *("image", "is_it", "is_it_2", "z_last", "output_1st", "x" * 28),
    ]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    model = attach(digits(), Card(**{**Network.of(digits()).card.model_dump(), "pixel_size": 0.325}))
    return zoo.export(model, tmp_path_factory.mktemp("package") / "digits.zip", format="bioimageio")


def test_what_a_package_tells_goes_with_no_other_format(tmp_path):
    with pytest.raises(InputError, match="'onnx': received what a package tells .* with the format bioimageio"):
        zoo.export(chain(conv(2, 3)), tmp_path / "net.onnx", format="onnx", about=About(licence="MIT"))
    assert list(tmp_path.iterdir()) == []


def test_a_package_holds_what_it_lists(package):
    with zipfile.ZipFile(package) as archive:
        content = yaml.safe_load(archive.read("rdf.yaml"))
        files = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(files) == ["README.md", "rdf.yaml", "test_image.npy", "test_logits.npy", "weights.onnx"]
    (image,), (scores,) = content["inputs"], content["outputs"]
    for each in (image["test_tensor"], scores["test_tensor"], content["weights"]["onnx"]):
        assert hashlib.sha256(files[each["source"]]).hexdigest() == each["sha256"]
    assert image["data"] == {"type": "uint8"} and "preprocessing" not in image
    assert [axis.get("id", axis["type"]) for axis in image["axes"]] == ["batch", "y", "x", "channel"]
    rows = scores["axes"][1]
    assert rows["unit"] == image["axes"][1]["unit"] == "micrometer"
    assert math.isclose(rows["scale"] / image["axes"][1]["scale"], 2) and rows["size"]["axis_id"] == "y"
    assert scores["axes"][3]["channel_names"] == list("0123456789")
    assert "Bring images to 0.325 µm a pixel first." in files["README.md"].decode()
    assert "licence" not in content and "none is stated" in files["README.md"].decode()


def test_the_test_output_is_keras_own(package, tmp_path):
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    image, scores = np.load(tmp_path / "test_image.npy"), np.load(tmp_path / "test_logits.npy")
    np.testing.assert_array_equal(np.asarray(digits()(image)), scores)
    exported = opened(package)
    assert relative_error(exported(image)["logits"], scores) <= 1e-5
    assert exported.carried.geometry() == zoo.geometry(digits()) and exported.carried.format == "bioimageio"


@pytest.mark.extended
def test_what_is_known_of_a_run_is_told(tmp_path, capsys):
    pixels = noise(40, 30).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    zoo.save(digits(), tmp_path / "fcn.keras")
    line = ["export", tmp_path / "fcn.keras", "-o", tmp_path / "out.zip", "--format", "bioimageio"]
    more = ["--about", "nin_digits", "--license", "apache-2.0", "--author", "A", "--author", "B"]
    code, out, _ = command(capsys, *line, *more, "--image", tmp_path / "a.png")
    assert code == 0 and "tried on 1 images" in out
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        content, text = yaml.safe_load(archive.read("rdf.yaml")), archive.read("README.md").decode()
        image = np.load(archive.open("test_image.npy"))[0, ..., 0]
    assert content["license"] == "Apache-2.0" and content["authors"] == [{"name": "A"}, {"name": "B"}]
    assert content["cite"][0]["doi"] == "10.48550/arXiv.1312.4400" and "accuracy 99.72%" in text
    windows = np.lib.stride_tricks.sliding_window_view(pixels, image.shape)
    assert (windows == image).all((2, 3)).any()
    code, _, error = command(capsys, *line, *more, "--image", tmp_path / "a.png")
    assert code == 0, error  # the same command may replace its file
    code, _, error = command(capsys, *line, "--license", "my own")
    assert code == 2 and "--license: received 'my own'; accepted: an SPDX identifier" in error
    code, _, error = command(capsys, "export", "nin_digits", "-o", tmp_path / "x.onnx", "--format", "onnx", *more[:2])
    assert code == 2 and "has no effect without --format bioimageio" in error


@pytest.fixture(scope="session")
def checker(tmp_path_factory):
    """An interpreter with bioimageio.core beside what is here.

    It has an environment of its own: 0.11.0 does not work with Pydantic 2.14, which the zoo may have.
    """
    folder = tmp_path_factory.mktemp("checker")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").iterdir()) / "site-packages"
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "here.pth").write_text("\n".join(here))
    install = [python, "-m", "pip", "install", "-q", "bioimageio.core==0.11.0", "pydantic<2.14"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"bioimageio.core cannot be installed here: {done.stderr.strip().splitlines()[-1][:200]}")
    return python


CHECKED = {
    "a converted net": lambda: zoo.convolutionalize(zoo.load("nin_mnist_valid")),
    "a padded one, with its pixel size": lambda: attach(
        digits(), Card(**{**Network.of(digits()).card.model_dump(), "pixel_size": 0.325})
    ),
    "a twin": lambda: zoo.convolutionalize(zoo.load("nin_cifar10_bn"), padding="valid"),
    "a classifier": lambda: zoo.load("nin_cifar10_bn"),
    "one answer for any size": lambda: digits(pooling="global"),
    "several outputs": several,
    "sizes that merge": merged,
    "a window that is no multiple": lambda: chain(conv(2, 10, 4), dtype="uint16", preprocess=Preprocess()),
    "floats": lambda: chain(conv(2, 3, 2, "same"), layers.Softmax()),
    "channels first": lambda: chain(conv(2, 3, data_format="channels_first"), shape=(3, None, None)),
    "one axis": lambda: chain(layers.Conv1D(2, 5, 2), shape=(None, 2)),
    "a counter": lambda: attach(chain(conv(2, 5, activation="relu")), Card(target="count", class_names=("a", "b"))),
}


CODE = """
import sys
from pathlib import Path
from bioimageio.core import test_model
for path in map(Path, sys.argv[1:]):
    test_model(path).save(path.with_suffix(".json"))
"""


@pytest.fixture(scope="session")
def summaries(checker, tmp_path_factory):
    """What the checker says of each package; one process, since it takes seconds to start."""
    folder = tmp_path_factory.mktemp("packages")
    paths = {
        name: zoo.export(make(), folder / f"{number}.zip", format="bioimageio")
        for number, (name, make) in enumerate(CHECKED.items())
    }
    subprocess.run([checker, "-c", CODE, *paths.values()], capture_output=True, text=True, check=True)
    return {name: json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for name, path in paths.items()}


@pytest.mark.extended
@pytest.mark.parametrize("name", CHECKED)
def test_that_projects_own_checker_passes(name, summaries):
    """It reads the format, runs the test tensors in ONNX Runtime, and looks at the sizes of outputs of six inputs."""
    summary = summaries[name]
    failed = [each for each in summary["details"] if each["status"] != "passed"]
    assert summary["status"] == "passed" and not failed, failed
    names = [each["name"] for each in summary["details"]]
    assert "Reproduce test outputs from test inputs (onnx)" in names
    assert sum(each.startswith("Run onnx inference") for each in names) == (
        2 if name in ("a classifier", "sizes that merge") else 6
    )
