"""What each part of a modern recipe is worth on little data: a config with all parts, and with each of them left out.

    python benchmarks/recipes.py -o DIR [--config resnet_digits] [--seeds 5]

Test accuracy and loss, mean and standard deviation over seeds 0 to N - 1. DIR gets a folder of runs a case; what is
finished there is not run again, so the command goes on where it was stopped.
"""

import argparse
from pathlib import Path

LEFT_OUT = {
    "EMA of the weights": ["train.ema=null"],
    "RandAugment": ["train.augment.randaugment=null"],
    "MixUp": ["train.augment.mixup=0"],
    "CutMix": ["train.augment.cutmix=0"],
    "stochastic depth": ["model.stochastic_depth=0"],
    "label smoothing": ["train.label_smoothing=0"],
    "accumulation (an update a batch)": ["train.accumulate=1"],
}
CASES = {
    "all": [],
    **{f"all but {name}": overrides for name, overrides in LEFT_OUT.items()},
    "none of them": [override for overrides in LEFT_OUT.values() for override in overrides],
}


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--config", default="resnet_digits")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()

    from zoo.config import load_config
    from zoo.seeds import run_seeds

    results = {}
    for index, (case, overrides) in enumerate(CASES.items()):
        folder = options.output / f"{index}"
        results[case] = run_seeds(load_config(options.config, overrides), tuple(range(options.seeds)), folder)
    print(f"{options.config}, n = {options.seeds}\n\n| recipe | test accuracy, % | test loss |\n|---|---|---|")
    for case, result in results.items():
        print(f"| {case} | {spread(result['accuracy'], 100, 2)} | {spread(result['loss'], 1, 3)} |")


def spread(values: dict, scale: float, digits: int) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {values['deviation'] * scale:.{digits}f}" if values["deviation"] is not None else ""
    return f"{values['mean'] * scale:.{digits}f}{deviation}"


if __name__ == "__main__":
    main()
