"""Architectures in every format: how far each runtime's scores are from Keras's, and how long an export takes.

    python benchmarks/exports.py --record docs/records/exports.json

Random weights at half their first values, converted, so that height and width are free; relative errors, the largest at
three sizes and two batches of noise, as every export measures them. A layer that a format cannot hold is named.
"""

import argparse
import tempfile
import time
from pathlib import Path

from record import add_option, report

import zoo
from zoo.errors import Differs, InputError
from zoo.exported.formats import FORMATS

# A row of the catalogue for each kind of architecture.
NETS = (
    *("nin_mnist_valid", "nin_cifar10", "squeezenet1_1", "googlenet", "inception_cifar10", "inception_v3"),
    *("resnet29_cifar10", "resnet50", "resnet50_v2", "resnext50_32x4d"),
)


def measured(name: str) -> dict:
    """A row of the table."""
    model = zoo.build(name)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(weight / 2)
    converted = zoo.convolutionalize(model)
    row: dict = {"architecture": f"`{name}`"}
    for kind in FORMATS.values():
        if kind.name == "web":  # whose file is that of onnx
            continue
        row[kind.name] = cell(converted, kind)
    return row


def cell(model, kind) -> str:
    """The relative error, or why there is none."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = kind.carried(zoo.export(model, Path(folder) / f"net{kind.ending}", format=kind.name)).verified
        except (InputError, Differs) as error:
            print(f"  {kind.name}: {error}", flush=True)
            return "refused" if isinstance(error, InputError) else "not kept"
    print(f"  {kind.name}: {found.error:.1e}, {time.perf_counter() - started:.0f} s", flush=True)
    return f"{found.error:.0e}".replace("e-0", "e-") if found.error else "0"


def main() -> None:
    """Print the table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NETS)
    add_option(parser)
    options = parser.parse_args()
    rows = []
    for name in options.names:
        print(name, flush=True)
        rows.append(measured(name))
    report(rows, options.record, "architectures of the catalogue, converted, random weights", n=1)


if __name__ == "__main__":
    main()
