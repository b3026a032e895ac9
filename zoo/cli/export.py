"""`zoo export`: a trained model for another runtime, verified there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.start import FILE, OVERWRITE, PIXEL_SIZE, quiet_start, which_picture, zoo
from zoo.errors import refuse
from zoo.files import check_outputs, writing
from zoo.made_by import MadeBy, key_of
from zoo.progress import say

if TYPE_CHECKING:
    from zoo.exporting.carried import Precision
    from zoo.pictures import Choice


@zoo.command(
    short_help="Write a model for another runtime.",
    epilog="Example: zoo export fcn.keras -o exported --format saved_model",
)
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="A new directory (saved_model) or file.")
@click.option(
    "--format",
    "format_",
    default="saved_model",
    show_default=True,
    help="One of saved_model, onnx, openvino, litert, bioimageio.",
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    help="What it is to be computed in: float32, or by OpenVINO bfloat16.",
)
@click.option(
    "--fold/--no-fold",
    default=True,
    show_default=True,
    help="Fold normalisation into convolutions, and leave out what training alone needs.",
)
@click.option(
    "--image", "images", type=FILE, multiple=True, metavar="IMAGE", help="Compare on this image; may be given again."
)
@click.option("--license", "licence", help="With bioimageio: the weights' licence, such as MIT. Default: none stated.")
@click.option("--author", "authors", multiple=True, help="With bioimageio: a name; may be given again.")
@click.option(
    "--about", type=FILE, metavar="RUN", help="With bioimageio: the run whose results are told. Default: MODEL."
)
@PIXEL_SIZE
@OVERWRITE
@which_picture
def export(
    model: Path,
    output: Path,
    format_: str,
    precision: "Precision",
    fold: bool,
    images: tuple[Path, ...],
    licence: str | None,
    authors: tuple[str, ...],
    about: Path | None,
    pixel_size: float | None,
    overwrite: bool,
    choice: "Choice",
) -> None:
    """Write MODEL for another runtime; it takes images (batch, height, width, channels) of the model's own type.

    Batch is free always; height and width are free in a converted model. The file is run by its own runtime, beside
    Keras, in a process of its own; one that answers otherwise is not kept (exit code 1). They are compared on parts of
    the images of --image, else of those that a run was tested on, else on noise.

    TensorFlow Serving looks for SavedModels in folders that are called by numbers: -o models/NAME/1. That of a
    classifier takes files of PNG and JPEG too, by its signature predict_bytes.
    """
    with quiet_start():
        from rich.console import Console

        from zoo import model_files, trial_images
        from zoo.cli.about import about_of
        from zoo.exporting.formats import format_of
        from zoo.exporting.writing import export as write
        from zoo.exporting.writing import outputs_of
        from zoo.network.network import Network
        from zoo.scanning.options import check_pixel_size
    outputs = outputs_of(output, format_, precision)
    check_outputs(outputs)
    options: dict[str, Any] = {"format": format_, "precision": precision, "fold": fold}
    if images:
        options["images"] = [key_of(image) if image.exists() else None for image in images]
        options |= {} if pixel_size is None else {"pixel_size": check_pixel_size(pixel_size)}
    elif pixel_size is not None:
        refuse("--pixel-size", "without --image", "both")
    told = None
    if format_ == "bioimageio":
        told = about_of(about or model, authors, licence)
        options["about"] = [list(told.authors), told.licence, told.results]
    elif licence is not None or authors or about is not None:
        refuse("--license, --author, --about", f"--format {format_}", "--format bioimageio")
    made_by = MadeBy("zoo export", {"model": key_of(model_files.file_of(model)), **options})
    with writing(outputs, made_by, [*model_files.files_of(model), *images], overwrite):
        network = Network.of(model_files.load(model))
        with trial_images.opened(network, images, model, choice, pixel_size) as trial:
            pictures = [image for _, image in trial or []]
            with Console(stderr=True).status("exporting, and comparing with the model"):
                write(network.model, output, format_, precision, fold, pictures, made_by, told)
        report = format_of(format_).carried(output).verified
        say(f"wrote {output}" + (f": {report.line()}" if report else ""))
