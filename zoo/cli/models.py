"""`zoo list` and `zoo describe`: the catalogue and what a model is made of."""

import shutil
from collections.abc import Sequence

import click

from zoo.cli.start import quiet_start, zoo
from zoo.progress import aligned, say


@zoo.command("list", short_help="List the catalogue.", epilog="Example: zoo list 'resnet*' '*_cifar10'")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--compare", is_flag=True, help="Set each control beside its bottleneck twin.")
@click.option("--pretrained", is_flag=True, help="Those that come trained, with what they reach on test images.")
def list_(patterns: tuple[str, ...], compare: bool, pretrained: bool) -> None:
    """List the catalogue: every name that `zoo.build` takes, and which ones `zoo train` takes.

    With shell patterns (in quotes, so that the shell leaves them alone) only the names that one of them matches.
    Parameters are the trainable ones, GMACs billions of multiply-adds of one image, and the field is the receptive
    field of the last feature map in pixels. With --pretrained, names that are a MODEL everywhere, on no network.
    """
    if compare and pretrained:
        raise click.UsageError("--compare and --pretrained are two tables; give one of them")
    table = _comparison if compare else _pretrained if pretrained else _catalogue
    say(aligned(table(patterns)))


def _catalogue(patterns: Sequence[str]) -> list[tuple[str, ...]]:
    from zoo.catalogue import entries, matching, resolve
    from zoo.config import shipped_configs

    trainable = shipped_configs()
    table: list[tuple[str, ...]] = [
        ("name", "image", "classes", "params (M)", "GMACs", "field", "stride", "zoo train", "paper")
    ]
    for name in matching(patterns, list(entries())):
        entry, model = entries()[name], resolve(name)
        height, width = model.training_size
        size = f"{height}x{width}x{model.channels}"
        numbers = (f"{entry.params / 1e6:.3f}", f"{entry.gmacs:.4f}", str(entry.receptive_field))
        known = "yes" if name in trainable else ""
        table.append((name, size, str(model.num_classes), *numbers, str(model.total_stride), known, entry.paper))
    return table


def _pretrained(patterns: Sequence[str]) -> list[tuple[str, ...]]:
    from zoo.catalogue import matching
    from zoo.shipped import index

    shipped = index()
    table: list[tuple[str, ...]] = [
        (
            "name",
            "params (M)",
            "file (MB)",
            "test accuracy",
            "test images",
            "F1 of objects",
            "data",
            "licence of the data",
        )
    ]
    for name in matching(patterns, list(shipped.models)):
        row = shipped.models[name]
        found = ", ".join(f"{each} {value:.3f}" for each, value in row.f1.items())
        sizes = (f"{row.params / 1e6:.3f}", f"{row.bytes / 1e6:.2f}")
        results = (f"{row.accuracy:.2%}", f"{row.n:,}", found)
        table.append((name, *sizes, *results, row.data, shipped.data[row.data].licence))
    return table


def _comparison(patterns: Sequence[str]) -> list[tuple[str, ...]]:
    from zoo.catalogue import entries, matching

    rows = entries()
    twins = {name: row.twin for name, row in rows.items() if row.twin}
    table: list[tuple[str, ...]] = [
        ("control", "params (M)", "GMACs", "bottleneck twin", "params (M)", "GMACs", "params ratio", "GMACs ratio")
    ]
    for name in matching(patterns, list(twins)):
        control, twin = rows[name], rows[twins[name]]
        columns: list[str] = []
        for each, row in ((name, control), (twins[name], twin)):
            columns += [each, f"{row.params / 1e6:.3f}", f"{row.gmacs:.4f}"]
        ratios = (control.params / twin.params, control.gmacs / twin.gmacs)
        table.append((*columns, *(f"{ratio:.2f}" for ratio in ratios)))
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
        from zoo.errors import chosen
        from zoo.layer_table import FORMATS, describe
    known_format = chosen("format", format_, FORMATS)
    with Console(stderr=True).status(f"describing {spec}"):
        description = describe(find_model(spec), image_size or None)
    click.echo(description.format(known_format, width=shutil.get_terminal_size((100, 0)).columns), nl=False)
