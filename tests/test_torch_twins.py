"""What the benchmarks in PyTorch compare with: the same scores, and windows that begin at the same pixels."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from test_models import SMALL

import zoo
from zoo.scores import relative_error

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import overlap  # noqa: E402
import runtimes  # noqa: E402
from torch_twin import twin  # noqa: E402

pytestmark = pytest.mark.extended


def scores(model, images, dtype=torch.float32):
    with torch.inference_mode():
        return twin(model, dtype)(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("name", ["nin", "inception", "v1", "v2"])
def test_a_twin_gives_the_scores_of_its_model(name):
    spec, overrides = SMALL[name]
    model = randomize(zoo.build(spec, image_size=(65, 65), **overrides))
    images = noise(2, 65, 65, model.inputs[0].shape[-1]).astype(np.uint8)
    assert relative_error(scores(model, images), np.asarray(model(images))) <= 1e-5
    assert relative_error(scores(model, images, torch.bfloat16), np.asarray(model(images))) <= 0.1
    converted = zoo.convolutionalize(model)
    wider = noise(1, 97, 129, images.shape[-1]).astype(np.uint8)
    assert relative_error(scores(converted, wider), np.asarray(converted(wider))) <= 1e-5


@pytest.mark.parametrize("padding", [((0, 1), (0, 1)), ((1, 1), (2, 2)), ((1, 0), (0, 2))])
@pytest.mark.parametrize("rectified", [True, False])
def test_a_border_before_a_pooling_or_convolution(padding, rectified):
    image = keras.Input((9, 11, 3))
    x = keras.layers.ReLU()(image) if rectified else keras.layers.BatchNormalization()(image)
    ends = [
        keras.layers.MaxPooling2D(4, 2),
        keras.layers.AveragePooling2D(4, 2),
        keras.layers.Conv2D(2, (4, 4), 2, name="conv"),
    ]
    for end in ends:
        padded = keras.layers.ZeroPadding2D(padding)(x)
        model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(end(padded)))
        images = (noise(2, 9, 11, 3) - 128).astype(np.float32)
        assert relative_error(scores(model, images), np.asarray(model(images))) <= 1e-5


def test_a_layer_without_a_counterpart_is_named():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.UpSampling2D(name="up")(image))
    with pytest.raises(SystemExit, match="layer 'up': UpSampling2D has no counterpart"):
        twin(model)


def test_windows_are_shared_where_both_begin_at_the_same_pixel():
    """Scores that say where a window begins."""

    def begins(stride):
        places = np.arange(overlap.windows(100, 40, stride)) * stride
        return np.stack(np.meshgrid(places, places, indexing="ij"), -1)

    for stride in (40, 20, 10, 8, 6, 4):
        assert overlap.difference(begins(stride), begins(4), stride, 4) == 0
    assert overlap.strides(40, 4) == [40, 20, 10, 4]
    assert [overlap.shared(stride, 4) for stride in (40, 20, 10, 4)] == [1, 1, 2, 1]
    moved = begins(10)
    moved[2, 0] += 8
    assert overlap.difference(moved, begins(4), 10, 4) == 0.1
    moved[1] += 100
    assert overlap.difference(moved, begins(4), 10, 4) == 0.1


def test_ratios_are_to_the_fastest_in_pytorch_within_each_round():
    times = {"PyTorch a": [4.0, 2.0, 6.0], "PyTorch b": [5.0, 5.0, 5.0], "OpenVINO": [2.0, 2.0, 2.0]}
    base = runtimes.fastest(times)
    assert base == times["PyTorch a"]
    assert runtimes.ratio(base, times["OpenVINO"]).model_dump() == {"median": 2, "least": 1, "largest": 3}
    assert runtimes.fastest({"OpenVINO": [1.0]}) is None and runtimes.ratio(None, [1.0]) is None


def test_the_ways_of_a_net_take_turns(tmp_path, monkeypatch):
    """A few of them, in processes of their own, on a small shipped net; one cannot be run."""
    names = ("ONNX Runtime", "PyTorch bfloat16, eager")
    ways = {name: runtimes.WAYS[name] for name in names} | {"LiteRT": runtimes.Way("gone.tflite", runtimes.exported)}
    monkeypatch.setattr(runtimes, "WAYS", ways)
    monkeypatch.setitem(runtimes.CASES, "digits", runtimes.Case("nin_digits", (1, 4)))
    rows = {row["way"].partition(":")[0]: row for row in runtimes.compare("digits", 1, tmp_path)}
    assert list(rows) == list(ways)
    assert rows["LiteRT"]["latency, ms"] is None and "gone.tflite" in rows["LiteRT"]["way"]
    for name in names:
        assert rows[name]["latency, ms"].median > 0 and rows[name]["batch"] in (1, 4)
        assert rows[name]["accuracy, %"] > 99
    assert rows[names[-1]]["against PyTorch"].median == 1
    assert rows[names[0]]["error"] <= 1e-5 < rows[names[1]]["error"]
