"""Boxes in one image, three ways: a crop for each, RoI pooling from one feature map, the cells of one score map.

    python benchmarks/regions.py [--model NAME] [--side 480 640] [--boxes 20 200 2000] [--rounds 5]

Every way scores the same boxes of the model's training size at random places, in turn, several rounds; crops run at
the best of several batch sizes, found first. The table gives boxes a second (the image's own pass included): the
median, the least and largest in brackets, and the ratio to crops.
"""

import argparse
import os

from record import add_option, report, spread
from turns import seconds

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BATCHES = (8, 16, 32, 64, 128, 256)


def main() -> None:
    """Measure every way in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nin_cifar10_bn")
    parser.add_argument("--side", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--boxes", type=int, nargs="+", default=(20, 200, 2000))
    parser.add_argument("--rounds", type=int, default=5)
    add_option(parser)
    options = parser.parse_args()

    import numpy as np

    import zoo
    from zoo.large_images import box_scores
    from zoo.scanning import regions

    model = zoo.build(options.model)
    window, channels = model.input_shape[1:3], model.input_shape[-1]
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*options.side, channels)).astype(np.float32)
    crops = generator.integers(0, 256, (max(BATCHES), *window, channels)).astype(np.float32)
    rates = {}
    for batch in BATCHES:
        model(crops[:batch], training=False)
        rates[batch] = batch / min(seconds(model, crops[:batch]) for _ in range(3))
    regions.CROPS_AT_ONCE = max(rates, key=rates.get)
    print(f"{options.model}, image {options.side[0]} x {options.side[1]}, crops {regions.CROPS_AT_ONCE} at a time")
    table = []
    for count in options.boxes:
        corners = generator.integers(0, np.array(options.side) - window + 1, (count, 2))
        boxes = np.concatenate([corners, corners + window], 1)
        times_by_way = {way: [] for way in ("crops", "roi", "cells")}
        for way in times_by_way:
            box_scores(model, image, boxes, way)
        for _ in range(options.rounds):
            for way, times in times_by_way.items():
                times.append(seconds(box_scores, model, image, boxes, way))
        for way, times in times_by_way.items():
            ratios = spread([crops / own for crops, own in zip(times_by_way["crops"], times, strict=True)])
            rate = spread([count / own for own in times])
            table.append({"boxes": count, "way": way, "boxes/s": rate, "ratio to crops": ratios})
    report(table, options.record, options.model, options.rounds)


if __name__ == "__main__":
    main()
