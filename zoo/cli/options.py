"""Options that several commands have: one name, one meaning, one text; and what their values are."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.shell_completion import CompletionItem

from zoo.cli.command import option
from zoo.errors import refuse

FILE = click.Path(path_type=Path)
# What the shell completes a word to.
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completing(values: Callable[[], Iterable[str]], files: bool = False) -> Completer:
    """Complete a word to one of the `values`, which are looked up then, or to the name of a file too."""

    def complete(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
        items = [CompletionItem(each) for each in values() if each.startswith(word)]
        return [*items, CompletionItem(word, type="file")] if files else items

    return complete


def trained() -> Iterable[str]:
    """The names that come with weights."""
    from zoo.shipped import index

    return index().models


def _configs() -> Iterable[str]:
    from zoo.config import shipped_configs

    return shipped_configs()


def _catalogue() -> Iterable[str]:
    from zoo.catalogue import entries

    return entries()


MODEL = click.argument("model", type=FILE, shell_complete=completing(trained, files=True))
CONFIG = click.argument(
    "arguments", nargs=-1, metavar="CONFIG [KEY=VALUE]...", shell_complete=completing(_configs, files=True)
)
SPEC = click.argument("spec", shell_complete=completing(_catalogue, files=True))


def output(what: str, required: bool = True) -> Callable:
    """`-o`, `--output`: `what` is written there, in words."""
    return option("-o", "--output", type=FILE, required=required, help=f"The output: {what}")


def format_(formats: Sequence[str], default: str) -> Callable:
    """`--format`, given to the command as `format_`: one of the `formats`, which the command checks."""
    *others, last = formats
    text = f"The format; one of {', '.join(others)} and {last}."
    complete = completing(lambda: formats)
    return option("--format", "format_", default=default, show_default=True, help=text, shell_complete=complete)


def precision(precisions: str, default: str | None = None) -> Callable:
    """`--precision`: one of the `precisions`, told in words."""
    text, complete = f"The precision of the computation; {precisions}", completing(_precisions)
    shown = default is not None
    return option("--precision", default=default, show_default=shown, help=text, shell_complete=complete)


def _precisions() -> Iterable[str]:
    from zoo.exported.carried import Precision

    return get_args(Precision)


def merges() -> Iterable[str]:
    """The ways of merging scores, as `--merge` and `--answer` name them."""
    from zoo.scanning.merging import Merge

    return get_args(Merge)


def _borders() -> Iterable[str]:
    from zoo.scanning.options import BORDER_RULES

    return BORDER_RULES


def image_size(use: str) -> Callable:
    """`--image-size`, given to the command as `image_size`, two numbers or None; `use`: when it is needed."""
    return option("--image-size", type=(int, int), metavar="H W", help=f"The image size in pixels; {use}")


def class_name(use: str, goes_with: str | Sequence[str] = ()) -> Callable:
    """`--class`, given to the command as `class_name`; `use`: what is done with it."""
    return option("--class", "class_name", help=f"The class to look at; {use}", goes_with=goes_with)


def images_to_try() -> Callable:
    """`--image`, given to the command as `images`: those on which a model that was made is compared with its source."""
    return option(
        "--image",
        "images",
        type=FILE,
        multiple=True,
        metavar="IMAGE",
        help="An image to work on; the two models are compared there. May be given again.",
    )


def licence(goes_with: str | Sequence[str] = ()) -> Callable:
    """`--license`, given to the command as `licence`."""
    text = "The weights' licence, such as Apache-2.0. Default: none is stated."
    return option("--license", "licence", help=text, goes_with=goes_with)


def tolerance(default: float, goes_with: str) -> Callable:
    """`--tolerance`; None where it is not given, for what is `default` then."""
    text = f"The fall in accuracy accepted. Default: {default:g}"
    return option("--tolerance", type=click.FloatRange(0, 1), help=text, goes_with=goes_with)


def that_place_cells(goes_with: str | Sequence[str] = ()) -> Callable[[Callable], Callable]:
    """The options of a scan that say where its cells lie and how they are answered.

    `goes_with`: the option with which alone the command scans, if it has one.
    """
    declared = (
        option(
            "--stride",
            type=int,
            help="Pixels between cells: any divisor of the model's stride, 1 for every pixel.",
            goes_with=goes_with,
        ),
        option(
            "--scales", help="Scan at each of these scales, such as 0.7,1,1.4, and merge the maps.", goes_with=goes_with
        ),
        option(
            "--merge",
            help="How scales are merged: average-logits, average-probabilities, maximum-logits or "
            "maximum-probabilities. Default: average-probabilities.",
            goes_with="--scales",
            shell_complete=completing(merges),
        ),
        option(
            "--border",
            help="Pixels that no window covers: none, reflect or shift; or full: windows all around every pixel. "
            "Default: none; full for a model that counts, whose counts are right with it alone.",
            goes_with=goes_with,
            shell_complete=completing(_borders),
        ),
        output_name(goes_with),
        pixel_size(goes_with),
    )

    def decorate(command: Callable) -> Callable:
        for each in reversed(declared):
            command = each(command)
        return command

    return decorate


def overwrite(goes_with: str | Sequence[str] = ()) -> Callable:
    """`--overwrite`; `goes_with`: the option with which alone the command writes, if it has one."""
    text = "Replace other files at the output; never one that this command reads."
    return option("--overwrite", is_flag=True, help=text, goes_with=goes_with)


def pixel_size(goes_with: str | Sequence[str] = ()) -> Callable:
    """`--pixel-size`; `goes_with`: the option with which alone the command reads images, if it has one."""
    text = "A pixel's size in micrometres, where files state none, or a wrong one; for models that know theirs."
    return option("--pixel-size", type=float, help=text, goes_with=goes_with)


def output_name(goes_with: str | Sequence[str] = ()) -> Callable:
    """`--output-name`; `goes_with`: the option with which alone scores are needed, if there is one."""
    text = "Which output of a model with several gives the scores."
    return option("--output-name", help=text, goes_with=goes_with)


def which_picture(goes_with: str | Sequence[str] = ()) -> Callable[[Callable], Callable]:
    """Options that say which image of a file is meant, given to the command as its argument `choice`.

    `goes_with`: the option with which alone the command reads an image, if it has one.
    """

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def chosen(page: int | None, series: int | None, level: int, **others: Any) -> Any:
            from zoo.pictures import Choice

            return command(choice=Choice(page, series, level), **others)

        for name, default, text in (
            ("--level", 0, "Which level of a pyramid; 0 is the full image."),
            ("--series", None, "Which image of a file with several, such as OME-TIFF."),
            ("--page", None, "Which page of a TIFF, or plane of its series."),
        ):
            chosen = option(name, type=int, default=default, help=text, goes_with=goes_with)(chosen)
        return chosen

    return decorate


def own_names(images: Sequence[Path]) -> list[str]:
    """What the results of each image are called: as its file without the ending, with it where several need that.

    Raises:
        InputError: where two would have one name.
    """
    stems = Counter(image.stem for image in images)
    names = [image.name if stems[image.stem] > 1 else image.stem for image in images]
    for name, uses in Counter(names).most_common(1):
        if uses > 1:
            refuse("images", f"{uses} named {name!r}", "names of their own, for the results of each")
    return names


def scales_of(text: str | None) -> tuple[float, ...] | None:
    """The value of `--scales`, separated by commas."""
    from zoo.scanning.options import check_scales

    return None if text is None else check_scales(text.split(","))
