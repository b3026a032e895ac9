"""The commands `zoo ...`: parse, call, print. What takes long to import is imported where it is used."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from zoo.errors import InputError, Interrupted

_FILE = click.Path(path_type=Path)
_BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")


class _Group(click.Group):
    """Commands in the order of the work, not of the alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Group,
    epilog="Example: zoo train nin_digits --workdir runs/digits",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="bottleneck-zoo", message="%(prog)s %(version)s")
def zoo() -> None:
    """Bottleneck architectures: build from a config, train, convert the head, slide it over large images.

    MODEL is a .keras file or a run directory; CONFIG is a .yaml file or a name from `zoo list`.
    """


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
        click.echo("  ".join(row).rstrip())


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

    SPEC is a name from `zoo list`, a config, a .keras file, a run directory, or keras:NAME for a model of
    keras.applications. A receptive field is "all" after a global pooling, and "?" after a layer whose reach is unknown.
    """
    with _quiet_start():
        from rich.console import Console

        from zoo.describe import FORMATS, describe, find_model
        from zoo.errors import unknown
    if format_ not in FORMATS:
        raise InputError(unknown("format", format_, FORMATS))
    with Console(stderr=True).status(f"describing {spec}"):
        description = describe(find_model(spec), image_size or None)
    click.echo(description.format(format_, width=shutil.get_terminal_size((100, 0)).columns), nl=False)


@zoo.command(
    short_help="Train, evaluate, convert, scan a scene, draw.",
    epilog="Example: zoo train nin_mnist_bn train.epochs=2 --workdir runs/quick",
)
@click.argument("arguments", nargs=-1, metavar="CONFIG [KEY=VALUE]...")
@click.option("--workdir", type=_FILE, help="The run directory. Default: runs/<config name>-<digest of the config>.")
@click.option("--fresh", is_flag=True, help="Train anew in a numbered directory, where the run exists already.")
def train(arguments: tuple[str, ...], workdir: Path | None, fresh: bool) -> None:
    """Train CONFIG, evaluate it, convert its head, scan a scene, draw pictures.

    The same command goes on where an unfinished run stopped. Options, CONFIG and overrides stand in any order.
    """
    from zoo.config import load_config

    config = next((each for each in arguments if "=" not in each or Path(each).is_file()), None)
    if config is None:
        raise click.MissingParameter(param_type="argument", param_hint="'CONFIG'")
    overrides = list(arguments)
    overrides.remove(config)
    resolved = load_config(config, overrides)
    with _quiet_start():
        from zoo.run import run
    run(resolved, workdir, fresh)


@zoo.command(short_help="Evaluate a run on its test split.", epilog="Example: zoo evaluate runs/quick -o quick.json")
@click.argument("run", type=_FILE)
@click.option("-o", "--output", type=_FILE, help="Write the numbers to this JSON file too.")
def evaluate(run: Path, output: Path | None) -> None:
    """Evaluate the model of a RUN directory on its data set's test split."""
    config = _run_config(run)
    with _quiet_start():
        from zoo import data, saving
        from zoo.evaluate import evaluate as measure
    if output is not None:
        saving.check_output(output)
    model = saving.load(run)
    dataset = data.load(config)
    result = measure(model, dataset.test, dataset.class_names)
    click.echo(f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f}, n = {result.n:,}")
    for name, accuracy in result.per_class_accuracy.items():
        click.echo(f"  {name:<20} {'no images' if accuracy is None else f'{accuracy:.2%}'}")
    if output is not None:
        _write_json(output, result.to_dict())


@zoo.command(short_help="Classify image files.", epilog="Example: zoo predict runs/quick digit.png")
@click.argument("model", type=_FILE)
@click.argument("images", nargs=-1, required=True, type=_FILE, metavar="IMAGE...")
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many classes to print.")
def predict(model: Path, images: tuple[Path, ...], top: int) -> None:
    """Print the likeliest classes of each IMAGE with their probabilities.

    An image of another size than the model's is cropped or padded about its centre, never scaled, and a line says so.
    A model converted with --pooling global takes every image whole.
    """
    with _quiet_start():
        from zoo import saving
        from zoo.evaluate import predict_files
    network = saving.load(model)
    names = saving.class_names(network)
    for answer in predict_files(network, images):
        best = answer.probabilities.argsort()[::-1][:top]
        shown = ", ".join(f"{names[index]} {answer.probabilities[index]:.1%}" for index in best)
        note = f"  ({answer.note})" if answer.note else ""
        click.echo(f"{answer.path}: {shown}{note}")


@zoo.command(short_help="Turn a Dense head into convolutions.", epilog="Example: zoo convert runs/quick -o fcn.keras")
@click.argument("model", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="The converted model's .keras file.")
@click.option(
    "--image-size", type=int, nargs=2, metavar="H W", help="The training size, where the model leaves it open."
)
@click.option("--pooling", type=click.Choice(["window", "global"]), default="window", show_default=True)
def convert(model: Path, output: Path, image_size: tuple[int, int] | None, pooling: str) -> None:
    """Turn a classifier's Dense head into convolutions, so that it takes images of any size.

    The result is compared with the source before it is written; the report lands beside it as JSON.
    """
    with _quiet_start():
        from zoo import saving
        from zoo.dense.convert import convolutionalize, error_at_training_size
        from zoo.dense.verify import EXACT, verify
        from zoo.graph import check_one_output
    saving.check_output(output, "model file", ".keras")
    report_file = saving.check_output(output.with_suffix(".verification.json"))
    source = saving.load(model)
    check_one_output(source)
    converted = convolutionalize(source, image_size or None, pooling)
    if converted is source or saving.card(converted).pooling is None:
        raise InputError(f"model {str(model)!r}: has no head left to convert; `zoo scan` takes it as it is")
    if pooling == "global":
        error = error_at_training_size(source, converted, saving.card(converted).image_size)
        _demand_equality(error <= EXACT)
        saving.save(converted, output)
        click.echo(f"wrote {output}: one answer for an image of any size; relative error {error:.1e} at training size")
        return
    report = verify(source, converted)
    click.echo(report.table())
    _demand_equality(report.same_at_training_size)
    saving.save(converted, output)
    _write_json(report_file, report.to_dict())
    click.echo(f"wrote {output} and {report_file}")


def _demand_equality(equal: bool) -> None:
    if not equal:
        raise RuntimeError("the converted model differs from its source at the training size; nothing was written")


@zoo.command(
    short_help="Slide a model over a large image.",
    epilog="Example: zoo scan fcn.keras runs/quick/scene_input.png -o scanned",
)
@click.argument("model", type=_FILE)
@click.argument("image", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="The folder for scores, geometry and overlay.")
@click.option("--tile", type=int, help="Side in pixels of the region that one pass answers for.")
@click.option("--class", "class_name", help="Draw this class's probability instead of the winner.")
def scan(model: Path, image: Path, output: Path, tile: int | None, class_name: str | None) -> None:
    """Slide a model over a large IMAGE: scores.npz, geometry.json and overlay.png in the output folder.

    A classifier is converted first.
    """
    with _quiet_start():
        from zoo import plots, saving
        from zoo.dense.pixels import read_pixels
        from zoo.dense.scan import scan as slide
        from zoo.errors import unknown
    saving.check_output(output, folder=True)
    network = saving.load(model)
    names = saving.class_names(network)
    if class_name is not None and class_name not in names:
        raise InputError(unknown("class", class_name, names))
    pixels = read_pixels(network, image)
    scores = slide(network, pixels, tile, progress=True)
    scores.save(output)
    plots.overlay(scores, pixels, output / "overlay.png", None if class_name is None else names.index(class_name))
    rows, columns = scores.scores.shape[:2]
    click.echo(f"{rows} x {columns} cells, {scores.geometry.sentence()}")
    if any(scores.uncovered):
        top, left, bottom, right = scores.uncovered
        click.echo(f"pixels that no window covers: {top} top, {left} left, {bottom} bottom, {right} right")
    winners = scores.scores.argmax(-1)
    shares = sorted(((float((winners == index).mean()), name) for index, name in enumerate(names)), reverse=True)
    click.echo("cells won: " + ", ".join(f"{name} {share:.1%}" for share, name in shares[:10] if share))
    click.echo(f"wrote {output / 'scores.npz'}, {output / 'geometry.json'} and {output / 'overlay.png'}")


@zoo.command(
    short_help="Write a model for another runtime.",
    epilog="Example: zoo export fcn.keras -o exported --format saved_model",
)
@click.argument("model", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="A new directory (saved_model) or file.")
@click.option(
    "--format", "format_", default="saved_model", show_default=True, help="One of saved_model, onnx, openvino, litert."
)
def export(model: Path, output: Path, format_: str) -> None:
    """Write MODEL for another runtime; it takes uint8 images (batch, height, width, channels).

    Batch is free always; height and width are free in a converted model.
    """
    with _quiet_start():
        from zoo import saving
        from zoo.export import check_export
        from zoo.export import export as write
    check_export(output, format_)
    click.echo(f"wrote {write(saving.load(model), output, format_)}")


@zoo.command(short_help="Draw the pictures of a run anew.", epilog="Example: zoo plot runs/quick")
@click.argument("run", type=_FILE)
def plot(run: Path) -> None:
    """Draw the pictures of a finished RUN directory anew: curves, confusion, filters."""
    _run_config(run)
    with _quiet_start():
        from zoo.run import redraw
    for path in redraw(run):
        click.echo(f"wrote {path}")


def _run_config(run: Path):
    from zoo.config import load_config

    if not (run / "config.yaml").is_file():
        raise InputError(f"run directory {str(run)!r}: has no config.yaml; accepted: a directory that `zoo train` made")
    return load_config(run / "config.yaml")


def _write_json(path: Path, content: dict) -> None:
    from zoo.saving import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Import what takes long: without TensorFlow's start-up log, ready for Ctrl-C, on a backend that is there."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend and (backend not in _BACKENDS or importlib.util.find_spec(backend) is None):
        there = ", ".join(name for name in _BACKENDS if importlib.util.find_spec(name))
        raise InputError(f"KERAS_BACKEND: received {backend!r}; accepted here: {there}")
    with _interruptible(), _hidden_log():
        yield
        # Keras reads and writes models with TensorFlow at hand where it is installed, under any backend.
        if "keras" in sys.modules and importlib.util.find_spec("tensorflow"):
            importlib.import_module("tensorflow")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once, while nothing is at work that could be left half done.

    An exception in the middle of TensorFlow's start-up comes out as an ImportError, or as a crash.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    shown, name = os.dup(2), click.get_current_context().find_root().info_name

    def stop(number: int, frame: object) -> None:
        os.write(shown, f"\n{name}: interrupted\n".encode())
        os._exit(130)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(shown)


@contextlib.contextmanager
def _hidden_log() -> Iterator[None]:
    """Hide what TensorFlow's C++ start-up writes about this machine, unless the user has set its log level."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def main(arguments: Sequence[str] | None = None, command: click.Command = zoo, name: str = "zoo") -> None:
    """Run `command` and exit: 0 done, 2 the user's input is wrong (one line on stderr), 130 interrupted, 1 else."""
    try:
        sys.exit(command.main(args=arguments, prog_name=name, standalone_mode=False))
    except InputError as error:
        code, text = 2, str(error)
    except click.ClickException as error:
        where = f"{error.ctx.command_path}: " if getattr(error, "ctx", None) else ""
        code, text = 2, f"{where}{error.format_message()}; see --help"
    except Interrupted as error:
        code, text = 130, str(error)
    except (click.Abort, KeyboardInterrupt):
        code, text = 130, "interrupted"
    except OSError as error:
        if error.filename is None and not error.strerror:
            raise
        code, text = 1, str(error)
    click.echo(f"{name}: {' '.join(text.split())}", err=True)
    sys.exit(code)
