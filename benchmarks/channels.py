"""What the number of channels costs in training: a ResNet of 20 layers, a channel or two more at a time.

    python benchmarks/channels.py [--widths 12 16 18 24 29 32] [--precision bfloat16 float32]

Times a training step of 128 images of 32 x 32 pixels for every width of the first stage, twice: as zoo trains, whose
batch normalisation adds channels of zeros where oneDNN's fast kernel needs them, and without them. Both by turns,
`ROUNDS` rounds; needs TensorFlow.
"""

import argparse
import statistics
import time

import depth
from record import add_option, report, spread

ROUNDS, STEPS, IMAGES = 5, 3, 128


def compiled(model, recipe, precision: str, multiples: dict[str, int]):
    """A training step whose normalisations work on such multiples of channels."""
    import numpy as np

    from zoo.training import precision as module
    from zoo.training.recipe import trainer

    kept, module.MULTIPLES = module.MULTIPLES, multiples
    try:
        step = trainer(module.training_copy(model, precision), recipe, (0.0, 0.0, 0.0), 1000).train_on_batch
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (IMAGES, *model.input_shape[1:])).astype(np.float32)
        labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, IMAGES)]
        step(images, labels)  # it is compiled here, with the multiples
    finally:
        module.MULTIPLES = kept
    return lambda: step(images, labels)


def row(width: int, precision: str, options: argparse.Namespace) -> dict:
    """What a step of one width takes, with added channels and without."""
    import zoo
    from zoo.config import model_config
    from zoo.training.precision import MULTIPLES

    section = depth.model_section("basic", 20, width)
    model, recipe = zoo.build(model_config(section, "channels")), depth.config_of(section, options, 0).train
    steps = [compiled(model, recipe, precision, each) for each in (MULTIPLES, dict.fromkeys(MULTIPLES, 1))]
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for step, times in zip(steps, seconds, strict=True):
            begin = time.perf_counter()
            for _ in range(STEPS):
                step()
            times.append((time.perf_counter() - begin) / STEPS)
    ours, plain = ([1e3 * each / IMAGES for each in times] for times in seconds)
    macs = zoo.describe(model).macs
    return {
        "channels of the three stages": f"{width}, {2 * width}, {4 * width}",
        "precision": precision,
        "multiply-adds, M": round(macs / 1e6, 1),
        "without, ms an image": spread(plain),
        "with added channels, ms an image": spread(ours),
        "times as fast": spread([b / a for a, b in zip(ours, plain, strict=True)]),
        "with them, GFLOP/s": round(6 * macs / statistics.median(ours) / 1e6),
    }


def main() -> None:
    """Time them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[12, 16, 18, 24, 29, 32])
    parser.add_argument("--precision", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    add_option(parser)
    options = parser.parse_args()
    from zoo.training import start

    start(0, True)
    options.data, options.epochs = None, 1
    rows = [row(width, precision, options) for precision in options.precision for width in options.widths]
    report(rows, options.record, "benchmarks/channels.py", ROUNDS)


if __name__ == "__main__":
    main()
