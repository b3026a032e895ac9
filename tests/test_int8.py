"""Exports in int8: calibrated on training images, measured on test images, kept only where the gate holds."""

import dataclasses
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import command, noise, randomize
from PIL import Image

import zoo
from zoo import data, processor
from zoo.card import Card, attach
from zoo.cli.start import training_config
from zoo.errors import Differs, InputError
from zoo.exported.format import CannotHold
from zoo.exported.formats import FORMATS
from zoo.exported.reading import opened
from zoo.exporting import quantised, verification
from zoo.exporting.quantised import Trial
from zoo.network.network import Network

onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
INT8 = [name for name, each in FORMATS.items() if "int8" in each.precisions]


@cache
def digits():
    return data.load(training_config(Path("nin_digits")))


@pytest.fixture(scope="module")
def fcn():
    return zoo.convolutionalize(zoo.load("nin_digits"))


@pytest.fixture(scope="module")
def trial():
    return Trial.of_data(digits())


@pytest.fixture(scope="module")
def file(fcn, trial, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "fcn.onnx"
    return zoo.export(fcn, path, format="onnx", precision="int8", trial=trial)


def check(path, fcn):
    """The file carries what was measured, and answers as the model does at any size and batch."""
    exported = opened(path)
    about, report = exported.carried, exported.carried.quantised
    assert about.precision == "int8" and report.n == 360 and report.tolerance == 0.005
    assert report.accuracy == pytest.approx(0.9972, abs=0.005) and report.same_winner >= 0.99
    assert report.accuracy_in_keras == pytest.approx(0.997222, abs=1e-6)
    assert report.calibrated_on == "256 training images of digits" and report.measured_on == "test images of digits"
    assert about.verified.tolerance is None and about.verified.same_winner >= 0.95 and about.verified.error > 1e-4
    assert {shape[0] for shape in about.verified.images} == {1, 2}
    assert len({shape[1:] for shape in about.verified.images}) == 3
    whole = np.concatenate([*digits().test.images[:12]], axis=1)
    for image in (whole[None], np.concatenate([whole, whole[::-1]])[None, :, 5:], np.stack([whole, whole[:, ::-1]])):
        wanted, (given,) = np.asarray(fcn(image)), exported(image).values()
        assert given.shape == wanted.shape and given.shape[1:3] == about.geometry().grid_shape(*image.shape[1:3])
        assert (given.argmax(-1) == wanted.argmax(-1)).mean() >= 0.9


@pytest.mark.extended
def test_a_file_in_int8_answers_as_the_model_at_every_size(file, fcn):
    check(file, fcn)


@pytest.mark.extended
def test_openvino_takes_the_same_file(fcn, trial, tmp_path):
    check(zoo.export(fcn, tmp_path / "fcn.xml", format="openvino", precision="int8", trial=trial), fcn)
    assert {each.name for each in tmp_path.iterdir()} == {"fcn.xml", "fcn.bin"}
    import openvino

    compiled = openvino.Core().compile_model(str(tmp_path / "fcn.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ops = [each.rt_info for each in compiled.get_runtime_model().get_ops()]
    kinds = [each["runtimePrecision"].value for each in ops if each["layerType"].value == "Convolution"]
    assert {"i8", "u8"} & set(kinds) and kinds.count("f32") <= 1, kinds


@pytest.mark.extended
def test_kernels_are_bytes_with_a_scale_for_each_channel_but_for_the_last(file, fcn):
    graph = onnx.load(str(file)).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    makers = {made: node for node in graph.node for made in node.output}
    kinds = []
    for node in graph.node:
        if node.op_type == "Conv":
            kernel = makers.get(node.input[1])
            if kernel is not None and kernel.op_type == "DequantizeLinear":
                bytes_, scales = (stored[name] for name in kernel.input[:2])
                assert bytes_.dtype == np.int8 and scales.shape == (len(bytes_),)
            kinds.append("float" if kernel is None else kernel.op_type)
    convolutions = [layer for layer in fcn.layers if isinstance(layer, keras.layers.Conv2D)]
    assert kinds == ["DequantizeLinear"] * (len(convolutions) - 1) + ["float"]


@pytest.mark.extended
@pytest.mark.parametrize(("saturates", "bits", "largest"), [(True, 7, 64), (None, 7, 64), (False, 8, 127)])
def test_weights_of_eight_bits_are_for_processors_that_add_them(
    fcn, trial, tmp_path, capsys, monkeypatch, saturates, bits, largest
):
    monkeypatch.setattr(processor, "saturates", lambda: saturates)
    loose = dataclasses.replace(trial, tolerance=1.0)
    monkeypatch.setitem(verification.SAME_WINNER, "int8", 0.0)
    path = zoo.export(fcn, tmp_path / "fcn.onnx", format="onnx", precision="int8", trial=loose)
    graph = onnx.load(str(path)).graph
    kernels = [
        onnx.numpy_helper.to_array(each) for each in graph.initializer if each.data_type == onnx.TensorProto.INT8
    ]
    assert kernels and max(np.abs(each.astype(int)).max() for each in kernels) == largest
    assert FORMATS["onnx"].carried(path).quantised.weight_bits == bits

    monkeypatch.setattr(processor, "saturates", lambda: True)
    Image.fromarray(digits().test.images[0][..., 0]).save(tmp_path / "digit.png")
    line = ["scan", path, tmp_path / "digit.png", "-o", tmp_path / "out"]
    if bits == 7:
        opened(path)
        assert command(capsys, *line)[0] == 0
        return
    with pytest.raises(InputError, match="in int8: received weights of 8 bits, .*; accepted: a file that was exported"):
        opened(path)
    code, _, error = command(capsys, *line)
    assert code == 2 and "without VNNI" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("machine", "flags", "wanted"),
    [
        ("x86_64", {"avx2", "fma"}, True),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("AMD64", set(), None),  # nothing says what it has
        ("aarch64", {"asimd"}, False),
    ],
)
def test_which_processors_saturate(monkeypatch, machine, flags, wanted):
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "flags", lambda: flags)
    assert processor.saturates() is wanted


def test_it_is_calibrated_on_training_images_alone(trial):
    dataset = digits()
    tests = {image.tobytes() for image in np.asarray(dataset.test.images)}
    trains = {image.tobytes() for image in np.asarray(dataset.train.images)}
    drawn = [image.tobytes() for image in trial.training]
    assert len(drawn) == 256 and set(drawn) <= trains and not set(drawn) & (tests - trains)
    given = np.concatenate(list(quantised._batches(trial.training, "uint8")))
    assert np.array_equal(given, trial.training)


@pytest.mark.extended
@pytest.mark.parametrize("labels", [True, False])
def test_a_file_that_lost_its_accuracy_is_not_kept(fcn, trial, labels, tmp_path, monkeypatch):
    """Calibrated on black images, whose ranges hold nothing that a digit needs."""
    monkeypatch.setattr(quantised, "_DRAWN", 64)
    bad = dataclasses.replace(trial, training=np.zeros((64, 8, 8, 1), np.uint8))
    bad = bad if labels else dataclasses.replace(bad, labels=None)
    monkeypatch.setattr("zoo.exporting.verification.SAME_WINNER", {"int8": 0.0})
    words = "accuracy on 360" if labels else "the same winners for 360"
    with pytest.raises(Differs, match=f"in int8: {words} test images of digits fell: all images -.*accepted: 0.50%"):
        zoo.export(fcn, tmp_path / "fcn.onnx", format="onnx", precision="int8", trial=bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extended
def test_one_whose_winners_differ_on_larger_images_is_not_kept(fcn, trial, tmp_path):
    bad = dataclasses.replace(trial, training=np.zeros((64, 8, 8, 1), np.uint8))
    with pytest.raises(Differs, match=r"onnxruntime has the same winner at .* places; accepted: 95%"):
        zoo.export(fcn, tmp_path / "fcn.onnx", format="onnx", precision="int8", trial=bad)
    assert list(tmp_path.iterdir()) == []


def other_classes(fcn):
    names = ("zero", *map(str, range(1, 10)))
    return attach(keras.models.clone_model(fcn), Card(**{**Network.of(fcn).card.model_dump(), "class_names": names}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "litert"}, "'litert': received precision int8; accepted: float32"),
        ({"trial": None}, "int8: received no trial"),
        ({"precision": "float32"}, "float32: received a trial"),
        ({"fold": False}, "int8: received normalisation that is not folded"),
    ],
)
def test_what_does_not_go_together_is_refused(fcn, trial, options, words, tmp_path):
    given = {"format": "onnx", "precision": "int8", "trial": trial, **options}
    with pytest.raises(InputError, match=words):
        zoo.export(fcn, tmp_path / f"fcn{FORMATS[given['format']].ending}", **given)
    assert list(tmp_path.iterdir()) == []


def changed(trial, **values):
    return dataclasses.replace(trial, **values)


def counter(fcn):
    return attach(keras.models.clone_model(fcn), Card(target="count"))


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        (other_classes, {}, "classes: only the model has .zero.*; only digits has .0.*; accepted: the model.s own"),
        (counter, {}, "int8: received a model without classes"),
        (None, {"test": np.zeros((0, 8, 8, 1), np.uint8)}, "test images of digits: received none"),
        (None, {"test": np.zeros((4, 8, 8, 3), np.uint8)}, "takes images of .*, but test images of digits are"),
        (None, {"test": np.zeros((4, 8, 8, 1), np.float32)}, "samples of float32; accepted: uint8"),
        (None, {"test": np.zeros((4, 16, 8, 1), np.uint8)}, "5 answers for one of its training images"),
    ],
)
def test_a_trial_that_does_not_fit_is_refused(fcn, trial, model, change, words, tmp_path):
    network = Network.of(fcn if model is None else model(fcn))
    with pytest.raises(InputError, match=words):
        tried = changed(trial, **change)
        tried.check(network, "uint8")
        quantised._winners(network, quantised.predict(network.model, tried.test))


def test_what_the_quantiser_cannot_take_is_refused(fcn, trial, monkeypatch, tmp_path):
    def broken(*arguments):
        raise CannotHold("no kernel")

    monkeypatch.setattr(quantised, "quantise", broken)
    with pytest.raises(InputError, match="precision int8, in which onnx cannot hold it .no kernel"):
        zoo.export(fcn, tmp_path / "fcn.onnx", format="onnx", precision="int8", trial=trial)
    assert list(tmp_path.iterdir()) == []


def command_line(fcn, folder):
    source = zoo.save(fcn, folder / "fcn.keras")
    return source, ["export", source, "-o", folder / "fcn.onnx", "--format", "onnx", "--precision", "int8"]


def test_a_command_without_data_is_refused(capsys, fcn, tmp_path):
    source, line = command_line(fcn, tmp_path)
    code, _, error = command(capsys, *line)
    assert code == 2 and "a model without data" in error and "--data RUN" in error
    code, _, error = command(capsys, *line[:-2], "--tolerance", "0.1")
    assert code == 2 and "has no effect without --precision int8" in error
    code, _, error = command(capsys, *line, "--data", tmp_path / "gone")
    assert code == 2 and "gone" in error
    counting = tmp_path / "counting"
    counting.mkdir()
    (counting / "config.yaml").write_text((CONFIGS / "scenes_bone_marrow.yaml").read_text(encoding="utf-8"))
    zoo.save(fcn, counting / "model.keras")
    code, _, error = command(capsys, *line, "--data", counting)
    assert code == 2 and "the data of a run that counts" in error
    assert {each.name for each in tmp_path.iterdir()} == {source.name, counting.name}


@pytest.mark.extended
def test_the_command_takes_the_data_of_a_run(capsys, fcn, tmp_path):
    _, line = command_line(fcn, tmp_path)
    code, out, _ = command(capsys, *line, "--data", "nin_digits")
    assert code == 0 and "accuracy 99." in out and "(Keras 99.72%)" in out
    assert FORMATS["onnx"].carried(tmp_path / "fcn.onnx").quantised.tolerance == 0.005


@pytest.mark.extended
def test_a_command_whose_gate_fails_leaves_no_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(quantised, "_DRAWN", 1)
    monkeypatch.setattr(
        Trial, "of_data", lambda dataset, tolerance: Trial(noise(4, 8, 8, 1).astype(np.uint8) // 64, *_of(dataset))
    )
    line = ["export", "nin_digits", "-o", tmp_path / "net.onnx", "--format", "onnx", "--precision", "int8"]
    code, _, error = command(capsys, *line)
    assert code == 1 and len(error.strip().splitlines()) == 1 and list(tmp_path.iterdir()) == []


def _of(dataset):
    return dataset.test.images, dataset.test.labels, dataset.name, dataset.class_names, 0.0


@pytest.mark.extended
@pytest.mark.parametrize("format", INT8)
# Not a random NIN, whose averages of noise have no clear winner (95.0 % of the places); a trained one is tested above.
@pytest.mark.parametrize("name", ["inception", "v1", "squeezenet"])
def test_architectures_keep_their_winners(name, format, tmp_path):
    from test_models import SMALL

    spec, overrides = SMALL[name]
    model = zoo.convolutionalize(randomize(zoo.build(spec, image_size=(65, 65), **overrides)))
    images = noise(40, 65, 65, model.inputs[0].shape[-1]).astype(np.uint8)
    trial = Trial(images[:20], images[20:], None, "noise", tolerance=1)
    path = zoo.export(model, tmp_path / f"net{FORMATS[format].ending}", format=format, precision="int8", trial=trial)
    about = FORMATS[format].carried(path)
    assert about.quantised.accuracy is None and about.quantised.same_winner >= 0.8
    assert about.image.shape[:3] == (None, None, None)
