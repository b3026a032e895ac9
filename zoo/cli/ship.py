"""`python -m zoo.cli.ship`: the weights of a run for the package, or for a release folder; for who maintains it."""

from pathlib import Path

import click

from zoo.cli.start import FILE, OVERWRITE, main, quiet_start, run_config
from zoo.progress import say
from zoo.shipped import FOLDER, INDEX


@click.command(epilog="Example: python -m zoo.cli.ship runs/mnist_valid nin_mnist_valid")
@click.argument("run", type=FILE)
@click.argument("name")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-o", "--output", type=FILE, default=FOLDER, help="A release folder. Default: zoo/pretrained.")
@click.option("--source", help="The data's key in the index, which says licence and source. Default: data.name.")
@OVERWRITE
def ship(run: Path, name: str, overrides: tuple[str, ...], output: Path, source: str | None, overwrite: bool) -> None:
    """Store the weights of RUN, a finished run, as NAME of the catalogue, in float16, and enter them in the index.

    The accuracy in the index is measured on what is written. Overrides of the run's config say where its data are now,
    such as data.name=cifar10 data.dir=null for a run on a file of the same images.
    """
    run_config(run)
    with quiet_start():
        from zoo.shipping import ship as write
    row = write(run, name, output, source, overrides, overwrite)
    found = "".join(f", F1 of {each} {value:.3f}" for each, value in row.f1.items())
    say(f"accuracy {row.accuracy:.2%} of {row.n:,} test images, as shipped{found}")
    say(f"wrote {output / f'{name}.keras'} ({row.bytes:,} bytes) and {output / INDEX}")


if __name__ == "__main__":
    main(command=ship, name="python -m zoo.cli.ship")
