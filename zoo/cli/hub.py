"""`zoo card`: a run as a folder for a model hub."""

from pathlib import Path

import click

from zoo.cli.start import FILE, OVERWRITE, quiet_start, run_config, zoo
from zoo.progress import say


@zoo.command(
    short_help="Write a run as a folder for a model hub.",
    epilog="Example: zoo card runs/mnist -o mnist_model --license apache-2.0",
)
@click.argument("run", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The folder: new, empty, or of the same command.")
@click.option("--license", "licence", help="The weights' licence, such as apache-2.0. Default: none is stated.")
@OVERWRITE
def card(run: Path, output: Path, licence: str | None, overwrite: bool) -> None:
    """Write a finished RUN as a folder that can be uploaded to a model hub: README.md, model, config and checksums.

    README.md is a model card: the hub's metadata with the results, and for people data, accuracy by class, calibration,
    training, and limits, every figure from the run's own files. The folder is a MODEL for the other commands.
    """
    run_config(run)
    with quiet_start():
        from zoo.hub_folder import write_hub_folder
    for path in write_hub_folder(run, output, licence, overwrite):
        say(f"wrote {path}")
