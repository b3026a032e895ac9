"""Exports in int8: what they cost in accuracy, and with --speed what they bring in time.

    python benchmarks/int8.py --record docs/records/int8.json
    python benchmarks/int8.py --speed --record docs/records/int8_speed.json

Shipped nets, converted, calibrated on 256 training images and measured on all test images, each in the format's own
runtime; and ResNet-50 with random weights at half their first values, on parts of two photographs, of which one is for
calibration. With --speed an image of 1,024 x 1,024 pixels of noise, by turns.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from record import add_option, report, spread
from turns import seconds

import zoo
from zoo import data
from zoo.cli.start import training_config
from zoo.exported.formats import FORMATS
from zoo.exported.reading import opened
from zoo.exporting.quantised import Trial
from zoo.shipped import is_shipped

NETS = ("nin_cifar10_bn", "nin_cifar10_valid", "nin_cifar10_padded", "inception_cifar10", "nin_digits", "resnet50")
TIMED = ("nin_cifar10_bn", "resnet50")
INT8 = [kind for kind in FORMATS.values() if "int8" in kind.precisions]
SIDE, ROUNDS, CROPS = 1024, 7, 32


def net(name: str) -> tuple[keras.Model, Trial]:
    """A net, and what it is calibrated and measured on; a random one is not refused for its winners."""
    if is_shipped(name):
        return zoo.load(name), Trial.of_data(data.load(training_config(Path(name))))
    keras.utils.set_random_seed(0)
    model = zoo.build(name)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(weight / 2)
    from sklearn.datasets import load_sample_image

    side = model.input_shape[1]
    china, flower = (crops(load_sample_image(file), side) for file in ("china.jpg", "flower.jpg"))
    return model, Trial(china, flower, None, "two photographs", tolerance=1)


def crops(photograph: np.ndarray, side: int) -> np.ndarray:
    """Square parts of a photograph, at random places."""
    generator = np.random.default_rng(0)
    places = generator.integers(0, np.array(photograph.shape[:2]) - side + 1, (CROPS, 2))
    return np.stack([photograph[top : top + side, left : left + side] for top, left in places])


def accuracies(name: str) -> list[dict]:
    """A row for each format."""
    source, trial = net(name)
    model, rows = zoo.convolutionalize(source), []
    for kind in INT8:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"net{kind.ending}"
            about = kind.carried(zoo.export(model, path, format=kind.name, precision="int8", trial=trial))
        found, places = about.quantised, about.verified
        row = {
            "model": f"`{name}`" + ("" if trial.labels is not None else ", random weights"),
            "format": f"`{kind.name}`",
            "Keras, %": percent(found.accuracy_in_keras),
            "int8, %": percent(found.accuracy),
            "test images": found.n,
            "same winner, %": percent(found.same_winner),
            "of places of larger images, %": percent(places.same_winner),
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def percent(share: float | None) -> float | None:
    """A share in percent."""
    return None if share is None else round(100 * share, 2)


def times(name: str) -> list[dict]:
    """A row for each format and precision."""
    source, trial = net(name)
    model = zoo.convolutionalize(source)
    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[tuple[str, str], Callable] = {}
        for kind in INT8:
            for precision in kind.precisions:
                path = Path(folder) / f"{precision}{kind.ending}"
                given = {"trial": trial} if precision == "int8" else {"images": trial.pictures(zoo.Network.of(model))}
                runs[kind.name, precision] = opened(
                    zoo.export(model, path, format=kind.name, precision=precision, **given)
                )
        taken: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for _ in range(ROUNDS + 1):
            for key, run in runs.items():
                taken[key].append(seconds(run, image))
    rows = []
    for key, own_times in taken.items():
        plain = taken[key[0], "float32"][1:]
        rows.append(
            {
                "model": f"`{name}`",
                "format": f"`{key[0]}`",
                "precision": key[1],
                "seconds": spread(own_times[1:]),
                "times float32": spread([each / own for each, own in zip(plain, own_times[1:], strict=True)]),
            }
        )
    return rows


def main() -> None:
    """Print the table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--speed", action="store_true", help="time them, on an idle machine")
    add_option(parser)
    options = parser.parse_args()
    rows = []
    for name in options.names or (TIMED if options.speed else NETS):
        print(name, flush=True)
        rows += (times if options.speed else accuracies)(name)
    if options.speed:
        report(rows, options.record, f"int8, {SIDE:,} x {SIDE:,} pixels, by turns", n=ROUNDS)
    else:
        report(rows, options.record, "int8, converted, calibrated on 256 training images", n=10_000)


if __name__ == "__main__":
    main()
