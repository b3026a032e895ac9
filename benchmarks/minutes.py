"""What a config learns in how many minutes: test accuracy after every epoch, and over six views at the end.

    python benchmarks/minutes.py [--config fast_cifar10] [KEY=VALUE ...] [--threshold 90] [--seeds 0 1 2] [--views]

The table has the columns of `benchmarks/airbench.py`, beside which it is to be run, on the same machine in one sitting:
minutes of training (reading, augmenting, compiling and the test images after every epoch are part of them), TFLOP/s,
and the minutes after which an epoch's end was at the threshold.
"""

import argparse
import dataclasses
import math
import tempfile
import threading
import time
from pathlib import Path

from record import add_option, deviation, report


def ends_of_epochs(path: Path, begin: float, stop: threading.Event) -> list[float]:
    """Seconds from `begin` to each line that training writes to its history, watched until `stop`."""
    seconds: list[float] = []
    is_over = False
    while not is_over:
        is_over = stop.wait(0.2)  # the file is read once more then
        lines = path.read_text(encoding="utf-8").count("\n") - 1 if path.exists() else 0
        seconds += [time.perf_counter() - begin] * (lines - len(seconds))
    return seconds


def learn(config, threshold: float, views: bool) -> dict[str, float]:
    """One training, and what it reached."""
    import zoo
    from zoo import data
    from zoo.evaluation import evaluate
    from zoo.training import start, train

    start(config.seed, True)
    begin = time.perf_counter()
    model = zoo.build(config.model)
    dataset = data.load(config)
    tested = dataclasses.replace(dataset, validation=dataset.test)
    ends: list[float] = []
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        watch = threading.Thread(target=lambda: ends.extend(ends_of_epochs(Path(folder, "history.csv"), begin, stop)))
        watch.start()
        try:
            logs = train(model, tested, config, Path(folder))
            minutes = (time.perf_counter() - begin) / 60
        finally:
            stop.set()
            watch.join()
    shares = [100 * log["val_accuracy"] for log in logs]
    result = {
        "n": len(dataset.test),
        "test accuracy, %": 100 * evaluate(model, dataset.test, dataset.class_names).accuracy,
        "minutes": minutes,
        "TFLOP/s": 6 * zoo.describe(model).macs * _images(config, len(dataset.train)) / minutes / 60e12,
        f"minutes to {threshold:g} %": next(
            (end / 60 for end, at in zip(ends, shares, strict=True) if at >= threshold), math.nan
        ),
    }
    if views:
        result["over six views, %"] = 100 * evaluate(model, dataset.test, dataset.class_names, views=True).accuracy
    print(f"seed {config.seed}: {result}; by epoch: {', '.join(f'{share:.2f}' for share in shares)}", flush=True)
    return result


def _images(config, count: int) -> int:
    # So many of the images as whole batches hold.
    return config.train.epochs * (count // config.train.batch_size * config.train.batch_size)


def main() -> None:
    """Train once a seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the config, such as train.epochs=8")
    parser.add_argument("--config", default="fast_cifar10")
    parser.add_argument("--threshold", type=float, default=90, help="in %%")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--views", action="store_true", help="also over flips and shifts of each test image")
    add_option(parser)
    options = parser.parse_args()
    from zoo.config import load_config

    overrides = [*options.overrides, "data.validation=0"]
    configs = [load_config(options.config, [*overrides, f"seed={seed}"]) for seed in options.seeds]
    results = [learn(config, options.threshold, options.views) for config in configs]
    tested = int(results[0].pop("n"))
    row: dict = {"net": f"`{' '.join([options.config, *options.overrides])}`"}
    for title in results[0]:
        values = [each[title] for each in results]
        # Nothing where a seed never came to the threshold.
        row[title] = None if any(map(math.isnan, values)) else deviation(values, digits=4)
    report([row], options.record, options.config, tested, tuple(options.seeds))


if __name__ == "__main__":
    main()
