"""`zoo card`: a run as a folder for a model hub."""

from pathlib import Path

import click

from zoo.cli import options as common
from zoo.cli.command import give
from zoo.cli.options import FILE
from zoo.cli.start import quiet_start, run_config, zoo
from zoo.progress import say, working


@zoo.command(
    short_help="Write a run as a folder for a model hub.",
    epilog="Example: zoo card runs/mnist -o mnist_model --license apache-2.0",
)
@click.argument("run", type=FILE)
@common.output("the folder, new, empty, or of the same command.")
@common.licence()
@common.overwrite()
def card(run: Path, output: Path, licence: str | None, overwrite: bool) -> None:
    """Write a finished RUN as a folder that can be uploaded to a model hub: README.md, model, config and checksums.

    README.md is a model card: the hub's metadata with the results, and for people data, accuracy by class, calibration,
    training, and limits, every figure from the run's own files. The folder is a MODEL for the other commands.
    """
    run_config(run)
    with quiet_start():
        from zoo.hub_folder import write_hub_folder
    with working("measuring, and writing the folder"):
        files = write_hub_folder(run, output, licence, overwrite)
    give({"files": [*map(str, files)]})
    for path in files:
        say(f"wrote {path}")
