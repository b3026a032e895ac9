"""Shipped weights: which models of the catalogue come trained, on which data, and what was measured of them.

They lie in `zoo/pretrained/`, one file a model, stored as float16 and read as float32, beside the index of all. Nothing
of them is written here: `zoo.shipping` does that. No backend is loaded.
"""

import datetime
import hashlib
import shlex
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from zoo.config.loading import read_yaml
from zoo.errors import InputError, listing, quoted, refuse
from zoo.schema import Positive, Schema

FOLDER = Path(__file__).with_name("pretrained")
INDEX = "index.yaml"
# What `zoo.build` takes for the shipped weights of the name that it is given.
PRETRAINED = "pretrained"

Share = Annotated[float, Field(ge=0, le=1)]


class DataSource(Schema):
    """Where published images come from: their `title`, where they are described, and their licence, in words."""

    title: str
    url: str
    licence: str


class ShippedWeights(Schema):
    """What was measured of a model as it is shipped, and how it was trained.

    `sha256`, `bytes`: of its file. `data`: the key of its `DataSource`. `config`, `overrides`, `seed`: the shipped
    config, what was changed in it, and the seed. `params`: trainable ones. `accuracy`: of the float16 weights, on the
    `n` images of the test split; `expected_calibration_error` likewise. `f1`: of scenes, by class, that of the objects
    found in `n_images` whole test images. `protocol`: what was held out of the training. `date`: when that ended.
    `logits`: what the model gives for the images of `zoo.shipping.fixed_images`, computed in float64 by `versions`.
    """

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Positive
    data: str
    config: str
    overrides: tuple[str, ...] = ()
    seed: int
    params: Positive
    accuracy: Share
    n: Positive
    expected_calibration_error: Share
    f1: dict[str, Share] = Field(default_factory=dict)
    n_images: Positive | None = None
    protocol: str
    hardware: str
    date: datetime.date
    versions: dict[str, str]
    logits: tuple[tuple[float, ...], ...]

    def command(self) -> str:
        """The command that trains it."""
        return shlex.join(["zoo", "train", self.config, *self.overrides, f"seed={self.seed}"])


class Index(Schema):
    """The index of a folder of weights: the data they were trained on, and the models."""

    data: dict[str, DataSource] = Field(default_factory=dict)
    models: dict[str, ShippedWeights] = Field(default_factory=dict)


def read_index(folder: Path) -> Index:
    """The index of a folder of weights; an empty one where there is none."""
    file = folder / INDEX
    return Index.model_validate(read_yaml(file)) if file.is_file() else Index()


@cache
def index() -> Index:
    """The index of the weights in the package."""
    return read_index(FOLDER)


def is_shipped(name: object) -> bool:
    """Whether `name` is one of the catalogue for which weights are shipped."""
    return str(name) in index().models


def names() -> str:
    """The names with shipped weights, for an error's line."""
    return listing(list(index().models), 20)


def shipped_file(name: str) -> Path:
    """The model file of a name with shipped weights.

    Raises:
        InputError: where there are none, or the file is not the one that was shipped.
    """
    if not is_shipped(name):
        refuse("weights", f"'{PRETRAINED}' for {quoted(str(name))}", f"a name with shipped weights: {names()}")
    file, row = FOLDER / f"{name}.keras", index().models[name]
    if not file.is_file() or checksum(file) != row.sha256:
        raise InputError(f"shipped weights {file}: missing or damaged; installing bottleneck-zoo again mends that")
    return file


def checksum(file: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
