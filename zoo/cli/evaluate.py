"""`zoo evaluate`: what a model reaches, on its test split, in whole images, or beside another model."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli import options as common
from zoo.cli.command import give, option
from zoo.cli.options import FILE
from zoo.cli.start import quiet_start, run_config, training_config, zoo
from zoo.errors import InputError, quoted, refuse
from zoo.files import Output, write_json, writing
from zoo.made_by import MadeBy, key_of
from zoo.progress import aligned, note, say, working

if TYPE_CHECKING:
    from zoo.data import Dataset, Fault


# Keys whose values may be others for images of another folder than for those that a run was trained on.
_OF_OTHER_IMAGES = ("data.tolerance", "data.unlabelled", "data.unreadable")


@zoo.command(
    short_help="Evaluate a run on its test split, on whole images, or against another.",
    epilog="Example: zoo evaluate runs/november --against runs/october --tolerance 0.005 -o gate.json; "
    "or zoo evaluate runs/cells --dense --images slides --labels slides.csv -o dense.json",
)
@click.argument("run", type=FILE, shell_complete=common.completing(common.trained, files=True))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@common.output("a JSON file of the numbers.", required=False)
@option("--against", type=FILE, metavar="OLD", help="Compare with this run directory or .keras file.")
@common.tolerance(0.01, goes_with="--against")
@option(
    "--views",
    is_flag=True,
    help="Answer by the mean over flips and shifts of each image: six views.",
    apart_from=["--dense", "--against"],
)
@option(
    "--dense",
    is_flag=True,
    help="Find objects in whole images, beside those that are labelled.",
    apart_from=["--against"],
)
@option(
    "--images",
    type=FILE,
    metavar="FOLDER",
    help="The images. Default: the test split's.",
    goes_with=["--dense", "--labels"],
)
@option("--labels", type=FILE, metavar="LABELS", help="The labels of objects, as data.labels.", goes_with="--images")
@common.overwrite(goes_with="--output")
def evaluate(
    run: Path,
    overrides: tuple[str, ...],
    output: Path | None,
    against: Path | None,
    tolerance: float | None,
    views: bool,
    dense: bool,
    images: Path | None,
    labels: Path | None,
    overwrite: bool,
) -> None:
    """Evaluate the model of a RUN directory, or one that is shipped, on its data set's test split.

    With --dense, of a run on labelled large images (data.name: scenes), every image is scanned to its border, and the
    objects that are found are matched with those that are labelled: precision, recall and F1 at the model's thresholds,
    average precision without; the answers at labelled grid cells; and the same by crops. Beside the JSON file lies a
    picture, a .png of its name, with the images that have the most errors. --images evaluates on all images of another
    folder, whose labels are read as the run's were; there data.tolerance, data.unlabelled and data.unreadable may be
    others, as KEY=VALUE. Of a run that counts (train.target: count), the counts in every image are compared with the
    labelled ones: mean absolute error and bias.

    With --against, both models answer the same test images, and a table shows what the new one gained and lost, with
    confidence intervals; test images or class lists that differ are refused. The exit code is 1 on a regression: where
    the accuracy over all images fell by more than the tolerance, or a class's did with its interval below 0.
    """
    if overrides and images is None:
        raise click.UsageError(f"{overrides[0]} has no effect without --images and --labels")
    if dense:
        _evaluate_dense(run, overrides, images, labels, output, overwrite)
        return
    if against is not None:
        _compare(run, against, 0.01 if tolerance is None else tolerance, output, overwrite)
        return
    config = training_config(run)
    if config.train.target == "count":
        refuse("zoo evaluate", f"a run that counts, {quoted(str(run))}", "--dense, which counts in whole images")
    with quiet_start():
        from zoo import data, model_files
        from zoo.card import card
        from zoo.evaluation import evaluate as measure
    options = {"views": True} if views else {}
    with _report(output, (run,), _data_of(run), options, overwrite) as write:
        model = model_files.load(run)
        dataset = data.load(config)
        _check_classes(run, card(model).class_names, dataset.class_names)
        faults = _faults(run, dataset)
        for fault in faults:
            note(fault)
        with working("evaluating"):
            result = measure(model, dataset.test, dataset.class_names, views)
        say(f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f}, n = {result.n:,}")
        classes = result.per_class_accuracy.items()
        say(aligned([(f"  {name}", "no images" if share is None else f"{share:.2%}") for name, share in classes]))
        write({**result.to_dict(), **options, "faults": [fault.to_dict() for fault in faults]})


def _faults(run: Path, dataset: "Dataset") -> "tuple[Fault, ...]":
    """Those of the data, and one where the test part is another than when the run was made."""
    from zoo.data import Fault
    from zoo.run_directory import test_fingerprint

    if test_fingerprint(run) in (None, dataset.test_fingerprint):
        return dataset.faults
    text = "the test images or their labels have changed since this run, which may have been trained on some of them"
    return (*dataset.faults, Fault("leak", text, 1, (dataset.name,)))


def _check_classes(run: Path, known: Sequence[str], now: Sequence[str]) -> None:
    """Check that the classes of the data are those of the model."""
    from zoo.classes import difference

    if known and (differ := difference(known, now, "its model", "its data set")):
        raise InputError(
            f"run directory {str(run)!r}: its data have other classes now: {differ}; "
            "accepted: the same ones in the same order"
        )


def _evaluate_dense(
    run: Path,
    overrides: Sequence[str],
    images: Path | None,
    labels: Path | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    for each in overrides:
        if each.partition("=")[0] not in _OF_OTHER_IMAGES:
            refuse("override", quoted(each), f"{', '.join(_OF_OTHER_IMAGES)}, as KEY=VALUE")
    config = training_config(run, overrides)
    if config.data.name != "scenes":
        refuse("--dense", f"a run on data.name = {config.data.name}", "one on labelled large images, scenes")
    if output is not None and output.suffix.lower() == ".png":
        refuse("--output", quoted(str(output)), "a JSON file, beside which the picture lies")
    with quiet_start():
        from zoo import data, dense_plots, model_files
        from zoo.card import card
        from zoo.count_evaluation import CountEvaluation, evaluate_counts
        from zoo.data.form import ImageForm
        from zoo.data.scenes import read_test_scenes
        from zoo.dense_evaluation import DenseEvaluation, evaluate_dense
        from zoo.objects.count_scores import count_rows
        from zoo.run_directory import training_means_of
    read = [each for each in (config.data.dir, config.data.labels) if each is not None]
    if images is not None and labels is not None:
        read = [images, labels]
    outputs = [] if output is None else [Output(output), Output(output.with_suffix(".png"), "picture")]
    options = {"dense": True, **({"overrides": list(overrides)} if overrides else {})}
    made_by = _made_by([run], [each for each in read if each.exists()], options)
    with writing(outputs, made_by, [*read, *model_files.files_of(run)], overwrite):
        model = model_files.load(run)
        known, means = card(model), None
        if images is not None and labels is not None:
            means = training_means_of(run)
            theirs = {"dir": images.absolute(), "labels": labels.absolute(), "marks": None}
            section = config.data.model_copy(update=theirs)
            scenes, faults = read_test_scenes(section, ImageForm.of(config), known.class_names, known.pixel_size)
        else:
            dataset = data.load(config)
            _check_classes(run, known.class_names, dataset.class_names)
            if dataset.scenes is None:
                raise RuntimeError("the reader of scenes gave none")
            scenes, faults = dataset.scenes, _faults(run, dataset)
        for fault in faults:
            note(fault)
        result: CountEvaluation | DenseEvaluation
        if known.target == "count":
            result = evaluate_counts(model, scenes, training_means=means)
            say(f"{len(result.images):,} images\n{aligned(count_rows(result.counts))}")
        else:
            result = evaluate_dense(model, scenes, training_means=means)
            say(f"{result.n_images:,} images\n{aligned(result.rows())}\n{result.sentences()}")
            say(f"counts by peaks\n{aligned(count_rows(result.counts))}")
        numbers = {**result.to_dict(), "faults": [fault.to_dict() for fault in faults]}
        give(numbers)
        if output is not None:
            picture = output.with_suffix(".png")
            if isinstance(result, CountEvaluation):
                dense_plots.counts(result, picture, made_by)
            else:
                dense_plots.dense(result, picture, made_by)
            write_json(output, numbers, made_by)
            give({**numbers, "files": [str(output), str(picture)]})


def _compare(new: Path, old: Path, tolerance: float, output: Path | None, overwrite: bool) -> None:
    with quiet_start():
        from zoo.comparison import compare_models
    with _report(output, (new, old), [*_data_of(new), *_data_of(old)], {"tolerance": tolerance}, overwrite) as write:
        with working("comparing"):
            comparison = compare_models(new, old, tolerance)
        for fault in comparison.faults:
            note(fault)
        say(comparison.table())
        write({"new": str(new), "old": str(old), **comparison.to_dict()})
    if comparison.regressions:
        click.get_current_context().exit(1)


def _data_of(run: Path) -> list[Path]:
    """The file or folder of a run's data, if it has one of its own; tensorflow-datasets share theirs."""
    from zoo.config.sources import TFDS

    if not (run / "config.yaml").is_file():
        return []
    data = run_config(run).data
    return [data.dir] if data.dir is not None and data.source is not TFDS and data.dir.exists() else []


@contextlib.contextmanager
def _report(
    output: Path | None, models: Sequence[Path], data: Sequence[Path], options: dict[str, Any], overwrite: bool
) -> Iterator[Callable[[dict[str, Any]], object]]:
    """What gives the numbers of an evaluation, and writes them to `output`, if there is one; it is checked before."""
    from zoo import model_files

    if output is None:
        yield give
        return
    made_by = _made_by(models, data, options)
    read = [file for model in models for file in model_files.files_of(model)]
    with writing([Output(output)], made_by, [*data, *read], overwrite):

        def write(content: dict[str, Any]) -> None:
            write_json(output, content, made_by)
            give({**content, "files": [str(output)]})

        yield write


def _made_by(models: Sequence[Path], data: Sequence[Path], options: dict[str, Any]) -> MadeBy:
    """What an evaluation's files are made from."""
    from zoo import model_files

    read = [model_files.files_of(model) for model in models]
    keys = {f"model {index}": [key_of(file) for file in files if file.exists()] for index, files in enumerate(read)}
    return MadeBy("zoo evaluate", {**keys, "data": [key_of(path) for path in data], **options})
