"""`zoo regions`: the classes of boxes in an image."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.options import FILE
from zoo.cli.start import quiet_start, say_notes, zoo
from zoo.progress import note, say

if TYPE_CHECKING:
    from zoo.pictures import Choice


@zoo.command(
    short_help="Score a list of boxes in an image.",
    epilog="Example: zoo regions runs/quick runs/quick/canvas_input.png boxes.csv -o scores.csv",
)
@common.MODEL
@click.argument("image", type=FILE)
@click.argument("boxes", type=FILE)
@common.output("the .csv or .json file for box, class and score.")
@option(
    "--way",
    help="How a box is scored. roi: pool each box from one feature map. cells: the nearest cell of one scan. crops: a "
    "window at each box. Default: roi; cells for a model that counts, which sums its density over each box.",
    shell_complete=common.completing(lambda: ("roi", "cells", "crops")),
)
@common.output_name()
@common.pixel_size()
@common.overwrite()
@common.which_picture()
def regions(
    model: Path,
    image: Path,
    boxes: Path,
    output: Path,
    way: str | None,
    output_name: str | None,
    pixel_size: float | None,
    overwrite: bool,
    choice: "Choice",
) -> None:
    """Give each box of BOXES in IMAGE the class that MODEL, a classifier with its head, sees in it.

    BOXES is a .csv file with the columns top, left, bottom, right (or ymin, xmin, ymax, xmax, or x, y, width, height)
    in pixels, a .json file (a list of boxes, four numbers each, or COCO's), or a .geojson file (QuPath's). The output
    has them in the same order, each with its likeliest class, that class's probability as score, and the further
    columns of the file; of a model that counts, with an estimate of how many objects of each class are in it. The image
    is brought to the scale that the model was trained at, where it knows it. Of a box that reaches beyond the image,
    the part inside is scored.
    """
    with quiet_start():
        from zoo import model_files
        from zoo.errors import chosen
        from zoo.files import Output, check_equal, writing
        from zoo.large_images import box_scores
        from zoo.made_by import MadeBy
        from zoo.network.network import Network
        from zoo.scanning.boxes import check_boxes_file, read_boxes
        from zoo.scanning.pixels import open_pixels
        from zoo.scanning.regions import WAYS
    known_way = None if way is None else chosen("way", way, WAYS)
    check_boxes_file(output)
    made_by = MadeBy("zoo regions", {})
    with writing([Output(output, equal=True)], made_by, [*model_files.files_of(model), image, boxes], overwrite):
        wanted = read_boxes(boxes, image)
        loaded = model_files.load(model)
        with open_pixels(Network.of(loaded), image, choice) as pixels:
            result = box_scores(loaded, pixels, wanted, known_way, True, output_name, pixel_size)
        say_notes(image, pixels.notes)
        check_equal(output, result.text(output), overwrite)
        result.save(output)
    notes = [*result.notes]
    if result.beyond:
        notes.insert(0, f"{result.beyond} boxes reach beyond the image; their parts inside were scored")
    give({"boxes": result.rows(), "notes": notes, "files": [str(output)]})
    if result.outputs == "counts":
        counts = [(f"{count:.1f}", name) for count, name in zip(result.scores.sum(0), result.class_names, strict=True)]
    else:
        winners = result.probabilities.argmax(-1).tolist()
        numbers = sorted(((winners.count(index), result.class_names[index]) for index in set(winners)), reverse=True)
        counts = [(str(number), name) for number, name in numbers]
    say(f"{len(wanted)} boxes: " + ", ".join(f"{name} {count}" for count, name in counts[:10]))
    for each in notes:
        note(f"note: {each}")
    say(f"wrote {output}")
