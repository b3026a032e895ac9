"""A run's weights, made ready to be shipped: stored as float16, measured as they are then, and entered in an index.

`python -m zoo.cli.ship RUN NAME` does it for the package (`zoo/pretrained/`), with -o for a folder of larger ones.
"""

import datetime
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import yaml
from sklearn.datasets import load_digits

from zoo import data, model_files
from zoo.card import Card, attach, card
from zoo.catalogue import resolve
from zoo.config import Config, load_config
from zoo.config.loading import shipped_configs
from zoo.config.parsing import parse_yaml
from zoo.data import Dataset
from zoo.dense_evaluation import evaluate_dense
from zoo.environment import machine, versions
from zoo.errors import InputError, quoted, refuse, unknown
from zoo.evaluation import evaluate
from zoo.files import Output, replacing, writing
from zoo.layer_table import describe
from zoo.made_by import MadeBy, key_of, sign
from zoo.pictures import fit_image
from zoo.run_directory import check_finished, differences, read_evaluation, read_json
from zoo.schema import Schema
from zoo.settings import own_settings
from zoo.shipped import FOLDER, INDEX, Index, ShippedWeights, checksum, index, read_index

_WEIGHTS = "model.weights.h5"
# How far the accuracy of what is shipped may be from the run's own, which rounding moves by a few images at most.
_MOST_LOST = 0.002
# Significant digits of the logits that are kept, and how many images they are of, of noise and of digits.
_DIGITS, _IMAGES = 9, 4


@own_settings()
def ship(
    run: Path,
    name: str,
    folder: Path = FOLDER,
    source: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> ShippedWeights:
    """Write the weights of a finished run to `folder`/`name`.keras, and its row to the index there.

    Everything in the row is measured on the file that is written, with the test images of the run's config.

    Args:
        run: the run directory.
        name: a row of the catalogue, whose model the run trained.
        folder: where the weights and their index lie.
        source: the key of the data's source in the index; default: the config's `data.name`.
        overrides: of the config, for where the data are now. Classes that had numbers for names take the data's names.
        overwrite: replace weights of another run.

    Raises:
        InputError: where the run is not finished, trained another model than the catalogue's, or its data are not at
            hand or not described in the package's index; where a weight is too large for float16, or the accuracy is
            not the run's.
    """
    check_finished(run)
    report, environment = read_evaluation(run), read_json(run / "environment.json")
    config = load_config(run / "config.yaml", overrides)
    changed = _overrides(config)
    if "accuracy" not in report:
        refuse(f"run directory {str(run)!r}", "no accuracy, as of a net that counts", "the run of a classifier")
    for key, received, wanted in differences(_plain(config.model), _plain(resolve(name))):
        refuse(f"run directory {str(run)!r}: model.{key}", quoted(received), f"{wanted!r}, as {name} in the catalogue")
    source = source or config.data.name
    if source not in index().data:
        refuse("source", quoted(source), f"one of those described in zoo/pretrained/{INDEX}: {', '.join(index().data)}")
    dataset = data.load(config)
    file = folder / f"{name}.keras"
    made_by = MadeBy("zoo.cli.ship", {"model": key_of(run / "model.keras"), "name": name})
    with writing([Output(file, "weights")], made_by, model_files.files_of(run), overwrite):
        with replacing(file) as temporary:
            model = model_files.load(run)
            attach(model, Card.model_validate({**card(model).model_dump(), "class_names": dataset.class_names}))
            model_files.save(model, temporary)
            store_as_float16(temporary)
            sign(temporary, made_by)
            model = model_files.load(temporary)
            measured = evaluate(model, dataset.test, dataset.class_names)
            if measured.n != report["n"] or abs(measured.accuracy - report["accuracy"]) > _MOST_LOST:
                received = f"{measured.accuracy:.2%} of {measured.n:,} test images as float16"
                refuse(
                    f"run directory {str(run)!r}", received, f"{report['accuracy']:.2%} of {report['n']:,}, as there"
                )
            row = ShippedWeights(
                sha256=checksum(temporary),
                bytes=temporary.stat().st_size,
                data=source,
                config=config.name,
                overrides=changed,
                seed=config.seed,
                params=describe(model).trainable_params,
                accuracy=round(measured.accuracy, 6),
                n=measured.n,
                expected_calibration_error=round(measured.expected_calibration_error, 6),
                **_objects(model, dataset),
                protocol=dataset.protocol,
                hardware=machine(environment),
                date=_date(run, environment),
                versions=versions(),
                logits=logits(model),
            )
        _enter(folder, name, row)
    return row


def _plain(section: Schema) -> dict[str, Any]:
    return section.model_dump(mode="json")


def _overrides(config: Config) -> tuple[str, ...]:
    """What a config changes in the shipped one of its name, but for the seed, and where the data lie.

    Raises:
        InputError: where no shipped config has the name, or another key names a place on this machine.
    """
    if config.name not in shipped_configs():
        raise InputError(unknown("config", config.name, shipped_configs()))
    changed = []
    for key, _, value in differences(_plain(load_config(config.name)), _plain(config)):
        is_place = isinstance(value, str) and Path(value).is_absolute()
        if is_place and not key.startswith("data."):
            refuse(key, quoted(value), "the shipped config's, as a path of this machine means nothing on another")
        if key != "seed" and not is_place:
            is_plain = isinstance(value, str) and parse_yaml(value) == value
            changed.append(f"{key}={value if is_plain else json.dumps(value)}")
    return tuple(changed)


def _objects(model: keras.Model, dataset: Dataset) -> dict[str, Any]:
    """What the index has of the objects that are found in whole test images; nothing of single images."""
    if dataset.scenes is None:
        return {}
    found = evaluate_dense(model, dataset.scenes)
    f1 = {name: round(each.f1, 6) for name, each in found.classes.items() if each.f1 is not None}
    return {"f1": f1, "n_images": found.n_images}


def _date(run: Path, environment: dict[str, Any]) -> datetime.date:
    """When a run ended; of older ones, which do not say so, when its last file was written."""
    if ended := environment.get("ended"):
        return datetime.datetime.fromisoformat(ended).date()
    return datetime.datetime.fromtimestamp((run / "evaluation.json").stat().st_mtime, datetime.UTC).date()


def _enter(folder: Path, name: str, row: ShippedWeights) -> None:
    """Put a row into the index of a folder, with what the package knows of its data."""
    known = read_index(folder)
    models, sources = {**known.models, name: row}, {row.data: index().data[row.data], **known.data}
    content = Index(data=sources, models=dict(sorted(models.items()))).model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(text, encoding="utf-8")


def store_as_float16(file: Path) -> None:
    """Round the weights of a .keras file to float16 and store them so; Keras reads them as float32.

    Raises:
        InputError: naming a weight that float16 has no room for.
    """
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    rounded = io.BytesIO()
    with h5py.File(io.BytesIO(members[_WEIGHTS])) as before, h5py.File(rounded, "w") as after:
        after.attrs.update(before.attrs)

        def copy(path: str, node: h5py.Group | h5py.Dataset) -> None:
            if isinstance(node, h5py.Group):
                after.require_group(path).attrs.update(node.attrs)
                return
            values = node[()]
            if values.dtype == np.float32:
                if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                    refuse(f"weight {path!r}", f"{np.abs(values).max():g}", "at most 65504, which float16 has room for")
                values = values.astype(np.float16)
            after[path] = values

        before.visititems(copy)
    members[_WEIGHTS] = rounded.getvalue()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def fixed_images(height: int, width: int, channels: int) -> np.ndarray:
    """Images that are the same for ever, (8, height, width, channels) uint8: four of noise, four of bundled digits."""
    # RandomState's numbers are frozen; those of the newer generators may change from one NumPy to the next.
    noise = np.random.RandomState(0).randint(0, 256, (_IMAGES, height, width, channels)).astype(np.uint8)
    digits = np.rint(load_digits().images[:_IMAGES] * (255 / 16)).astype(np.uint8)[..., None]
    fitted = [fit_image(np.repeat(digit, channels, -1), (height, width)) for digit in digits]
    return np.concatenate([noise, fitted])


@own_settings()
def logits(model: keras.Model, dtype: str = "float64") -> tuple[tuple[float, ...], ...]:
    """What a model gives for `fixed_images`, a row an image, computed in `dtype`."""
    keras.config.set_dtype_policy(dtype)

    def in_dtype(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": dtype})

    copy = keras.models.clone_model(model, clone_function=in_dtype)
    copy.set_weights(model.get_weights())
    images = fixed_images(*model.input_shape[1:])
    answers = keras.ops.convert_to_numpy(copy(images.astype(dtype), training=False))
    return tuple(tuple(float(f"{each:.{_DIGITS}g}") for each in row) for row in answers)
