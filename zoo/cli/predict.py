"""`zoo predict`: one answer for each image file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.options import FILE
from zoo.cli.start import quiet_start, start_for, zoo
from zoo.errors import refuse
from zoo.progress import say

if TYPE_CHECKING:
    from zoo.network.scannable import Scannable
    from zoo.pictures import Choice


@zoo.command(short_help="Classify image files.", epilog="Example: zoo predict runs/quick digit.png")
@common.MODEL
@click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGE...")
@option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many classes to print.")
@option("--explain", type=FILE, metavar="DIR", help="Draw class activation maps of each image into this folder.")
@common.class_name("it is drawn beside the winner, not the runner-up.", goes_with="--explain")
@common.pixel_size()
@common.overwrite(goes_with="--explain")
@common.which_picture()
def predict(
    model: Path,
    images: tuple[Path, ...],
    top: int,
    explain: Path | None,
    class_name: str | None,
    pixel_size: float | None,
    overwrite: bool,
    choice: "Choice",
) -> None:
    """Print the likeliest classes of each IMAGE with their probabilities.

    A model that counts says how many objects there are of each class, those of which there are most.
    An image is brought to the scale that the model was trained at, where it knows it. One of another size than the
    model's is cropped or padded about its centre, with a note. A model converted with --pooling global takes every
    image whole.

    With --explain, of a model that ends in a global average pooling and linear layers, also what each cell of its last
    feature map adds to the logits, whose mean these maps have: DIR/NAME.png, of the winner and the runner-up, and
    DIR/NAME.npz, of all classes.
    """
    from zoo.exported.network import ExportedNetwork
    from zoo.large_images import model_at
    from zoo.predictions import answers_to

    start_for(model)
    loaded, explanations = model_at(model), None
    network: Scannable
    if isinstance(loaded, ExportedNetwork):
        if explain is not None:
            refuse("--explain", f"the exported file {str(model)!r}", "the Keras model that it was made of")
        exported = loaded.output(None)
        network, answers = exported, answers_to(exported, exported.engine(), images, choice, pixel_size)
    else:
        with quiet_start():
            from zoo.evaluation import predict_files
            from zoo.network.network import Network
        network, answers = Network.of(loaded), predict_files(loaded, images, choice, pixel_size)
        if explain is not None:
            from zoo.cli.explanations import Explanations

            asked = {**choice.given, "pixel_size": pixel_size}
            explanations = Explanations(model, loaded, images, explain, class_name, asked, overwrite)
    names, given = network.class_names, []
    for index, answer in enumerate(answers):
        counts = answer.outputs == "counts"
        numbers = answer.scores if counts else answer.probabilities
        best = numbers.argsort()[::-1][:top]
        texts = (f"about {numbers[each]:.1f}" if counts else f"{numbers[each]:.1%}" for each in best)
        shown = ", ".join(f"{names[each]} {text}" for each, text in zip(best, texts, strict=True))
        note = f"  ({answer.note})" if answer.note else ""
        say(f"{answer.path}: {shown}{note}")
        row: dict[str, Any] = {"image": str(answer.path)}
        row["counts" if counts else "probabilities"] = {names[each]: float(numbers[each]) for each in best}
        given.append(row | {"note": answer.note or None})
        if explanations is not None:
            files = explanations.write(index, answer)
            given[-1]["files"] = [*map(str, files)]
            say(f"wrote {' and '.join(map(str, files))}")
    give({"images": given})
