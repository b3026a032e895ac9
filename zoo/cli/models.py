"""`zoo list` and `zoo describe`: the catalogue and what a model is made of."""

import shutil

import click

from zoo.cli.start import quiet_start, zoo
from zoo.errors import InputError
from zoo.progress import say


@zoo.command("list", short_help="List the catalogue.", epilog="Example: zoo list --compare")
@click.option("--compare", is_flag=True, help="Set each control beside its bottleneck twin.")
def list_(compare: bool) -> None:
    """List the catalogue: every name that `zoo.build` takes, and which ones `zoo train` takes.

    Parameters are the trainable ones, GMACs billions of multiply-adds of one image, and the field is the receptive
    field of the last feature map in pixels.
    """
    table = _comparison() if compare else _catalogue()
    columns = []
    for column in zip(*table, strict=True):
        width, is_number = max(map(len, column)), column[1].replace(".", "").isdigit()
        columns.append([text.rjust(width) if is_number else text.ljust(width) for text in column])
    for row in zip(*columns, strict=True):
        say("  ".join(row).rstrip())


def _catalogue() -> list[tuple[str, ...]]:
    from zoo.catalogue import entries, resolve
    from zoo.config import shipped_configs

    trainable = shipped_configs()
    table = [("name", "image", "classes", "params (M)", "GMACs", "field", "stride", "zoo train", "paper")]
    for name, entry in entries().items():
        model = resolve(name)
        size = f"{model.image_size[0]}x{model.image_size[1]}x{model.channels}"
        numbers = (f"{entry.params / 1e6:.3f}", f"{entry.gmacs:.4f}", str(entry.receptive_field))
        known = "yes" if name in trainable else ""
        table.append((name, size, str(model.num_classes), *numbers, str(model.total_stride), known, entry.paper))
    return table


def _comparison() -> list[tuple[str, ...]]:
    from zoo.catalogue import entries

    rows = entries()
    table = [
        ("control", "params (M)", "GMACs", "bottleneck twin", "params (M)", "GMACs", "params ratio", "GMACs ratio")
    ]
    for name, entry in rows.items():
        if entry.twin is None:
            continue
        cells = []
        for each, row in ((name, entry), (entry.twin, rows[entry.twin])):
            cells += [each, f"{row.params / 1e6:.3f}", f"{row.gmacs:.4f}"]
        ratios = (entry.params / rows[entry.twin].params, entry.gmacs / rows[entry.twin].gmacs)
        table.append((*cells, *(f"{ratio:.2f}" for ratio in ratios)))
    return table


@zoo.command(
    short_help="Print a model layer by layer.", epilog="Example: zoo describe keras:MobileNetV2 --format markdown"
)
@click.argument("spec")
@click.option(
    "--format", "format_", default="table", show_default=True, help="One of table, markdown, csv (rows alone), json."
)
@click.option(
    "--image-size", type=int, nargs=2, metavar="H W", help="Count at this size. Default: the model's own, if it has one"
)
def describe(spec: str, format_: str, image_size: tuple[int, int] | None) -> None:
    """Print every layer of SPEC: shape, kernel, parameters, multiply-adds, receptive field and total stride.

    SPEC is a name from `zoo list`, a config, a .keras or .h5 file, a run directory, or keras:NAME for a model of
    keras.applications. A receptive field is "all" after a global pooling, and "?" after a layer whose reach is unknown.
    """
    with quiet_start():
        from rich.console import Console

        from zoo.builder import find_model
        from zoo.errors import unknown
        from zoo.layer_table import FORMATS, describe
    if format_ not in FORMATS:
        raise InputError(unknown("format", format_, FORMATS))
    with Console(stderr=True).status(f"describing {spec}"):
        description = describe(find_model(spec), image_size or None)
    click.echo(description.format(format_, width=shutil.get_terminal_size((100, 0)).columns), nl=False)
