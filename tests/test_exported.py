"""What `zoo.export` writes: names, types, what travels in the files, how they are verified, and what is refused."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import WITHOUT_TENSORFLOW, command, noise, randomize
from keras import layers
from small_nets import HEADS, chain, stack

import zoo
from zoo.card import Card, Preprocess, attach
from zoo.convert.copy import Copy
from zoo.errors import Differs, InputError
from zoo.exported.alone import OPENERS, RUNTIMES
from zoo.exported.carried import VERSION, Carried
from zoo.exported.format import CannotHold
from zoo.exported.formats import FORMATS as ALL_FORMATS
from zoo.exported.reading import opened
from zoo.exporting import verification
from zoo.exporting.culprit import _first_failing
from zoo.network.network import Network
from zoo.scores import relative_error

# The other, web, takes converted models of images alone: tests/test_web.py.
FORMATS = {name: each for name, each in ALL_FORMATS.items() if name != "web"}
ENDINGS = {name: each.ending for name, each in FORMATS.items()}
# A SavedModel's process takes seconds to import TensorFlow, and the others' converters take one or two.
SLOWER = [pytest.param(name, marks=() if name == "onnx" else pytest.mark.extended) for name in FORMATS]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is None, reason="without ONNX")


@pytest.fixture(scope="module")
def fcn():
    """A converted net without padding, of images of 16 bits."""
    fcn = zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")))
    return attach(
        fcn, Card(**{**Network.of(fcn).card.model_dump(), "dtype": "uint16", "class_names": tuple("abcdefghij")})
    )


@pytest.fixture(scope="module")
def file(fcn, tmp_path_factory):
    return zoo.export(fcn, tmp_path_factory.mktemp("exported") / "fcn.onnx", format="onnx")


def sound():
    return chain(
        *(layers.Conv1D(6, 5, strides=2), layers.BatchNormalization(), layers.ReLU(), layers.Conv1D(3, 1)),
        shape=(None, 2),
    )


def two_outputs():
    image = keras.Input((None, None, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(image))
    return randomize(keras.Model(image, [layers.Conv2D(4, 1, name="kind")(x), layers.Conv2D(2, 1, name="is-it")(x)]))


def dict_of_outputs():
    image = keras.Input((16, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(image))
    return randomize(keras.Model(image, {"z last": layers.Dense(3)(x), "a first": layers.Dense(2)(x)}))


def nested():
    inner = chain(layers.Conv2D(8, 3), layers.BatchNormalization())
    return chain(layers.Rescaling(1 / 255), inner, layers.Dropout(0.5), layers.Conv2D(3, 1))


def first_axis():
    form = {"data_format": "channels_first"}
    return chain(layers.Conv2D(6, 3, **form), layers.GlobalAveragePooling2D(**form), layers.Dense(3), shape=(3, 12, 10))


def in_policy(policy):
    keras.config.set_dtype_policy(policy)
    try:
        return stack(HEADS["flatten, stack"])
    finally:
        keras.config.set_dtype_policy("float32")


def of_card(**known):
    return attach(chain(layers.Conv2D(4, 3), layers.Conv2D(2, 1)), Card(**known))


PIXELS = (layers.Rescaling(1 / 255), layers.Conv2D(4, 3))
# A model, the type of its images, and the names of its outputs.
NETS = {
    "one axis": (sound, "float32", ["logits"]),
    "two outputs": (two_outputs, "float32", ["kind", "is-it"]),
    "a dict of outputs": (dict_of_outputs, "float32", ["a first", "z last"]),
    "nested": (nested, "float32", ["logits"]),
    "channels first": (first_axis, "float32", ["logits"]),
    "mixed precision": (lambda: in_policy("mixed_float16"), "float32", ["probabilities"]),
    "double precision": (lambda: in_policy("float64"), "float32", ["probabilities"]),
    "bytes": (lambda: chain(*PIXELS, dtype="uint8"), "uint8", ["logits"]),
    "the zoo's": (lambda: of_card(preprocess=Preprocess()), "uint8", ["logits"]),
    "of 16 bits": (lambda: of_card(dtype="uint16", preprocess=Preprocess()), "uint16", ["logits"]),
    "of floats": (lambda: of_card(dtype="float32", preprocess=Preprocess()), "float32", ["logits"]),
    "a counter": (lambda: of_card(target="count"), "float32", ["counts"]),
    "a sigmoid": (lambda: chain(layers.Conv2D(2, 1, activation="sigmoid")), "float32", ["probabilities"]),
    "vectors": (lambda: chain(layers.Dense(4), layers.BatchNormalization(), shape=(7,)), "float32", ["logits"]),
    "no channels": (
        lambda: chain(layers.Reshape((9, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3), shape=(9, 8)),
        "float32",
        ["logits"],
    ),
    "layers of any reach": (lambda: chain(layers.Conv2DTranspose(4, 2, strides=2)), "float32", ["logits"]),
    "groups": (lambda: chain(layers.Conv2D(6, 3, groups=3), layers.BatchNormalization()), "float32", ["logits"]),
    "augmented": (
        lambda: chain(
            layers.RandomFlip(), layers.GaussianNoise(0.1), layers.Flatten(), layers.Dense(2), shape=(8, 8, 3)
        ),
        "float32",
        ["logits"],
    ),
}
# The others take as long, and show no other part of our own code.
QUICK = ("one axis", "two outputs", "a dict of outputs", "the zoo's", "vectors", "no channels")


def mark_of(name, format):
    if format == "onnx":
        return () if name in QUICK else pytest.mark.extended
    return pytest.mark.extended if name in QUICK and format != "bioimageio" else pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "format"),
    [pytest.param(name, format, marks=mark_of(name, format)) for name in NETS for format in FORMATS],
)
def test_odd_models_give_their_scores(name, format, tmp_path):
    build, dtype, names = NETS[name]
    model = build()
    exported = opened(zoo.export(model, tmp_path / f"net{ENDINGS[format]}", format=format))
    about = exported.carried
    assert about.image.dtype == dtype and [output.name for output in about.outputs] == names
    shape = [side or 23 - 2 * axis for axis, side in enumerate(model.inputs[0].shape[1:])]
    images = noise(3, *shape).astype(dtype)
    wanted = keras.tree.flatten(model(images, training=False))
    given = exported(images)
    low = "float16" in Network.of(model).compute_dtypes
    for name, scores in zip(names, wanted, strict=True):
        assert np.ptp(np.asarray(scores)) > 0 and given[name].dtype == np.float32
        assert relative_error(given[name], np.asarray(scores)) <= (1e-2 if low else 1e-4)
    assert len(about.verified.images) == (6 if None in model.inputs[0].shape[1:] else 2)


def test_openvino_drops_an_addition_of_zeros_and_keeps_the_outputs_name(tmp_path):
    """As of every net before training; of the two names that are left, which one OpenVINO gives is chance."""
    openvino = pytest.importorskip("openvino")
    model = keras.Sequential([keras.Input((5, 6, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    path = zoo.export(model, tmp_path / "net.xml", format="openvino")
    assert [output.names for output in openvino.Core().read_model(path).outputs] == [{"logits"}]


@pytest.mark.parametrize("format", SLOWER)
def test_what_travels_in_the_file_is_the_models(fcn, format, tmp_path):
    path = zoo.export(fcn, tmp_path / f"fcn{ENDINGS[format]}", format=format)
    about = FORMATS[format].carried(path)
    assert about.card == Network.of(fcn).card and about.card.window == (8, 8) and about.model == fcn.name
    assert about.image.shape == (None, None, None, 1) and about.image.dtype == "uint16"
    for size in ((8, 8), (50, 31)):
        ours, theirs = about.geometry(size), zoo.geometry(fcn, size)
        assert ours == theirs and ours.program == theirs.program
        assert ours.grid_shape(*size) == theirs.grid_shape(*size) == opened(path)(images_of(*size))["logits"].shape[1:3]
    report = about.verified
    assert report.error <= report.tolerance == 1e-4 and report.same_winner == 1
    assert {shape[0] for shape in report.images} == {1, 2} and len({shape[1:] for shape in report.images}) == 3
    names = {each.name for each in tmp_path.iterdir()}
    assert names == ({"fcn.xml", "fcn.bin"} if format == "openvino" else {path.name})


def images_of(*size):
    return noise(1, *size, 1).astype(np.uint16) * 257


def test_images_of_another_type_are_refused(file):
    exported = opened(file)
    for dtype in (np.float32, np.uint8):
        with pytest.raises(InputError, match=f"received images of {np.dtype(dtype)}; accepted: uint16"):
            exported(images_of(9, 9).astype(dtype))


@pytest.mark.extended
@pytest.mark.parametrize("format", FORMATS)
def test_no_runtime_casts_floats_to_whole_numbers(fcn, format, tmp_path):
    run = OPENERS[format](str(zoo.export(fcn, tmp_path / f"fcn{ENDINGS[format]}", format=format)), "float32")
    with pytest.raises(Exception, match="(?i)type|dtype|incompatible|uint16"):
        run(noise(1, 9, 9, 1))


@pytest.mark.parametrize("format", SLOWER)
def test_a_newer_or_damaged_file_is_refused(fcn, format, tmp_path):
    path, kind = zoo.export(fcn, tmp_path / f"fcn{ENDINGS[format]}", format=format), FORMATS[format]
    data = json.loads(kind.text(path))
    for text, words in (
        (json.dumps({**data, "version": VERSION + 1, "new": 1}), f"format version: received {VERSION + 1}; accepted"),
        (json.dumps({**data, "precision": "float8"}), "zoo.json is damaged .precision"),
        ("{", "zoo.json is damaged"),
        ("[1]", "zoo.json is damaged"),
    ):
        kind.embed(path, text)
        with pytest.raises(InputError, match=f"fcn.*{words}"):
            opened(path)
    kind.embed(path, json.dumps(data))
    assert opened(path).carried == Carried.model_validate(data)


def test_a_file_of_others_is_refused(fcn, tmp_path):
    fcn.export(str(tmp_path / "plain.onnx"), format="onnx", verbose=False)
    (tmp_path / "text.onnx").write_text("no model")
    for name, words in (
        ("plain.onnx", "carries no zoo.json; accepted: a file of `zoo export`"),
        ("text.onnx", "cannot be read"),
        ("gone.onnx", "no such file"),
        ("fcn.pt", "a folder of saved_model or web, or a file that ends in .onnx, .xml, .tflite"),
    ):
        with pytest.raises(InputError, match=f"{name}.*{words}"):
            opened(tmp_path / name)


def test_a_file_is_read_and_run_without_keras(file):
    code = (
        f"{WITHOUT_TENSORFLOW}import numpy as np\nfrom zoo.exported.reading import opened\n"
        f"exported = opened({str(file)!r})\n"
        "scores = exported(np.zeros((1, 20, 30, 1), np.uint16))['logits']\n"
        "assert scores.shape[1:3] == exported.carried.geometry().grid_shape(20, 30)\n"
        "assert not {'keras', 'tensorflow', 'jax', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def wrongly(monkeypatch, change):
    """Have the model that is written be another one than the one that was given."""
    write = type(FORMATS["onnx"]).write

    def other(self, model, path, carried):
        copy = Copy(Network.of(model)).run((None, None))
        for weight in copy.weights:
            weight.assign(change(np.asarray(weight)))
        named = {name: copy.outputs[index] for index, name in enumerate(Network.of(model).output_names)}
        write(self, keras.Model(copy.inputs[0], named), path, carried)

    monkeypatch.setattr(type(FORMATS["onnx"]), "write", other)


@pytest.mark.extended
def test_a_file_that_answers_otherwise_is_not_kept(fcn, tmp_path, monkeypatch, capsys):
    wrongly(monkeypatch, lambda weight: weight * 1.001)
    with pytest.raises(Differs, match=r"onnxruntime gives scores of a relative error \d.*; accepted: 1e-04"):
        zoo.export(fcn, tmp_path / "fcn.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []
    source = zoo.save(fcn, tmp_path / "fcn.keras")
    code, _, error = command(capsys, "export", source, "-o", tmp_path / "out.onnx", "--format", "onnx")
    assert code == 1 and "relative error" in error and len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.extended
@pytest.mark.parametrize(
    ("share", "noise", "words"), [(0.0, 0.0, ""), (0.1, 0.0, "same winner at 9"), (0, 0.03, "error 3")]
)
def test_a_lower_precision_is_held_to_its_winners(fcn, file, monkeypatch, share, noise, words):
    """Scores of which a share has another winner, or that are further off than 2e-2."""
    generator = np.random.default_rng(0)

    def near(scores):
        rows = scores.reshape(-1, scores.shape[-1]).copy()
        rows += noise * np.abs(rows).max()
        chosen = np.nonzero(generator.random(len(rows)) < share)[0]
        first, second = (np.argsort(rows, axis=-1)[chosen, -place] for place in (1, 2))
        rows[chosen, first] = rows[chosen, second] - 1e-6
        return rows.reshape(scores.shape)

    def run(kind, path, precision, batches):
        scores = [keras.ops.convert_to_numpy(fcn(batch)) for batch in batches]
        assert sum(each[..., 0].size for each in scores) >= 100
        return [{"logits": near(each)} for each in scores], "1"

    monkeypatch.setattr(verification, "run_alone", run)
    if share:
        monkeypatch.setitem(verification.TOLERANCE, "bfloat16", np.inf)
    about = opened(file).carried.model_copy(update={"precision": "bfloat16"})
    arguments = (Network.of(fcn), FORMATS["openvino"], file, about)
    if words:
        with pytest.raises(Differs, match=words):
            verification.verified(*arguments)
    else:
        assert verification.verified(*arguments).same_winner == 1


@pytest.mark.extended
def test_a_layer_that_litert_has_not_is_named(tmp_path, capsys):
    parts = [
        layers.Conv2D(4, 3, strides=2, name="body"),
        layers.UpSampling2D(2, name="up"),
        layers.Conv2D(3, 1, name="last"),
    ]
    model = chain(*parts, shape=(None, None, 3))
    with pytest.raises(InputError, match="layer 'last': received Conv2D, which litert cannot hold here .it would take"):
        zoo.export(model, tmp_path / "net.tflite", format="litert")
    source = zoo.save(model, tmp_path / "net.keras")
    code, _, error = command(capsys, "export", source, "-o", tmp_path / "net.tflite", "--format", "litert")
    assert code == 2 and "layer 'last'" in error and len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.extended
def test_a_layer_that_a_runtime_has_not_is_named(fcn, tmp_path, monkeypatch):
    """A converter that has no average pooling stands for kernels that a runtime lacks: the process itself fails."""
    names = [layer.name for layer in fcn.layers]
    culprit = next(name for name in names if isinstance(fcn.get_layer(name), layers.Conv2D) and names.index(name) > 4)
    write = type(FORMATS["onnx"]).write

    def broken(self, model, path, carried):
        write(self, model, path, carried)
        if any(layer.name == culprit for layer in model.layers):
            path.write_bytes(path.read_bytes().replace(b"Conv", b"Cnov"))

    monkeypatch.setattr(type(FORMATS["onnx"]), "write", broken)
    with pytest.raises(InputError, match=f"layer '{culprit}': received Conv2D, which onnx cannot hold here .*Cnov"):
        zoo.export(fcn, tmp_path / "fcn.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64])
def test_the_first_failing_part_is_found(count):
    for first in range(1, count + 1):
        assert _first_failing(lambda tried, first=first: tried < first, count) == first


@pytest.mark.parametrize("line", ["import os; os.kill(os.getpid(), 9)", "raise ValueError('no\\nkernel')"])
def test_a_process_that_fails_says_why(tmp_path, monkeypatch, line):
    (tmp_path / "alone.py").write_text(line)
    monkeypatch.setattr(verification.alone, "__file__", str(tmp_path / "alone.py"))
    with pytest.raises(CannotHold, match="signal 9|ValueError: no kernel"):
        verification.run_alone(FORMATS["onnx"], tmp_path / "net.onnx", "float32", [])


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_without_its_runtime_a_format_is_refused_naming_the_extra(fcn, format, tmp_path, monkeypatch):
    kind, find = ALL_FORMATS[format], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == kind.runtime else find(name))
    how = rf"bottleneck-zoo\[{kind.extra}\]" if kind.extra else "pip install tensorflow"
    with pytest.raises(InputError, match=f"format '{format}': needs {kind.runtime}; .*{how}"):
        zoo.export(fcn, tmp_path / f"fcn{kind.ending}", format=format)
    assert list(tmp_path.iterdir()) == [] and set(RUNTIMES) == set(OPENERS) == set(ALL_FORMATS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "onnx", "precision": "bfloat16"}, "'onnx': received precision bfloat16; accepted: float32"),
        ({"format": "onnx", "precision": "float8"}, "unknown precision 'float8' .*; accepted: float32, bfloat16"),
    ],
)
def test_other_precisions_are_refused(fcn, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        zoo.export(fcn, tmp_path / "fcn.onnx", **options)


def test_models_that_cannot_be_exported_are_refused(tmp_path):
    images = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    double = keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Add()(images))))
    with pytest.raises(InputError, match="takes 2 inputs"):
        zoo.export(double, tmp_path / "net.onnx", format="onnx")
    with pytest.raises(InputError, match="an input of 'int32'; accepted: uint8, uint16, float32"):
        zoo.export(chain(*PIXELS, dtype="int32"), tmp_path / "net.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extended
def test_files_are_compared_on_the_users_images(fcn, tmp_path, capsys):
    Image = pytest.importorskip("PIL.Image")
    source = zoo.save(zoo.build("nin_digits"), tmp_path / "net.keras")
    Image.fromarray(noise(20, 30).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(noise(6, 6).astype(np.uint8)).save(tmp_path / "b.png")
    images = ["--image", tmp_path / "a.png", "--image", tmp_path / "b.png"]
    code, out, _ = command(capsys, "export", source, "-o", tmp_path / "net.onnx", "--format", "onnx", *images)
    assert code == 0 and "tried on 2 images, 1x8x8x1, 2x8x8x1" in out
    code, _, error = command(
        capsys, "export", source, "-o", tmp_path / "a.onnx", "--format", "onnx", "--pixel-size", "1"
    )
    assert code == 2 and "--pixel-size has no effect without --image" in error
    # Every batch of a type that fits is a part of an image, to the pixel.
    network, image = Network.of(fcn), images_of(60, 50)[0]
    windows = {
        part.tobytes() for part in np.lib.stride_tricks.sliding_window_view(image, (8, 8), (0, 1)).reshape(-1, 8, 8)
    }
    batches = verification.trial_batches(network, "uint16", images=[image])
    assert {part.tobytes() for part in batches[1]} <= windows and len(batches) == 6
    with pytest.raises(InputError, match="samples of float32; accepted: uint16"):
        verification.trial_batches(network, "uint16", images=[image.astype(np.float32)])


@pytest.mark.extended
def test_bfloat16_is_openvinos(fcn, tmp_path):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("a processor without bfloat16")
    trained = zoo.convolutionalize(zoo.load("nin_mnist_valid"))
    exported = opened(zoo.export(trained, tmp_path / "net.xml", format="openvino", precision="bfloat16"))
    report = exported.carried.verified
    assert exported.carried.precision == "bfloat16" and 1e-4 < report.error <= 2e-2 and report.same_winner >= 0.99


def test_folding_is_left_out_when_asked(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = chain(
        layers.Conv2D(4, 3),
        layers.ReLU(),
        layers.BatchNormalization(),
        layers.Conv2D(3, 3),
        layers.BatchNormalization(),
    )
    kinds = {}
    for fold in (True, False):
        path = zoo.export(model, tmp_path / f"{fold}.onnx", format="onnx", fold=fold)
        kinds[fold] = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert len(kinds[True]) < len(kinds[False])
