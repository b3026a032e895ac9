import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import WITHOUT_TENSORFLOW, noise, randomize

import zoo
from zoo import data
from zoo.scores import relative_error

BACKEND_ALONE = f"{WITHOUT_TENSORFLOW}import numpy as np, zoo\n"
# torch is no part of the development extra: its files for Linux hold gigabytes of CUDA. Run by hand where it is there.
OTHERS = [pytest.param("jax", marks=pytest.mark.slow), pytest.param("torch", marks=pytest.mark.extended)]


def run(code, folder, backend="jax"):
    """Run code in a process with another backend and no TensorFlow."""
    pytest.importorskip(backend)
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    # What is compiled for one training serves the next ones.
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", BACKEND_ALONE + code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("backend", OTHERS)
def test_without_tensorflow_the_scores_are_the_same(backend, tmp_path):
    model = randomize(zoo.build("nin_mnist_bn", padding="valid"))
    zoo.save(model, tmp_path / "model.keras")
    image = noise(60, 50, 1)
    np.save(tmp_path / "image.npy", image)
    run(
        "model, image = zoo.load('model.keras'), np.load('image.npy')\n"
        "fcn = zoo.convolutionalize(model)\n"
        "np.save('scores.npy', zoo.scan(fcn, image, tile=24).scores)\n"
        "np.save('boxes.npy', zoo.score_boxes(model, image, [(3, 4, 30, 40), (0, 0, 28, 28)]).scores)\n",
        tmp_path,
        backend,
    )
    boxes = zoo.score_boxes(model, image, [(3, 4, 30, 40), (0, 0, 28, 28)])
    for name, wanted in (("scores", zoo.scan(model, image).scores), ("boxes", boxes.scores)):
        assert relative_error(np.load(tmp_path / f"{name}.npy"), wanted) <= 1e-5


@pytest.mark.extended
def test_torch_without_tensorflow_trains(tmp_path):
    run(
        "config = zoo.load_config('nin_digits', ['train.epochs=3', 'canvas=null'])\nzoo.run(config, 'run')\n",
        tmp_path,
        "torch",
    )
    environment, report = (
        json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("environment", "evaluation")
    )
    assert environment["backend"] == "torch" and report["accuracy"] > 0.9


@pytest.mark.extended
def test_jax_without_tensorflow_trains_and_resumes(tmp_path):
    """As on a machine with a GPU and no network: images from .npz, a modern recipe in bfloat16, cut in mid-epoch."""
    digits = data.load(zoo.load_config("nin_digits", ["data.validation=0"]))
    arrays = {"x_train": digits.train.images, "y_train": digits.train.labels}
    arrays |= {"x_test": digits.test.images, "y_test": digits.test.labels}
    np.savez(tmp_path / "digits.npz", **arrays)
    run(
        "from zoo.training import loop, checkpoint\n"
        "overrides = ['train.epochs=2', 'train.checkpoint_every_steps=5', 'train.patience=2', 'train.accumulate=2',\n"
        "    'train.ema=0.9', 'train.augment={mixup: 0.2, cutmix: 0.5}', 'model.mlpconvs.1.dropout=0.1',\n"
        "    'data.name=npz', 'data.dir=digits.npz', 'train.precision=bfloat16',\n"
        "    'canvas=null', 'train.batch_size=143']\n"
        "config = zoo.load_config('nin_digits', overrides)\n"
        "zoo.run(config, 'whole')\n"
        "keep = checkpoint.save\n"
        "def stop(folder, trainer, progress):\n"
        "    keep(folder, trainer, progress)\n"
        "    if progress.step == 15: raise SystemExit\n"
        "checkpoint.save = stop\n"
        "try: zoo.run(config, 'cut')\n"
        "except SystemExit: pass\n"
        "checkpoint.save = keep\n"
        "zoo.run(config, 'cut')\n"
        "whole, cut = zoo.load('whole'), zoo.load('cut')\n"
        "for a, b in zip(whole.weights, cut.weights): np.testing.assert_array_equal(np.asarray(a), np.asarray(b))\n",
        tmp_path,
    )
    histories = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "cut")]
    assert histories[0] == histories[1]
    environment = json.loads((tmp_path / "whole" / "environment.json").read_text())
    assert environment["backend"] == "jax"
