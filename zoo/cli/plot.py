"""`zoo plot`: the pictures of a run, and what one cell of a score map looks at."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.start import (
    FILE,
    OUTPUT_NAME,
    OVERWRITE,
    PIXEL_SIZE,
    config_of,
    quiet_start,
    run_config,
    say_notes,
    scales_of,
    which_picture,
    zoo,
)
from zoo.errors import InputError
from zoo.progress import say

if TYPE_CHECKING:
    from zoo.pictures import Choice
    from zoo.scanning.options import Options


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
@click.argument("model", type=FILE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--labels", is_flag=True, help="Draw the labels of grid cells over training images; MODEL is a CONFIG.")
@click.option("--cell", type=_Cell(), help="Row and column, from 0, in the grid that `zoo scan` makes of IMAGE.")
@click.option("--image", type=FILE, help="The image that the cell belongs to.")
@click.option("--class", "class_name", help="The class whose score it is about, instead of the cell's winner.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="The picture's .png file. Default: cell_ROW_COL.png or labels.png in the current directory.",
)
@click.option("--stride", type=int, help="Pixels between cells, as the scan had it.")
@click.option(
    "--border", type=click.Choice(["none", "reflect", "shift", "full"]), help="The border, as the scan had it."
)
@click.option("--scales", help="The scales, as the scan had them, such as 0.7,1,1.4.")
@click.option("--merge", help="How the scan merged the scales; default: average-probabilities.")
@OUTPUT_NAME
@PIXEL_SIZE
@OVERWRITE
@which_picture
def plot(
    model: Path,
    overrides: tuple[str, ...],
    labels: bool,
    cell: tuple[int, int] | None,
    image: Path | None,
    class_name: str | None,
    output: Path | None,
    stride: int | None,
    border: str | None,
    scales: str | None,
    merge: str | None,
    output_name: str | None,
    pixel_size: float | None,
    overwrite: bool,
    choice: "Choice",
) -> None:
    """Draw the pictures of a finished run anew: curves, confusion, filters. MODEL is its directory.

    With --cell and --image, draw what one cell of the score map of IMAGE looks at: its window, its theoretical
    receptive field, the pixels that can influence it, and how much each of them does. MODEL may then be any model; a
    classifier is converted first. Of a scan with --stride, --border, --scales or --pixel-size, give the same ones here.

    With --labels, draw what the grid cells of a CONFIG with data.name = scenes are trained to answer, over up to six
    training images, so that scale and tolerance show. It takes overrides as `zoo train` does.
    """
    options: dict[str, Any] = {"stride": stride, "border": border, "scales": scales, "merge": merge}
    options |= {"output_name": output_name, "pixel_size": pixel_size}
    asked: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    own = {"--cell": cell, "--image": image, "--class": class_name}
    given = [name for name, value in own.items() if value is not None]
    given += [f"--{name.replace('_', '-')}" for name in {**asked, **choice.given}]
    if labels:
        if given:
            raise InputError(f"{', '.join(given)}: accepted without --labels")
        _plot_labels([str(model), *overrides], output or Path("labels.png"), overwrite)
        return
    if overrides:
        raise InputError(f"{overrides[0]}: accepted with --labels")
    if cell is not None and image is not None:
        from zoo.scanning.options import Options

        if scales is not None:
            asked["scales"] = scales_of(scales)
        file = output or Path(f"cell_{cell[0]}_{cell[1]}.png")
        _plot_cell(model, image, cell, class_name, file, overwrite, Options(choice=choice, **asked))
        return
    given += [] if output is None else ["--output"]
    if given:
        raise InputError(f"{', '.join(given)}: accepted with both --cell ROW,COL and --image IMAGE")
    run_config(model)
    with quiet_start():
        from zoo.experiment import redraw
    for path in redraw(model):
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
        from zoo.classes import normal
        from zoo.errors import unknown
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
        class_name = None if class_name is None else normal(class_name)
        if class_name is not None and class_name not in names:
            raise InputError(unknown("class", class_name, names))
        index = None if class_name is None else names.index(class_name)
        with open_pixels(network, image, options.choice) as pixels:
            measured = influence(loaded, pixels, cell, index, options)
            plots.cell(measured, pixels, output, made_by)
    say_notes(image, (*pixels.notes, *measured.notes))
    say(measured.table())
    say(f"wrote {output}")
