"""What oneDNN is worth: training steps and scans with TensorFlow's own kernels, and with oneDNN's.

    python benchmarks/onednn.py [--models NAME...] [--batch 64] [--side 512] [--rounds 5]

TensorFlow uses oneDNN by itself where a processor has AVX-512; `import zoo` has it used everywhere. Each way is a
process of its own, and they take turns. Training is a step of the config's recipe on a constant batch, without
augmentation, in float32; a scan is one of noise, by Keras. Ratios are within each round.
"""

import argparse
import os
from functools import partial

import turns
from record import add_option, report, spread
from training import our_step

WAYS = {"without": "0", "with": "1"}


def work(pipe, name: str, batch: int, side: int) -> None:
    """At every message: the seconds of a training step of a net, and of a scan by it."""
    import numpy as np

    import zoo

    step = our_step(name, "ours float32", batch, len(os.sched_getaffinity(0)))
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    scan = partial(zoo.scan, zoo.convolutionalize(zoo.build(name)), image)
    for _ in range(2):
        step()
        scan()
    while pipe.recv():
        pipe.send((turns.seconds(step), turns.seconds(scan)))


def measure(name: str, batch: int, side: int, rounds: int) -> dict:
    """The row of one net."""
    workers = {}
    for which, value in WAYS.items():
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = value  # of the process that starts now
        workers[which] = turns.start(work, name, batch, side)
    times: dict[str, list[tuple[float, float]]] = turns.measured(workers, rounds)
    row: dict = {"net": f"`{name}`"}
    for index, (title, amount) in enumerate((("training, images/s", batch), ("scan, megapixels/s", side**2 / 1e6))):
        for which in WAYS:
            row[f"{title}, {which}"] = spread([amount / each[index] for each in times[which]])
        pairs = zip(times["without"], times["with"], strict=True)
        row[f"{title.partition(',')[0]}, times"] = spread([slow[index] / fast[index] for slow, fast in pairs])
    return row


def main() -> None:
    """Measure every net, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=("nin_cifar10_bn", "resnet29_cifar10", "inception_cifar10"), metavar="NAME"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    add_option(parser)
    options = parser.parse_args()
    rows = [measure(name, options.batch, options.side, options.rounds) for name in options.models]
    report(rows, options.record, ", ".join(options.models), options.rounds)


if __name__ == "__main__":
    main()
