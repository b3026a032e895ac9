import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import WITHOUT_TENSORFLOW, noise, randomize

import zoo
from zoo import data

JAX_ALONE = f"{WITHOUT_TENSORFLOW}import numpy as np, zoo\n"


def run(code, folder):
    """Run code in a process with the JAX backend and no TensorFlow."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    # What is compiled for one training serves the next ones.
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", JAX_ALONE + code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_jax_without_tensorflow_gives_the_same_scores(tmp_path):
    pytest.importorskip("jax")
    model = randomize(zoo.build("nin_mnist_bn"))
    zoo.save(model, tmp_path / "model.keras")
    image = noise(60, 50, 1)
    np.save(tmp_path / "image.npy", image)
    run(
        "model = zoo.load('model.keras')\n"
        "np.save('scores.npy', zoo.scan(zoo.convolutionalize(model), np.load('image.npy'), tile=24).scores)\n",
        tmp_path,
    )
    wanted = zoo.scan(model, image).scores
    assert np.abs(np.load(tmp_path / "scores.npy") - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.extended
def test_jax_without_tensorflow_trains_and_resumes(tmp_path):
    """As on a machine with a GPU and no network: images from .npz, a modern recipe in bfloat16, cut in mid-epoch."""
    pytest.importorskip("jax")
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
