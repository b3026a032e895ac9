"""`zoo list` and `zoo describe`: the catalogue and what a model is made of."""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import click

from zoo.cli import options as common
from zoo.cli.command import give, is_json_asked, option
from zoo.cli.start import quiet_start, zoo
from zoo.progress import aligned, say, working

# A table's columns: each one's heading, and what gives a row's value as text.
Columns = Sequence[tuple[str, Callable[[dict[str, Any]], str]]]


def _millions(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{row[key] / 1e6:.3f}"


@zoo.command("list", short_help="List the catalogue.", epilog="Example: zoo list 'resnet*' '*_cifar10'")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@option("--compare", is_flag=True, help="Set each control beside its bottleneck twin.", apart_from=["--pretrained"])
@option("--pretrained", is_flag=True, help="Those that come trained, with what they reach on test images.")
def list_(patterns: tuple[str, ...], compare: bool, pretrained: bool) -> None:
    """List the catalogue: every name that `zoo.build` takes, and which ones `zoo train` takes.

    With shell patterns (in quotes, so that the shell leaves them alone) only the names that one of them matches.
    Parameters are the trainable ones, GMACs billions of multiply-adds of one image, and the field is the receptive
    field of the last feature map in pixels. With --pretrained, names that are a MODEL everywhere, on no network.
    """
    table = _comparison if compare else _pretrained if pretrained else _catalogue
    rows, columns = table(patterns)
    give({"models": rows})
    say(aligned([[heading for heading, _ in columns], *([text(row) for _, text in columns] for row in rows)]))


def _catalogue(patterns: Sequence[str]) -> tuple[list[dict[str, Any]], Columns]:
    from zoo.catalogue import entries, matching, resolve
    from zoo.config import shipped_configs

    trainable, rows = shipped_configs(), []
    for name in matching(patterns, list(entries())):
        entry, model = entries()[name], resolve(name)
        rows.append(
            {
                "name": name,
                "image_size": list(model.training_size),
                "channels": model.channels,
                "classes": model.num_classes,
                "params": entry.params,
                "gmacs": entry.gmacs,
                "receptive_field": entry.receptive_field,
                "stride": model.total_stride,
                "trains": name in trainable,
                "paper": entry.paper,
            }
        )
    return rows, [
        ("name", lambda row: row["name"]),
        ("image", lambda row: "x".join(map(str, [*row["image_size"], row["channels"]]))),
        ("classes", lambda row: str(row["classes"])),
        ("params (M)", _millions("params")),
        ("GMACs", lambda row: f"{row['gmacs']:.4f}"),
        ("field", lambda row: str(row["receptive_field"])),
        ("stride", lambda row: str(row["stride"])),
        ("zoo train", lambda row: "yes" if row["trains"] else ""),
        ("paper", lambda row: row["paper"]),
    ]


def _pretrained(patterns: Sequence[str]) -> tuple[list[dict[str, Any]], Columns]:
    from zoo.catalogue import matching
    from zoo.shipped import index

    shipped, rows = index(), []
    for name in matching(patterns, list(shipped.models)):
        row = shipped.models[name]
        licence = shipped.data[row.data].licence
        known = row.model_dump(mode="json", include={"params", "bytes", "accuracy", "n", "f1", "data"})
        rows.append({"name": name, **known, "licence": licence})
    return rows, [
        ("name", lambda row: row["name"]),
        ("params (M)", _millions("params")),
        ("file (MB)", lambda row: f"{row['bytes'] / 1e6:.2f}"),
        ("test accuracy", lambda row: f"{row['accuracy']:.2%}"),
        ("test images", lambda row: f"{row['n']:,}"),
        ("F1 of objects", lambda row: ", ".join(f"{name} {value:.3f}" for name, value in row["f1"].items())),
        ("data", lambda row: row["data"]),
        ("licence of the data", lambda row: row["licence"]),
    ]


def _comparison(patterns: Sequence[str]) -> tuple[list[dict[str, Any]], Columns]:
    from zoo.catalogue import entries, matching

    known, rows = entries(), []
    for name in matching(patterns, [name for name, row in known.items() if row.twin]):
        control, twin = known[name], known[str(known[name].twin)]
        rows.append(
            {
                "control": name,
                "params": control.params,
                "gmacs": control.gmacs,
                "twin": control.twin,
                "twin_params": twin.params,
                "twin_gmacs": twin.gmacs,
            }
        )
    return rows, [
        ("control", lambda row: row["control"]),
        ("params (M)", _millions("params")),
        ("GMACs", lambda row: f"{row['gmacs']:.4f}"),
        ("bottleneck twin", lambda row: row["twin"]),
        ("params (M)", _millions("twin_params")),
        ("GMACs", lambda row: f"{row['twin_gmacs']:.4f}"),
        ("params ratio", lambda row: f"{row['params'] / row['twin_params']:.2f}"),
        ("GMACs ratio", lambda row: f"{row['gmacs'] / row['twin_gmacs']:.2f}"),
    ]


@zoo.command(
    short_help="Print a model layer by layer.", epilog="Example: zoo describe keras:MobileNetV2 --format markdown"
)
@common.SPEC
@common.format_(("table", "markdown", "csv", "json"), "table")
@common.image_size("default: the model's own, if it has one.")
def describe(spec: str, format_: str, image_size: tuple[int, int] | None) -> None:
    """Print every layer of SPEC: shape, kernel, parameters, multiply-adds, receptive field and total stride.

    SPEC is a name from `zoo list`, a config, a .keras or .h5 file, a run directory, or keras:NAME for a model of
    keras.applications. A receptive field is "all" after a global pooling, and "?" after a layer whose reach is unknown.
    The csv has the rows alone.
    """
    if is_json_asked() and format_ not in ("table", "json"):
        raise click.UsageError(f"--json and --format {format_}: accepted: one of the two")
    with quiet_start():
        from zoo.builder import find_model
        from zoo.errors import chosen
        from zoo.layer_table import FORMATS, describe
    known_format = chosen("format", format_, FORMATS)
    with working(f"describing {spec}"):
        description = describe(find_model(spec), image_size)
    give(description.to_dict())
    say(description.format(known_format, width=shutil.get_terminal_size((100, 0)).columns).rstrip("\n"))
