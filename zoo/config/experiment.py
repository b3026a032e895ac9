"""The schema of one experiment: data, model, recipe, and the canvas it is tried on."""

import hashlib
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from zoo.config.sources import SOURCES, TFDS, DataSource
from zoo.models.architecture import LARGEST_MAP
from zoo.models.families import ModelConfig
from zoo.schema import FIRST_FORM, LARGEST, Added, Positive, Rate, Renamed, Schema, Size, in_bytes, problem

CONFIG_VERSION: Final = 1
# Samples of the canvas that a run is tried on.
_LARGEST_CANVAS = 2**31

# name: (channels, classes), for the sets whose mismatch with a model is reported before anything is read
KNOWN_DATA = {"digits": (1, 10), "mnist": (1, 10), "cifar10": (3, 10), "cifar100": (3, 100)}


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    # Of a pattern nested too deep or repeated too often, Python tells in other ways.
    except (re.error, OverflowError, RecursionError) as error:
        raise problem(f"received {value!r}; accepted: a regular expression ({error})") from None
    return value


class DataConfig(Schema):
    """Where the images come from; `SOURCES` of `zoo.config.sources` says which keys mean something to which source.

    `name`: digits (bundled), npz, image_folder, or any image classification set of tensorflow-datasets.
    `dir`: the folder of tensorflow-datasets (default: the environment's TFDS_DATA_DIR), the image folder, or the
    .npz file. `validation`: what is carved from the training images, a share below 1 or a number of images; 0 trains
    on everything; not used where an image folder has val/, valid/ or validation/ beside train/ and test/. `test`: the
    share that an image folder without train/ and test/ holds back, by content hash.
    `group`: a regular expression that names the specimen (patient, slide, field) of each file of an image folder. It is
    searched in the file's path below `dir`, class folder included, with / between folders (`train/cat/p7_003.png`); its
    first group, else its whole match, is the specimen's name. Whole specimens are then held back for validation and
    testing, the latter by a hash of their names.
    `resize`: scale images to the model's size instead of cropping or padding them. `unreadable`: what to do about
    files of an image folder that cannot be decoded; "skip" leaves them out, and names them in evaluation.json.
    """

    name: str
    dir: Annotated[Path, AfterValidator(Path.absolute)] | None = None
    validation: Annotated[float, Field(ge=0)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    group: Annotated[Annotated[str, AfterValidator(_pattern)] | None, Added()] = None
    resize: bool = False
    unreadable: Literal["refuse", "skip"] = "refuse"

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if self.source.dir:
            self.given_dir()
        if self.validation >= 1 and self.validation != int(self.validation):
            text = f"received {self.validation}; accepted: a share below 1, or a whole number of images"
            raise problem(text, "validation")
        return self

    @property
    def source(self) -> DataSource:
        """What `name` names."""
        return SOURCES.get(self.name, TFDS)

    def given_dir(self) -> Path:
        """`dir`, for the sources that lie there; null is refused."""
        if self.dir is None:
            raise problem(f"received null; accepted for data.name = {self.name}: {self.source.dir}", "dir")
        return self.dir


class SGD(Schema):
    """Stochastic gradient descent with momentum; weight decay is decoupled and spares biases and normalisations."""

    name: Literal["sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Rate = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class AdamW(Schema):
    """AdamW (Loshchilov and Hutter 2017); weight decay spares biases and normalisations."""

    name: Literal["adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class RandAugment(Schema):
    """`operations` of Keras's RandAugment, one after another, drawn for each batch (Cubuk et al. 2019).

    `magnitude` from 0 to 1 bounds how far each of them goes, drawn for each image. For 8-bit images.
    """

    operations: Annotated[int, Field(ge=1, le=100)] = 2
    magnitude: Annotated[float, Field(gt=0, le=1)]


class Augment(Schema):
    """What training does to images: RandAugment, shifts and flips of each; MixUp and CutMix of pairs.

    Shifts are of up to `shift` pixels (pad with the value that preprocessing maps to 0, then crop). `mixup` is the
    alpha of Zhang et al. 2017 (arXiv:1710.09412, section 2), `cutmix` that of Yun et al. 2019 (arXiv:1905.04899,
    section 3.1): the share that an image and its label keep comes from Beta(alpha, alpha). With both, each batch has
    one of them, by a coin.
    """

    shift: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    flip: bool = False
    randaugment: RandAugment | None = None
    mixup: Annotated[float, Field(ge=0, le=1)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.0


class TrainConfig(Schema):
    """The recipe: the learning rate rises over the first `warmup` share of the steps, then falls as a cosine to 0.

    With `milestones`, shares of the steps, it is divided by ten at each of them instead, and is a tenth of itself over
    the warm-up, as in the papers of ResNet (He et al. 2015, section 4.2) and NIN (Lin et al. 2013, section 4). `ema`:
    the momentum a batch of a moving average of the weights, which is then what is validated and kept. `accumulate`: how
    many batches' mean gradient makes one update, for updates whose images do not fit the memory at once. `patience`:
    epochs without a lower validation loss after which training ends; the weights of the epoch with the lowest are kept.

    `weights`: what to begin from instead of random values, as `zoo.build` takes them (a run directory, a .keras file,
    "keras"). `freeze`: a regular expression; layers whose names it matches from the start keep their weights, and their
    normalisations their statistics: `stem|stage[12]`. `distribute`: "data" trains on all devices of this host, or of
    all hosts that the environment names, each with its share of every batch; the JAX backend alone can. `precision`:
    what to compute in; "auto" is bfloat16 (float32 weights) on a processor or GPU that has it, and float32 on any
    other. The model that is kept computes in float32.
    """

    epochs: Annotated[int, Field(ge=1, le=10**6)]
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 128
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    warmup: Rate = 0.0
    milestones: Annotated[tuple[Rate, ...], Field(max_length=100)] = ()
    label_smoothing: Rate = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    accumulate: Positive = 1
    patience: Positive | None = None
    augment: Augment = Augment()
    weights: str | None = None
    freeze: Annotated[str, AfterValidator(_pattern)] | None = None
    checkpoint_every_steps: Positive | None = None
    deterministic: bool = True
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    distribute: Literal["data"] | None = None

    @model_validator(mode="after")
    def _check_milestones(self) -> "TrainConfig":
        shares = (self.warmup, *self.milestones)
        if any(later <= earlier for earlier, later in pairwise(shares)):
            accepted = f"rising shares of the steps, above warmup = {self.warmup:g}"
            text = f"received {list(self.milestones)}; accepted: {accepted}"
            raise problem(text, "milestones")
        return self


def canvas_grid(count: int) -> tuple[int, int]:
    """Rows and columns of a grid for `count` pasted images, as square as it goes."""
    columns = math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


class CanvasConfig(Schema):
    """The large image that a finished run is tried on: `count` test images at random places of a canvas.

    `size`: [height, width] of the canvas; null: twice the training size for each image, in a square arrangement.
    """

    count: Annotated[int, Field(ge=1, le=10**6)] = 100
    size: Size | None = None


class Config(Schema):
    """One experiment; with `canvas: null` a finished run is not tried on a large image."""

    version: Literal[1] = CONFIG_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    model: SerializeAsAny[ModelConfig]
    train: TrainConfig
    canvas: Annotated[CanvasConfig | None, Renamed("scene")] = CanvasConfig()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.model.image_size is None:
            text = "received null; training needs [height, width]"
            raise problem(text, "model.image_size")
        if self.canvas and self.canvas.size:
            grid = canvas_grid(self.canvas.count)
            least = [side * cells for side, cells in zip(self.model.image_size, grid, strict=True)]
            if any(side < need for side, need in zip(self.canvas.size, least, strict=True)):
                height, width = self.model.image_size
                text = (
                    f"received {list(self.canvas.size)}; accepted: at least {least}, or null, for {self.canvas.count} "
                    f"images of {height} x {width}"
                )
                raise problem(text, "canvas.size")
            if math.prod(self.canvas.size) * self.model.channels > _LARGEST_CANVAS:
                text = f"received {list(self.canvas.size)}; accepted: at most {_LARGEST_CANVAS:,} samples"
                raise problem(text, "canvas.size")
        batch = self.model.largest_map * self.train.batch_size
        if batch > LARGEST_MAP and not self.train.distribute:
            text = (
                f"received {self.train.batch_size}, whose largest map has {in_bytes(batch)}; accepted: at most "
                f"{LARGEST_MAP // self.model.largest_map}, for {in_bytes(LARGEST_MAP)}"
            )
            raise problem(text, "train.batch_size")
        if self.train.patience and not self.data.validation:
            text = f"received {self.train.patience}; accepted with data.validation = 0: null"
            raise problem(text, "train.patience")
        if self.data.name in KNOWN_DATA:
            channels, classes = KNOWN_DATA[self.data.name]
            for key, wanted in (("num_classes", classes), ("channels", channels)):
                if (received := getattr(self.model, key)) != wanted:
                    text = f"received {received}; accepted for data.name = {self.data.name}: {wanted}"
                    raise problem(text, f"model.{key}")
        return self

    def to_yaml(self, form: str | None = None) -> str:
        """The resolved config; loading it gives an equal `Config`. `form`: see `FIRST_FORM`."""
        return yaml.safe_dump(self.model_dump(mode="json", context=form), sort_keys=False, allow_unicode=True)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ between different resolved configs, and are the same in all versions."""
        return hashlib.sha256(self.to_yaml(FIRST_FORM).encode()).hexdigest()[:8]
