"""What the number of channels costs in training: a ResNet of 20 layers, a channel or two more at a time.

    python benchmarks/channels.py [--widths 12 16 18 24 29 32] [--precision bfloat16 float32]

Times a training step of 128 images of 32 x 32 pixels for every width of the first stage, twice: as zoo trains, whose
batch normalisation adds channels of zeros where oneDNN's fast kernel needs them, and without them, by turns. Needs
TensorFlow.
"""

import argparse
import statistics

import depth
from record import add_option, report, spread


def compiled(model, recipe, precision: str, multiples: dict[str, int]):
    """A training step whose normalisations work on such multiples of channels."""
    from zoo.training import precision as module

    kept, module.MULTIPLES = module.MULTIPLES, multiples
    try:
        return depth.compiled(model, recipe, precision)
    finally:
        module.MULTIPLES = kept


def row(width: int, precision: str, options: argparse.Namespace) -> dict:
    """What a step of one width takes, with added channels and without."""
    import zoo
    from zoo.config import model_config
    from zoo.training.precision import MULTIPLES

    section = depth.model_section("basic", 20, width)
    model, recipe = zoo.build(model_config(section, "channels")), depth.config_of(section, options, 0).train
    ways = {"with": MULTIPLES, "without": dict.fromkeys(MULTIPLES, 1)}
    times = depth.by_turns({way: compiled(model, recipe, precision, each) for way, each in ways.items()})
    macs = zoo.describe(model).macs
    return {
        "channels of the three stages": f"{width}, {2 * width}, {4 * width}",
        "precision": precision,
        "multiply-adds, M": round(macs / 1e6, 1),
        "without, ms an image": spread(times["without"]),
        "with added channels, ms an image": spread(times["with"]),
        "times as fast": spread([b / a for a, b in zip(times["with"], times["without"], strict=True)]),
        "with them, GFLOP/s": round(6 * macs / statistics.median(times["with"]) / 1e6),
    }


def main() -> None:
    """Time them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[12, 16, 18, 24, 29, 32])
    parser.add_argument("--precision", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    add_option(parser)
    parser.set_defaults(data=None, epochs=1)
    options = parser.parse_args()
    from zoo.training import start

    start(0, True)
    rows = [row(width, precision, options) for precision in options.precision for width in options.widths]
    report(rows, options.record, "benchmarks/channels.py", depth.ROUNDS)


if __name__ == "__main__":
    main()
