"""`zoo export`: a trained model for another runtime, verified there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.start import FILE, OVERWRITE, PIXEL_SIZE, quiet_start, training_config, which_picture, zoo
from zoo.errors import quoted, refuse
from zoo.files import check_outputs, writing
from zoo.made_by import MadeBy, key_of
from zoo.progress import say

if TYPE_CHECKING:
    from zoo.config import Config
    from zoo.exported.carried import Precision
    from zoo.exporting.quantised import Trial
    from zoo.pictures import Choice


@zoo.command(
    short_help="Write a model for another runtime.",
    epilog="Example: zoo export fcn.keras -o exported --format saved_model",
)
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="A new directory (saved_model, web) or file.")
@click.option(
    "--format",
    "format_",
    default="saved_model",
    show_default=True,
    help="One of saved_model, onnx, openvino, litert, bioimageio, web.",
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    help="What it is to be computed in: float32, by OpenVINO bfloat16, by it and ONNX Runtime int8.",
)
@click.option(
    "--fold/--no-fold",
    default=True,
    show_default=True,
    help="Fold normalisation into convolutions, and leave out what training alone needs.",
)
@click.option(
    "--image",
    "images",
    type=FILE,
    multiple=True,
    metavar="IMAGE",
    help="Compare on this image, which is an example on the page of web; may be given again.",
)
@click.option(
    "--runtime", type=FILE, metavar="FOLDER", help="With web: the folder of an unpacked npm package onnxruntime-web."
)
@click.option("--license", "licence", help="With bioimageio: the weights' licence, such as MIT. Default: none stated.")
@click.option("--author", "authors", multiple=True, help="With bioimageio: a name; may be given again.")
@click.option(
    "--about", type=FILE, metavar="RUN", help="With bioimageio: the run whose results are told. Default: MODEL."
)
@click.option(
    "--data",
    type=FILE,
    metavar="RUN",
    help="With int8: calibrate and measure on the data of this run, or shipped weights. Default: MODEL's own.",
)
@click.option(
    "--tolerance", type=click.FloatRange(0, 1), help="With int8: the fall in accuracy accepted. Default: 0.005"
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
    runtime: Path | None,
    licence: str | None,
    authors: tuple[str, ...],
    about: Path | None,
    data: Path | None,
    tolerance: float | None,
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

    With --precision int8, weights and activations are rounded to 8 bits, whose ranges are found on training images. On
    all test images the file may be less accurate by the tolerance at most, over all and in every class, as with `zoo
    evaluate --against`; else it is not kept.

    With --format web, OUTPUT is a page: `python -m http.server -d OUTPUT` shows it at http://localhost:8000.
    """
    with quiet_start():
        from rich.console import Console

        from zoo import model_files, trial_images
        from zoo.cli.about import about_of
        from zoo.exported.formats import format_of
        from zoo.exporting.quantised import TOLERANCE
        from zoo.exporting.web_page import WebRuntime
        from zoo.exporting.writing import export as write
        from zoo.exporting.writing import outputs_of
        from zoo.network.network import Network
        from zoo.scanning.options import check_pixel_size
    outputs = outputs_of(output, format_, precision)
    check_outputs(outputs)
    if precision != "int8" and (data is not None or tolerance is not None):
        refuse("--data and --tolerance", f"with --precision {precision}", "them with --precision int8")
    options: dict[str, Any] = {"format": format_, "precision": precision, "fold": fold}
    if images:
        options["images"] = [key_of(image) if image.exists() else None for image in images]
        options |= {} if pixel_size is None else {"pixel_size": check_pixel_size(pixel_size)}
    elif pixel_size is not None:
        refuse("--pixel-size", "without --image", "both")
    browser = None
    if format_ == "web":
        browser = WebRuntime.at(runtime)
        options["runtime"] = [key_of(file) for file in browser.files]
    elif runtime is not None:
        refuse("--runtime", f"--format {format_}", "--format web")
    told = None
    if format_ == "bioimageio":
        told = about_of(about or model, authors, licence)
        options["about"] = [list(told.authors), told.licence, told.results]
    elif licence is not None or authors or about is not None:
        refuse("--license, --author, --about", f"--format {format_}", "--format bioimageio")
    if precision == "int8":
        data = _own_data(model) if data is None else data
        config = _classifying(data)
        tolerance = TOLERANCE if tolerance is None else tolerance
        options |= {"data": [key_of(file) for file in model_files.files_of(data)], "tolerance": tolerance}
    made_by = MadeBy("zoo export", {"model": key_of(model_files.file_of(model)), **options})
    read = [*model_files.files_of(model), *([] if data is None else model_files.files_of(data)), *images]
    read += [] if browser is None else [browser.folder]
    with writing(outputs, made_by, read, overwrite):
        network = Network.of(model_files.load(model))
        trial = None if data is None or tolerance is None else _trial(data, config, tolerance)
        run = model if trial is None else None
        with trial_images.opened(network, images, run, choice, pixel_size) as named:
            pictures = [image for _, image in named or []]
            with Console(stderr=True).status("exporting, and comparing with the model"):
                write(network.model, output, format_, precision, fold, pictures, made_by, told, trial, browser)
        carried = format_of(format_).carried(output)
        say("; ".join([f"wrote {output}", *(each.line() for each in (carried.verified, carried.quantised) if each)]))


def _own_data(model: Path) -> Path:
    """The run, or shipped weights, whose data a model was trained on: itself."""
    from zoo.shipped import is_shipped

    if model.is_file() or not ((model / "config.yaml").is_file() or is_shipped(model)):
        refuse("--precision int8", f"a model without data, {quoted(str(model))}", "it with --data RUN")
    return model


def _classifying(run: Path) -> "Config":
    """The config of a run, or of shipped weights, that classifies."""
    config = training_config(run)
    if config.train.target == "count":
        refuse("--precision int8", f"the data of a run that counts, {quoted(str(run))}", "a classifier's")
    return config


def _trial(run: Path, config: "Config", tolerance: float) -> "Trial":
    """What int8 is calibrated and measured on: the data of a run, or of shipped weights.

    Raises:
        InputError: where its data cannot be read, or are others now.
    """
    from zoo import data
    from zoo.exporting.quantised import Trial
    from zoo.run_directory import test_fingerprint

    dataset = data.load(config)
    if test_fingerprint(run) not in (None, dataset.test_fingerprint):
        # Of which some may be trained on.
        refuse(f"run {quoted(str(run))}", "test images that have changed since", "those that it was made for")
    return Trial.of_data(dataset, tolerance)
