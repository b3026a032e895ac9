"""`zoo convert`: a trained classifier, made ready for images of any size."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.start import quiet_start, zoo
from zoo.errors import InputError, refuse
from zoo.files import Output, check_outputs, remove, write_json, writing
from zoo.made_by import MadeBy, key_of, maker_of
from zoo.progress import note, say, working

if TYPE_CHECKING:
    from zoo.convert.conversion import Padding
    from zoo.convert.sliding_head import HeadPooling
    from zoo.pictures import Choice


# Channels that no sequence has, as a rule: they are the columns of an image.
_COLUMNS = 16


@zoo.command(short_help="Turn a Dense head into convolutions.", epilog="Example: zoo convert runs/quick -o fcn.keras")
@common.MODEL
@common.output("the converted model's .keras file.")
@common.image_size("the one it was trained at, where the model leaves it open.")
@option("--length", type=int, help="The same for a model of sequences.", apart_from=["--image-size"])
@option(
    "--pooling",
    type=click.Choice(["window", "global"]),
    default="window",
    show_default=True,
    help="What becomes of a global pooling: window slides one of the training size; global pools each image whole.",
)
@option(
    "--padding",
    type=click.Choice(["keep", "valid"]),
    default="keep",
    show_default=True,
    help="What becomes of padding. valid: the padding-free twin, another classifier with the same weights; its report "
    "says how alike.",
)
@common.images_to_try()
@common.pixel_size(goes_with="--image")
@common.overwrite()
@common.which_picture(goes_with="--image")
def convert(
    model: Path,
    output: Path,
    image_size: tuple[int, ...] | None,
    length: int | None,
    pooling: "HeadPooling",
    padding: "Padding",
    images: tuple[Path, ...],
    pixel_size: float | None,
    overwrite: bool,
    choice: "Choice",
) -> None:
    """Turn a classifier's Dense head into convolutions, so that it takes images of any size.

    The result is compared with the source before it is written; the report lands beside it as JSON. How often a grid
    cell answers as the classifier does on the cell's crop depends on the images: give some that you scan, with --image.
    Without, those of a run are its canvas and test images, else noise.
    """
    with quiet_start():
        from zoo import model_files, trial_images
        from zoo.convert.conversion import convert as convert_network
        from zoo.convert.verification import verified
        from zoo.network.network import Network
        from zoo.scanning.options import check_pixel_size
    if length is not None:
        image_size = (length,)
    report_file = output.with_suffix(".verification.json")
    outputs = [Output(output, "model file", ".keras"), Output(report_file, "report")]
    check_outputs(outputs)
    options: dict[str, Any] = {"image_size": image_size and list(image_size), "pooling": pooling, "padding": padding}
    if images:
        if pooling == "global":
            refuse("--image", "an image with --pooling global", "images where there are windows to compare")
        options["images"] = [key_of(image) if image.exists() else None for image in images]
        options |= {} if pixel_size is None else {"pixel_size": check_pixel_size(pixel_size)}
    made_by = MadeBy("zoo convert", {"model": key_of(model_files.file_of(model)), **options})
    with writing(outputs, made_by, [*model_files.files_of(model), *images], overwrite):
        source = Network.of(model_files.load(model), image_size)
        source.check_one_image((1, 2))
        if source.axes.count == 1 and source.channels >= _COLUMNS:
            sides = tuple(source.model.inputs[0].shape[1:])
            note(f"note: {model} takes sequences, {sides}; of images without channels it would take {(*sides, 1)}")
        with working("converting, and comparing with the source"):
            conversion = convert_network(source, pooling, padding)
        converted = conversion.network
        if padding == "keep" and (converted is source or converted.card.pooling is None):
            raise InputError(f"model {str(model)!r}: has no head left to convert; `zoo scan` takes it as it is")
        if pooling == "global":
            if (maker := maker_of(report_file)) and maker.command == made_by.command:
                # Of the model that was there before.
                remove(report_file)
            model_files.save(converted.model, output, made_by)
            equality = f"relative error {conversion.error_at_training_size:.1e} at training size"
            give({"error_at_training_size": conversion.error_at_training_size, "files": [str(output)]})
            say(f"wrote {output}: one answer for an image of any size; {equality}")
            return
        with trial_images.opened(converted, images, model, choice, pixel_size) as trial:
            report = verified(source, conversion, trial, progress=True)
        give({**report.to_dict(), "files": [str(output), str(report_file)]})
        say(report.table())
        model_files.save(converted.model, output, made_by)
        write_json(report_file, report.to_dict(), made_by)
        say(f"wrote {output} and {report_file}")
