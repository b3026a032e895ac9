"""`zoo export`: a trained model for another runtime, verified there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.options import FILE
from zoo.cli.start import quiet_start, training_config, zoo
from zoo.errors import quoted, refuse
from zoo.files import check_outputs, writing
from zoo.made_by import MadeBy, key_of
from zoo.progress import say, working

if TYPE_CHECKING:
    from zoo.config import Config
    from zoo.exported.carried import Precision
    from zoo.exporting.quantised import Trial
    from zoo.pictures import Choice


_OF_BIOIMAGEIO, _OF_WEB, _OF_INT8 = "--format bioimageio", "--format web", "--precision int8"


@zoo.command(
    short_help="Write a model for another runtime.",
    epilog="Example: zoo export fcn.keras -o exported --format saved_model",
)
@common.MODEL
@common.output("a new directory (saved_model, web) or file.")
@common.format_(("saved_model", "onnx", "openvino", "litert", "bioimageio", "web"), "saved_model")
@common.precision("float32, by OpenVINO bfloat16, by it and ONNX Runtime int8.", "float32")
@option(
    "--fold/--no-fold",
    default=True,
    show_default=True,
    help="Fold normalisation into convolutions, and leave out what training alone needs.",
)
@common.images_to_try()
@option(
    "--runtime",
    type=FILE,
    metavar="FOLDER",
    help="The folder of an unpacked npm package onnxruntime-web.",
    goes_with=_OF_WEB,
)
@common.licence(goes_with=_OF_BIOIMAGEIO)
@option("--author", "authors", multiple=True, help="A name; may be given again.", goes_with=_OF_BIOIMAGEIO)
@option(
    "--about",
    type=FILE,
    metavar="RUN",
    help="The run whose results are told. Default: MODEL.",
    goes_with=_OF_BIOIMAGEIO,
)
@option(
    "--data",
    type=FILE,
    metavar="RUN",
    help="Calibrate and measure on the data of this run, or shipped weights. Default: MODEL's own.",
    goes_with=_OF_INT8,
)
@common.tolerance(0.005, goes_with=_OF_INT8)
@common.pixel_size(goes_with="--image")
@common.overwrite()
@common.which_picture(goes_with="--image")
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

    With --format web, OUTPUT is a page, and the images are its examples: `python -m http.server -d OUTPUT` shows it at
    http://localhost:8000.
    """
    with quiet_start():
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
    options: dict[str, Any] = {"format": format_, "precision": precision, "fold": fold}
    if images:
        options["images"] = [key_of(image) if image.exists() else None for image in images]
        options |= {} if pixel_size is None else {"pixel_size": check_pixel_size(pixel_size)}
    browser = None
    if format_ == "web":
        browser = WebRuntime.at(runtime)
        options["runtime"] = [key_of(file) for file in browser.files]
    told = None
    if format_ == "bioimageio":
        told = about_of(about or model, authors, licence)
        options["about"] = [list(told.authors), told.licence, told.results]
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
            with working("exporting, and comparing with the model"):
                write(network.model, output, format_, precision, fold, pictures, made_by, told, trial, browser)
        carried = format_of(format_).carried(output)
        numbers = carried.model_dump(mode="json", include={"format", "precision", "verified", "quantised"})
        give({**numbers, "files": [str(each.path) for each in outputs]})
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
