"""`zoo plot`: the pictures of a run, and what one cell of a score map looks at."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.options import FILE, scales_of
from zoo.cli.start import config_of, quiet_start, run_config, say_notes, zoo
from zoo.errors import InputError
from zoo.progress import say, working

if TYPE_CHECKING:
    from zoo.pictures import Choice
    from zoo.scanning.merging import Merge
    from zoo.scanning.options import BorderRule, Options


class _Cell(click.ParamType):
    name = "ROW,COL"

    def convert(self, value: str, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        try:
            row, column = map(int, value.split(","))
        except ValueError:
            self.fail(f"received {value!r}; accepted: two whole numbers, such as 20,30", parameter, context)
        return row, column


@zoo.command(
    short_help="Draw a run's pictures anew, what one cell looks at, or labels.",
    epilog="Example: zoo plot runs/quick --cell 20,30 --image runs/quick/canvas_input.png",
)
@common.MODEL
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@option(
    "--cell-labels",
    is_flag=True,
    help="Draw the labels of grid cells over training images; MODEL is a CONFIG.",
    apart_from=["--cell", "--labels"],
)
# The name that --cell-labels had; in `zoo evaluate` it is a file.
@option("--labels", "labels_too", is_flag=True, hidden=True, apart_from=["--cell"])
@option(
    "--cell",
    type=_Cell(),
    help="Row and column, from 0, in the grid that `zoo scan` makes of IMAGE.",
    goes_with="--image",
)
@option(
    "--image", type=FILE, metavar="IMAGE", help="An image to work on; the cell is one of its scan.", goes_with="--cell"
)
@common.class_name("default: the cell's winner.", goes_with="--cell")
@common.output("the .png file. Default: cell_ROW_COL.png or labels.png in the current directory.", required=False)
@common.that_place_cells(goes_with="--cell")
@common.overwrite()
@common.which_picture(goes_with="--cell")
def plot(
    model: Path,
    overrides: tuple[str, ...],
    cell_labels: bool,
    labels_too: bool,
    cell: tuple[int, int] | None,
    image: Path | None,
    class_name: str | None,
    output: Path | None,
    stride: int | None,
    border: "BorderRule | None",
    scales: str | None,
    merge: "Merge | None",
    output_name: str | None,
    pixel_size: float | None,
    overwrite: bool,
    choice: "Choice",
) -> None:
    """Draw the pictures of a finished run anew: curves, confusion, filters. MODEL is its directory.

    With --cell and --image, draw what one cell of the score map of IMAGE looks at: its window, its theoretical
    receptive field, the pixels that can influence it, and how much each of them does. MODEL may then be any model; a
    classifier is converted first. Of a scan with --stride, --border, --scales or --pixel-size, give the same ones here.

    With --cell-labels, draw what the grid cells of a CONFIG with data.name = scenes are trained to answer, over up to
    six training images, so that scale and tolerance show. It takes overrides as `zoo train` does.
    """
    if cell_labels or labels_too:
        _plot_labels([str(model), *overrides], output or Path("labels.png"), overwrite)
        return
    if overrides:
        raise InputError(f"{overrides[0]}: accepted with --cell-labels")
    if cell is not None and image is not None:
        from zoo.scanning.options import Options

        options = Options(
            stride=stride,
            border=border,
            scales=scales_of(scales),
            merge=merge,
            choice=choice,
            output_name=output_name,
            pixel_size=pixel_size,
        )
        file = output or Path(f"cell_{cell[0]}_{cell[1]}.png")
        _plot_cell(model, image, cell, class_name, file, overwrite, options)
        return
    for name, given in (("--output", output is not None), ("--overwrite", overwrite)):
        if given:
            raise click.UsageError(f"{name} has no effect without --cell or --cell-labels: a run has its own pictures")
    run_config(model)
    with quiet_start():
        from zoo.experiment import redraw
    with working("drawing"):
        paths = redraw(model)
    give({"files": [*map(str, paths)]})
    for path in paths:
        say(f"wrote {path}")


def _plot_labels(arguments: list[str], output: Path, overwrite: bool) -> None:
    from zoo.config import load_config

    config = load_config(*config_of(arguments))
    with quiet_start():
        from zoo.experiment import draw_labels
        from zoo.files import Output, writing
        from zoo.made_by import MadeBy
    made_by = MadeBy("zoo plot", {"labels": config.digest})
    with writing([Output(output, "picture", ".png")], made_by, [], overwrite):
        draw_labels(config, output, made_by)
    give({"files": [str(output)]})
    say(f"wrote {output}")


def _plot_cell(
    model: Path,
    image: Path,
    cell: tuple[int, int],
    class_name: str | None,
    output: Path,
    overwrite: bool,
    options: "Options",
) -> None:
    with quiet_start():
        from zoo import model_files, plots
        from zoo.classes import chosen_class
        from zoo.files import Output, writing
        from zoo.large_images import influence
        from zoo.made_by import MadeBy, key_of
        from zoo.network.network import Network
        from zoo.scanning.keys import image_key
        from zoo.scanning.pixels import open_pixels
    inputs = {
        "model": key_of(model_files.file_of(model)),
        "image": image_key(image),
        "cell": list(cell),
        "class": class_name,
    }
    made_by = MadeBy("zoo plot", {**inputs, **options.that_place_cells()})
    with writing([Output(output, "picture", ".png")], made_by, [*model_files.files_of(model), image], overwrite):
        loaded = model_files.load(model)
        network = Network.of(loaded).output(options.output_name)
        names = network.class_names
        class_name = chosen_class(class_name, names)
        index = None if class_name is None else names.index(class_name)
        with open_pixels(network, image, options.choice) as pixels:
            with working("measuring what the cell looks at"):
                measured = influence(loaded, pixels, cell, index, options)
            plots.cell(measured, pixels, output, made_by)
    say_notes(image, (*pixels.notes, *measured.notes))
    give({**measured.to_dict(), "files": [str(output)]})
    say(measured.table())
    say(f"wrote {output}")
