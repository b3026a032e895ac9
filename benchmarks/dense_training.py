"""Windows a second in training: on the grid of whole patches, beside the same windows cut out, one by one.

    python benchmarks/dense_training.py [--model scenes_blood_cells] [--patches 104 200] [--rounds 5] [--precision auto]

One process has both steps, of the same model, recipe and precision, compiled and on constant noise; they take turns,
several rounds. A dense step is of `--batch` patches, a step of crops of as many windows as `--crops` says. `limit` is
how many multiply-adds crops need for each one of the grid's; the table gives the median of the rounds, the least and
the largest in brackets. Making the batches is not timed.
"""

import argparse
import os
import time
from collections.abc import Callable

from record import add_option, report, spread

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def seconds(step: Callable[[], object], repeats: int) -> float:
    """Of one step, the mean of several."""
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begin) / repeats


def main() -> None:
    """Measure every size of patch, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scenes_blood_cells", help="a config whose model has padding: valid")
    parser.add_argument("--patches", nargs="+", type=int, default=(104, 200), help="their sides in pixels")
    parser.add_argument("--batch", type=int, default=4, help="patches a step")
    parser.add_argument("--crops", type=int, default=128, help="windows a step of crops")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    add_option(parser)
    options = parser.parse_args()

    import numpy as np

    import zoo
    from zoo.config import load_config
    from zoo.training import start
    from zoo.training.dense import grid_trainer
    from zoo.training.patches import PatchForm
    from zoo.training.precision import resolve, training_copy
    from zoo.training.recipe import trainer

    start(0, True)
    config = load_config(options.model, ["train.dense=null", "train.augment={}", "train.class_weight=null"])
    precision, classes = resolve(options.precision), config.model.num_classes
    model = zoo.build(config.model)
    converted = zoo.convolutionalize(model)
    crops = trainer(training_copy(model, precision), config.train, config.model.preprocess.mean, 10**4)
    grids = grid_trainer(training_copy(converted, precision), config.train, 10**4, classes - 1)
    random = np.random.default_rng(0)

    def step(learner, count: int, size: tuple[int, int], cells: tuple[int, ...]) -> Callable[[], object]:
        images = random.integers(0, 256, (count, *size, config.model.channels)).astype(np.float32)
        labels = np.eye(classes, dtype=np.float32)[random.integers(0, classes, (count, *cells))]
        return lambda: learner.train_on_batch(images, labels)

    by_crops = step(crops, options.crops, config.model.training_size, ())
    table = []
    for side in options.patches:
        form = PatchForm.of(zoo.geometry(converted), (side, side))
        windows = options.batch * form.cells[0] * form.cells[1]
        dense = step(grids, options.batch, form.size, form.cells)
        for each in (dense, by_crops):
            seconds(each, 2)
        dense_rates, crop_rates = [], []
        for _ in range(options.rounds):
            dense_rates.append(windows / seconds(dense, options.steps))
            crop_rates.append(options.crops / seconds(by_crops, options.steps))
        macs = zoo.describe(model).macs, zoo.describe(converted, image_size=form.size).macs
        table.append(
            {
                "model": f"`{options.model}`, {precision}",
                "patch": "×".join(map(str, form.size)),
                "grid": "×".join(map(str, form.cells)),
                "dense, windows/s": spread(dense_rates),
                "crops, windows/s": spread(crop_rates),
                "dense / crops": spread([one / other for one, other in zip(dense_rates, crop_rates, strict=True)]),
                "limit": round(macs[0] * form.cells[0] * form.cells[1] / macs[1], 1),
            }
        )
    report(table, options.record, options.model, options.rounds)


if __name__ == "__main__":
    main()
