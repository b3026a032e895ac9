"""`python -m zoo.cli.ship`: the weights of a run for the package, or for a release folder; for who maintains it."""

from pathlib import Path

import click

from zoo.cli import options as common
from zoo.cli.command import Command, give, option
from zoo.cli.options import FILE
from zoo.cli.start import main, quiet_start, run_config
from zoo.progress import say, working
from zoo.shipped import FOLDER, INDEX


@click.command(cls=Command, epilog="Example: python -m zoo.cli.ship runs/mnist_valid nin_mnist_valid")
@click.argument("run", type=FILE)
@click.argument("name")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@option("-o", "--output", type=FILE, default=FOLDER, help="The output: a release folder. Default: zoo/pretrained.")
@option("--source", help="The data's key in the index, which says licence and source. Default: data.name.")
@common.overwrite()
def ship(run: Path, name: str, overrides: tuple[str, ...], output: Path, source: str | None, overwrite: bool) -> None:
    """Store the weights of RUN, a finished run, as NAME of the catalogue, in float16, and enter them in the index.

    The accuracy in the index is measured on what is written. Overrides of the run's config say where its data are now,
    such as data.name=cifar10 data.dir=null for a run on a file of the same images.
    """
    run_config(run)
    with quiet_start():
        from zoo.shipping import ship as write
    with working("measuring"):
        row = write(run, name, output, source, overrides, overwrite)
    files = [output / f"{name}.keras", output / INDEX]
    give({**row.model_dump(mode="json"), "files": [*map(str, files)]})
    found = "".join(f", F1 of {each} {value:.3f}" for each, value in row.f1.items())
    say(f"accuracy {row.accuracy:.2%} of {row.n:,} test images, as shipped{found}")
    say(f"wrote {files[0]} ({row.bytes:,} bytes) and {files[1]}")


if __name__ == "__main__":
    main(command=ship, name="python -m zoo.cli.ship")
