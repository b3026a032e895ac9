"""Scans and predictions by exported files: those of Keras, by their own runtimes, in processes without Keras."""

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import command, noise, randomize
from keras import layers
from PIL import Image
from small_nets import HEADS, channels_first, stack

import zoo
from zoo.card import Card, attach, card
from zoo.errors import InputError, Interrupted
from zoo.evaluation import predict_files
from zoo.exported.carried import Carried
from zoo.exported.format import EngineFormat
from zoo.exported.formats import FORMATS, format_of
from zoo.exported.network import ExportedNetwork
from zoo.exported.protobuf import inside, varint
from zoo.exporting.writing import _carried
from zoo.large_images import scanner_of
from zoo.network.network import Network
from zoo.predictions import answers_to
from zoo.scanning.memory import tile_memory
from zoo.scores import relative_error

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is None, reason="without ONNX")
ENGINES = [name for name, each in FORMATS.items() if isinstance(each, EngineFormat)]
# A second format's converter and runtime take seconds, and show no other part of our own code.
FILES = [pytest.param(name, marks=() if name == "onnx" else pytest.mark.extended) for name in ENGINES]
# What a process that scans an exported file has no use for.
BACKENDS = "keras tensorflow jax torch scipy sklearn h5py onnx tf2onnx"


def with_card(model, **known):
    return attach(model, Card.model_validate(card(model).model_dump() | known))


def padded():
    """A net that pads, with a background and thresholds, at half the scale of the images; strides 3 and 2."""
    image = keras.Input((None, None, 2))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(6, (5, 4), strides=(3, 2), padding="same", activation="relu")(x)
    scores = layers.Conv2D(3, 3, padding="same")(layers.BatchNormalization()(x))
    peaks = {name: {"threshold": 0.6, "distance": 4.0} for name in ("disc", "ring")}
    names = {"class_names": ("nothing", "disc", "ring"), "background": "nothing", "peaks": peaks}
    return with_card(randomize(keras.Model(image, scores)), dtype="uint8", scale=0.5, **names)


@pytest.fixture(scope="module")
def plain():
    """A converted net without padding, of bytes."""
    return zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")))


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    """The nets in files of every format that scans, and the plain one as Keras saves it."""
    folder = tmp_path_factory.mktemp("exported")
    zoo.save(plain, folder / "plain.keras")
    zoo.export(plain, folder / "plain.onnx", format="onnx")
    return folder


def exported(model, folder, name):
    """A model's file of a format, written once."""
    path = folder / f"{model.name}{format_of(name).ending}"
    return ExportedNetwork.at(path if path.exists() else zoo.export(model, path, format=name))


@pytest.fixture(scope="module")
def padded_net():
    return padded()


# Of a net, with options; the quick one shows every part of our own code that the others do.
OPTIONS = {
    "tiles": ("plain", {"tile": 40}),
    "reflect": ("plain", {"border": "reflect", "tile": 24}),
    "shift": ("plain", {"border": "shift"}),
    "full": ("plain", {"border": "full", "tile": 48}),
    "scales": ("plain", {"scales": [0.7, 1.3]}),
    "scaled": ("padded_net", {"tile": 12}),
    "scaled and filled": ("padded_net", {"border": "full"}),
    "shifts of the image": ("padded_net", {"stride": (1, 2)}),
}
QUICK = [("onnx", "scaled")]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=() if (name, case) in QUICK else pytest.mark.extended)
        for name in ENGINES
        for case in OPTIONS
    ],
)
@pytest.mark.filterwarnings("ignore:image states no pixel size. taken at scale 0.5")
def test_the_scan_is_keras_s_scan(name, case, request, folder):
    net, options = OPTIONS[case]
    model = request.getfixturevalue(net)
    network, mask = exported(model, folder, name), np.zeros((61, 83), bool)
    image = noise(61, 83, network.channels).astype(np.uint8)
    mask[5:50, 9:70] = True
    wanted, given = (zoo.scan(each, image, mask=mask, **options) for each in (model, network))
    assert relative_error(given.scores[given.scanned], wanted.scores[wanted.scanned]) <= 1e-4
    assert np.array_equal(given.scanned, wanted.scanned) and 0 < given.scanned.mean() < 1
    assert np.isnan(given.scores[~given.scanned]).all() and given.scores.dtype == np.float32
    for attribute in ("geometry", "class_names", "image_size", "outputs", "border", "scale", "background", "peaks"):
        assert getattr(given, attribute) == getattr(wanted, attribute), attribute
    assert all(map(np.array_equal, given.centres, wanted.centres))


@pytest.mark.parametrize("name", FILES)
def test_tiles_are_the_runtime_s_single_pass(plain, padded_net, folder, name):
    for model, tile in ((plain, 24), (padded_net, 12)):
        network = exported(model, folder, name)
        network = replace(network, carried=network.carried.model_copy(update={"card": Card()}))
        image = noise(1, 70, 90, network.channels)
        tiled = zoo.scan(network, image[0], tile=tile)
        assert relative_error(tiled.scores, network.engine()(image)[0]) <= 1e-5


def as_carried(model):
    """What the file of a model would be to a scan, without a runtime."""
    network, kind = Network.of(model), format_of("onnx")
    carried = Carried.of_text(_carried(network, kind, "float32").text(), "test")
    return network, ExportedNetwork("none.onnx", kind, carried, carried.outputs)


def two_outputs():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 5, strides=2, padding="same")(image)
    deep = layers.Conv2D(2, 3, strides=2, name="deep")(layers.ReLU()(x))
    model = randomize(keras.Model(image, [layers.Conv2D(4, 1, name="kind")(x), deep]))
    return with_card(model, class_names=("a", "b"), background="a")


def pooled(pooling):
    return zoo.convolutionalize(stack(HEADS["average"]), pooling=pooling)


NETS = {
    "converted": lambda: zoo.convolutionalize(stack(HEADS["flatten, stack"])),
    "a classifier": lambda: stack(HEADS["flatten"]),
    "pooled by windows": lambda: pooled("window"),
    "pooled over all": lambda: pooled("global"),
    "padded": lambda: padded(),
    "a twin": lambda: zoo.convolutionalize(stack(HEADS["average"], padding="same"), padding="valid"),
    "channels first": lambda: channels_first(lambda x, form: layers.GlobalAveragePooling2D(**form)(x)),
    "a sigmoid": lambda: with_card(stack(lambda x: layers.Conv2D(1, 1, activation="sigmoid")(x)), window=(12, 10)),
    "a counter": lambda: with_card(stack(lambda x: layers.Conv2D(2, 2)(x)), target="count"),
    "first of two": lambda: two_outputs(),
    "deep of two": lambda: two_outputs(),
}


@pytest.mark.parametrize("name", NETS)
def test_a_file_is_to_a_scan_what_the_model_is(name):
    network, file = as_carried(NETS[name]())
    if "of two" in name:
        network, file = (each.output("deep" if "deep" in name else "kind") for each in (network, file))
    for attribute in (
        *("name", "card", "channels", "dtype", "compute_dtypes", "outputs_are", "training_size", "window"),
        *("class_names", "gives_map"),
    ):
        assert getattr(file, attribute) == getattr(network, attribute), attribute
    assert file.units() == network.units()
    assert network.has_head or file.smallest_image == network.smallest_image
    for size in ((12, 10), (31, 44), (50, 27)):
        given, wanted = file.geometry(size), network.geometry(size)
        assert given == wanted and given.grid_shape(*size) == wanted.grid_shape(*size)
        assert tile_memory(file)(*size) == tile_memory(network)(*size)
    cells = given.grid_shape(*size)
    for row, column in ((0, 0), (cells[0] - 1, cells[1] - 1)):
        assert given.cell_field(row, column) == wanted.cell_field(row, column)


@pytest.mark.extended
@pytest.mark.parametrize("name", ENGINES)
def test_each_output_and_each_order_of_axes_is_scanned(name, tmp_path):
    image = noise(40, 52, 3)
    model, turned = two_outputs(), (3, None, None)
    file = ExportedNetwork.at(zoo.export(model, tmp_path / f"two{format_of(name).ending}", format=name))
    for output in ("kind", "deep"):
        given, wanted = (zoo.scan(each, image, output_name=output) for each in (file, model))
        assert relative_error(given.scores, wanted.scores) <= 1e-4
        assert given.class_names == wanted.class_names == (("0", "1", "2", "3") if output == "kind" else ("a", "b"))
    with pytest.raises(InputError, match="has 2 outputs, 'kind', 'deep'; accepted: one"):
        zoo.scan(file, image)
    with pytest.raises(InputError, match="unknown output 'dep' .did you mean 'deep'"):
        zoo.scan(file, image, output_name="dep")
    x = layers.Conv2D(4, 3, strides=2, data_format="channels_first")(first := keras.Input(turned))
    model = randomize(keras.Model(first, layers.Conv2D(2, 3, data_format="channels_first")(x)))
    file = ExportedNetwork.at(zoo.export(model, tmp_path / f"first{format_of(name).ending}", format=name))
    given, wanted = (zoo.scan(each, image, tile=16) for each in (file, model))
    assert relative_error(given.scores, wanted.scores) <= 1e-4


def test_what_is_not_scanned_is_refused(plain, folder, tmp_path):
    image, file = noise(40, 40).astype(np.uint8), exported(plain, folder, "onnx")
    for options, text in (
        ({"stride": 1}, "received 'onnxruntime' with a stride below the model's own.*'keras', with the Keras model"),
        ({"stride": 3}, "stride: received 3; accepted: a divisor of the network's stride"),
        ({"engine": "keras"}, "engine: received 'keras' for '.*onnx'; accepted: 'onnxruntime', or the Keras model"),
        ({"precision": "bfloat16"}, "precision: received 'bfloat16' for .*'float32', in which it was exported"),
        ({"output_name": "nothing"}, "unknown output 'nothing'"),
    ):
        with pytest.raises(InputError, match=text):
            zoo.scan(file, image, output=tmp_path / "a.npy", **options)
    assert not list(tmp_path.iterdir())
    assert zoo.scan(file, image, stride=file.geometry().stride).scores.shape == zoo.scan(file, image).scores.shape
    for _, model, text in (
        ("fixed", keras.Sequential([keras.Input((9, 9, 1)), layers.Conv2D(2, 3)]), r"a map for images of \(9, 9\)"),
        ("classifier", stack(HEADS["flatten"]), "one answer for an image; accepted: the export of its conversion"),
        ("a line", keras.Sequential([keras.Input((None, 1)), layers.Conv1D(2, 3)]), "accepted: one image"),
    ):
        with pytest.raises(InputError, match=text):
            scanner_of(as_carried(model)[1])
    with pytest.raises(InputError, match="a layer whose reach is not known"):
        network = as_carried(keras.Sequential([keras.Input((None, None, 1)), layers.Conv2DTranspose(1, 2)]))[1]
        scanner_of(network)(image)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    for path in (tmp_path, tmp_path / "a.tflite", tmp_path / "a.keras"):
        with pytest.raises(InputError, match="accepted: .onnx or .xml"):
            ExportedNetwork.at(path)
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="damaged.onnx': cannot be read: .*accepted: a file of `zoo export`"):
        ExportedNetwork.at(tmp_path / "damaged.onnx")


def test_commands_that_need_keras_say_so(capsys, folder, tmp_path):
    Image.fromarray(noise(40, 40).astype(np.uint8)).save(image := tmp_path / "a.png")
    (boxes := tmp_path / "boxes.csv").write_text("top,left,bottom,right\n0,0,9,9\n")
    file = folder / "plain.onnx"
    for arguments in (
        ("regions", file, image, boxes, "-o", tmp_path / "b.csv"),
        ("convert", file, "-o", tmp_path / "b.keras"),
        ("describe", file),
        ("export", file, "-o", tmp_path / "b.onnx", "--format", "onnx"),
    ):
        code, _, said = command(capsys, *arguments)
        assert code == 2 and "an exported file, which this does not take; accepted: the Keras model" in said, said
    code, _, said = command(capsys, "predict", file, image, "--explain", tmp_path / "b")
    assert code == 2 and "--explain: received the exported file" in said
    code, _, said = command(capsys, "predict", file, image)
    assert code == 2 and "gives a score map; `zoo scan` takes it" in said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.png", "boxes.csv"]


def test_a_scan_that_was_stopped_goes_on_where_it_was(plain, folder, tmp_path, monkeypatch):
    image, output = noise(60, 60).astype(np.uint8), tmp_path / "scores.npy"
    file, tiles, stop = exported(plain, folder, "onnx"), [], []
    engine = file.engine()

    def counting(pixels):
        if len(tiles) in stop:
            raise KeyboardInterrupt
        tiles.append(pixels.shape)
        return engine(pixels)

    monkeypatch.setattr(ExportedNetwork, "engine", lambda self: replace(engine, run=counting))
    wanted, all_tiles = zoo.scan(file, image, tile=16).scores, len(tiles)
    stop.append(all_tiles + 3)
    with pytest.raises(Interrupted):
        zoo.scan(file, image, tile=16, output=output)
    stop.clear()
    again = zoo.scan(file, image, tile=16, output=output)
    assert np.array_equal(again.scores, wanted) and len(tiles) == 2 * all_tiles
    assert again.made_from["engine"] == "onnxruntime" and again.made_from["model"] == file.key()
    with pytest.raises(InputError, match="another model|other scores|made from another"):
        zoo.scan(plain, image, tile=16, output=output)


def in_own_process(*arguments):
    """Run `zoo ...` in a process that ends with an error where a backend was imported: what it printed."""
    code = f"""
import sys
from zoo.cli import main
try:
    main({[*map(str, arguments)]!r})
except SystemExit as stopped:
    imported = set({BACKENDS!r}.split()) & set(sys.modules)
    sys.exit(f"imported {{imported}}" if imported else stopped.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", FILES)
def test_the_command_scans_without_keras(name, folder, padded_net, tmp_path, capsys):
    """Objects, counts, viewer and all: the same files with the same objects as by the Keras model."""
    file = exported(padded_net, folder, name).path
    pixels = np.random.default_rng(1).normal(128, 60, (30, 40, 2)).clip(0, 255)
    image = np.kron(pixels, np.ones((4, 4, 1))).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    zoo.save(padded_net, tmp_path / "model.keras")
    arguments = (
        "scan",
        file,
        tmp_path / "image.npy",
        "-o",
        tmp_path / "file",
        "--answer",
        "average-probabilities",
        "--no-check",
    )
    printed = in_own_process(*arguments)
    code, by_keras, said = command(
        capsys, "scan", tmp_path / "model.keras", *arguments[2:4], tmp_path / "keras", *arguments[5:]
    )
    assert code == 0, said
    names = [sorted(each.name for each in (tmp_path / where).iterdir()) for where in ("file", "keras")]
    assert names[0] == names[1] and {"objects.csv", "counts.csv", "viewer.html", "overlay.png"} <= set(names[0])
    counts = [(tmp_path / where / "counts.csv").read_text() for where in ("file", "keras")]
    assert counts[0] == counts[1] and int(counts[0].splitlines()[1].rpartition(",")[2]) > 5
    tables = [(tmp_path / where / "objects.csv").read_text().splitlines() for where in ("file", "keras")]
    rows = [[line.split(",") for line in table] for table in tables]
    assert [(row[1], *row[3:]) for row in rows[0]] == [(row[1], *row[3:]) for row in rows[1]]
    assert printed.replace(str(tmp_path / "file"), "") == by_keras.replace(str(tmp_path / "keras"), "")


@pytest.mark.extended
def test_predictions_are_keras_s(tmp_path, capsys):
    model = randomize(zoo.build("nin_digits"))
    Image.fromarray(noise(11, 8).astype(np.uint8)).save(image := tmp_path / "a.png")
    zoo.save(model, tmp_path / "model.keras")
    zoo.export(model, tmp_path / "model.onnx", format="onnx")
    code, printed, _ = command(capsys, "predict", tmp_path / "model.keras", image)
    assert code == 0 and "cropped or padded" in printed
    assert in_own_process("predict", tmp_path / "model.onnx", image) == printed


@pytest.mark.extended
def test_a_model_of_images_of_any_size_predicts(tmp_path, capsys):
    model = zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")), pooling="global")
    file = ExportedNetwork.at(zoo.export(model, tmp_path / "model.onnx", format="onnx"))
    np.save(tmp_path / "large.npy", noise(31, 20))
    np.save(tmp_path / "small.npy", noise(3, 3))
    (given,) = answers_to(file, file.engine(), [tmp_path / "large.npy"])
    (wanted,) = predict_files(model, [tmp_path / "large.npy"])
    assert relative_error(given.scores, wanted.scores) <= 1e-4 and given.note == wanted.note == ""
    with pytest.raises(InputError, match="small.npy: image: received 3 x 3 pixels; accepted: sides that every layer"):
        list(answers_to(file, file.engine(), [tmp_path / "small.npy"]))


@pytest.mark.extended
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra `ray`")
def test_workers_scan_by_a_file(folder, tmp_path):
    for index, name in enumerate("ab"):
        Image.fromarray(noise(40, 50, seed=index).astype(np.uint8)).save(tmp_path / f"{name}.png")
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    for where, more in (("alone", []), ("fleet", ["--workers", "2"])):
        in_own_process("scan", folder / "plain.onnx", *images, "-o", tmp_path / where, *more)
    for name in "ab":
        with np.load(tmp_path / "alone" / name / "scores.npz") as alone:
            with np.load(tmp_path / "fleet" / name / "scores.npz") as fleet:
                assert relative_error(fleet["scores"], alone["scores"]) <= 1e-6


@pytest.mark.extended
@pytest.mark.parametrize("name", ENGINES)
def test_the_first_score_comes_within_two_seconds_of_the_processor(name, plain, folder, tmp_path):
    """Of its time, since the machine may be busy; the start of Python and of `zoo` among it."""
    file = exported(plain, folder, name).path
    np.save(tmp_path / "image.npy", noise(64, 64).astype(np.uint8))
    code = f"""
import resource, sys
from zoo.cli import main
from zoo.scanning.store import Store
write = Store.write
def timed(self, *arguments):
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, file=sys.stderr)
    return write(self, *arguments)
Store.write = timed
main(["scan", {str(file)!r}, {str(tmp_path / "image.npy")!r}, "-o", {str(tmp_path / "out")!r}])
"""
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seconds.append(float(done.stderr.splitlines()[0]))
        shutil.rmtree(tmp_path / "out")
    assert min(seconds) < 2


PEAK = """
import sys
from pathlib import Path
import numpy as np
from zoo.exported.network import ExportedNetwork
from zoo.large_images import scan
from zoo.scanning.memory import resident
image = np.lib.format.open_memmap("image.npy", "w+", np.uint8, (3000, 3000, 1))
file = ExportedNetwork.at(sys.argv[1])
scan(file, image[:200, :200])
budget = resident() + 250 * 2**20
scan(file, image, memory=budget, output="scores.npy")
# Not ru_maxrss, which begins with what the process held that started this one.
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024, budget)
"""


@pytest.mark.extended
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read of /proc")
@pytest.mark.parametrize("name", ENGINES)
def test_the_memory_suffices(name, plain, folder, tmp_path):
    line = [sys.executable, "-c", PEAK, exported(plain, folder, name).path]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak, budget = map(int, done.stdout.split())
    assert peak <= budget


COMMAND = """
import sys
from pathlib import Path
import numpy as np
from zoo.cli import main
np.lib.format.open_memmap("image.npy", "w+", np.uint8, (3000, 3000, 1))
try:
    main(["scan", *sys.argv[1:], "image.npy", "-o", "out", "--no-check"])
except SystemExit as stopped:
    assert not stopped.code
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.extended
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read of /proc")
@pytest.mark.parametrize("name", ["keras", *ENGINES])
def test_the_least_memory_that_the_command_takes_suffices_for_the_pictures_too(name, plain, folder, tmp_path):
    model = folder / "plain.keras" if name == "keras" else exported(plain, folder, name).path

    def run(memory):
        line = [sys.executable, "-c", COMMAND, str(model), "--memory", memory]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)

    refused = run("10MiB")
    assert "memory: received 10 MiB; accepted: at least " in refused.stderr
    least = int(re.search(r"at least ([\d,]+) MiB", refused.stderr)[1].replace(",", ""))
    # The process holds a little more or less each time.
    done = run(f"{least + 8}MiB")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) <= least + 8


def test_a_field_is_found_in_protocol_buffers(plain, folder):
    import onnx

    path = exported(plain, folder, "onnx").path
    data, made = path.read_bytes(), onnx.load(str(path))
    assert made.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    place = varint(data, tensor := inside(data, (0, len(data)), 7, 11, 2, 1), 1)
    assert data[place] == onnx.TensorProto.UINT8
    changed = data[:place] + bytes([onnx.TensorProto.FLOAT]) + data[place + 1 :]
    made.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    assert onnx.load_from_string(changed) == made
    for number in (3, 9):
        with pytest.raises(ValueError, match=f"no field {number}"):
            varint(data, tensor, number)
    with pytest.raises(ValueError, match="field 5 has 2 bytes, and not 1"):
        varint(onnx.ModelProto(ir_version=9, model_version=300).SerializeToString(), (0, 5), 5)
