"""What freezing saves: time and memory of a training step, with either end of a network frozen.

    python benchmarks/freezing.py [--model resnet29_cifar10] [--batch 64] [--steps 8] [--rounds 5]

Freezing the first stages lets back-propagation stop early; training only the first two layers still runs through the
frozen rest and saves no more than its weight gradients. Every case runs in a process of its own, in turn, several
rounds; the table gives the median, and the least and largest in brackets.
"""

import argparse
import json
import resource
import statistics

from record import add_option, report, spread
from turns import case, seconds

CASES = {
    "all layers trained": None,
    "stem and stage 1 frozen": "stem|stage1",
    "stem, stages 1 and 2 frozen": "stem|stage[12]",
    "all but the head frozen": "stem|stage|post",
    # Everything but the stem and the first 1x1 convolution, with its normalisations.
    "only the first two layers trained": "stage1_block1_(conv[23]|shortcut)|stage1_block[2-9]|stage[2-9]|post|head",
}


def measure(model_name: str, pattern: str | None, batch: int, steps: int) -> dict[str, float]:
    """Seconds a step (median of `steps`, after two that are not counted) and peak resident memory in MiB."""
    import keras
    import numpy as np

    import zoo
    from zoo.training import start
    from zoo.training.recipe import freeze

    start(0, True)
    model = zoo.build(model_name)
    if pattern:
        freeze(model, pattern)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, *model.input_shape[1:])).astype(np.float32)
    labels = generator.integers(0, model.output_shape[-1], batch)
    times = [seconds(model.train_on_batch, images, labels) for _ in range(steps + 2)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(times[2:]), "memory": peak, "trained": trained}


def main() -> None:
    """Run every case in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet29_cifar10")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    add_option(parser)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.model, CASES[options.case], options.batch, options.steps)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    words = ["--model", options.model, "--batch", str(options.batch), "--steps", str(options.steps)]
    for _ in range(options.rounds):
        for name in CASES:
            results[name].append(case(__file__, name, *words))
    whole = results["all layers trained"]
    print(
        f"{options.model}, batch {options.batch}, {options.rounds} rounds; share of the step with all layers trained\n"
    )
    table = []
    for name, rows in results.items():
        row = {"case": name, "weights trained": rows[0]["trained"]}
        for title, key in (("time of a step", "seconds"), ("peak memory", "memory")):
            row[title] = spread([own[key] / base[key] for own, base in zip(rows, whole, strict=True)])
        table.append(row)
    report(table, options.record, options.model, options.rounds)


if __name__ == "__main__":
    main()
