"""What a padding-free twin costs and changes: canvases of MNIST digits, scanned by a padded net and by its twin.

    python benchmarks/twins.py RUN [--valid RUN] [--canvases 10] [--rounds 5]

RUN is a run directory of a padded net on MNIST, `--valid` one of the same net trained without padding. Each canvas is
the 1,000 x 1,000 one of the README with other digits: 100 test images at random places, and at each the nearest cell
is asked. Scans of the nets take turns; the table gives the median time of a canvas, and the least and largest.
"""

import argparse
import time

from record import add_option, report, spread


def main() -> None:
    """Scan the canvases by every net, and print the table."""
    import numpy as np

    import zoo
    from zoo import data
    from zoo.convert.verification import verify
    from zoo.data import make_canvas
    from zoo.evaluation import predict
    from zoo.scanning.regions import nearest_scores
    from zoo.training import start

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--valid")
    parser.add_argument("--canvases", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    add_option(parser)
    options = parser.parse_args()

    start(0, True)
    config = zoo.load_config(f"{options.run}/config.yaml")
    test = data.load(config).test
    source = zoo.load(options.run)
    nets = {
        f"`{config.name}`": (source, zoo.convolutionalize(source)),
        "its padding-free twin": (source, zoo.convolutionalize(source, padding="valid")),
    }
    if options.valid:
        valid = zoo.load(options.valid)
        nets["trained without padding"] = (valid, zoo.convolutionalize(valid))

    right = {name: [] for name in nets}
    same = {name: [] for name in nets}
    seconds = {name: [] for name in nets}
    crops = []
    for seed in range(options.canvases):
        chosen = np.random.default_rng(seed).choice(len(test), 100, replace=False)
        images, labels = np.asarray(test.images[chosen]), test.labels[chosen]
        canvas = make_canvas(images, labels, (1000, 1000), 100, config.model.preprocess.mean, seed)
        crops += list(predict(source, images).argmax(-1) == canvas.labels)
        for turn in range(options.rounds if seed == 0 else 1):
            for name, (model, fcn) in nets.items():
                begin = time.perf_counter()
                scores = zoo.scan(fcn, canvas.image)
                if turn:
                    seconds[name].append(time.perf_counter() - begin)
                    continue
                answers = nearest_scores(scores, canvas.boxes).argmax(-1)
                right[name] += list(answers == canvas.labels)
                same[name] += list(answers == predict(model, images).argmax(-1))

    print(f"{len(crops)} digits; the padded net on the digits by themselves: {np.mean(crops):.1%}")
    table = []
    for name, (model, fcn) in nets.items():
        verification = verify(model, fcn)
        row = {"net": name, "window, pixels": verification.geometry["window"][0]}
        row["right at the nearest cell, %"] = round(100 * np.mean(right[name]), 1)
        row["as on the digit alone, %"] = round(100 * np.mean(same[name]), 1)
        row |= {
            "error against crops": float(f"{verification.crops_max_error:.2g}"),
            "time of a canvas, s": spread(seconds[name]),
        }
        table.append(row)
    report(table, options.record, config.name, options.rounds)


if __name__ == "__main__":
    main()
