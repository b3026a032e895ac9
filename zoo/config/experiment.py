"""The schema of one experiment: data, model, recipe, and the canvas it is tried on."""

import hashlib
import math
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field, SerializeAsAny, model_validator

from zoo.config.data import DataConfig
from zoo.config.recipe import TrainConfig
from zoo.models.architecture import LARGEST_MAP
from zoo.models.families import ModelConfig
from zoo.schema import FIRST_FORM, Renamed, Schema, Size, in_bytes, problem

CONFIG_VERSION: Final = 1
# Samples of the canvas that a run is tried on.
_LARGEST_CANVAS = 2**31

# name: (channels, classes), for the sets whose mismatch with a model is reported before anything is read
KNOWN_DATA = {"digits": (1, 10), "mnist": (1, 10), "cifar10": (3, 10), "cifar100": (3, 100)}


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
    """One experiment, as a YAML file says it; every section is frozen, and refuses keys that it does not know.

    `name`: that of its run directories. `seed`: what all that is drawn is a function of. `data`, `model`, `train`: what
    it learns from, what learns, and how. `canvas`: the large image that a finished run is tried on, null for none.
    `version`: of this schema.
    """

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
        if self.train.dense:
            if self.data.name != "scenes":
                text = f"received patches of {list(self.train.dense.patch)}; accepted for data.name = {self.data.name}"
                raise problem(f"{text}: null, as only scenes have labelled objects", "train.dense")
            batch = batch * math.prod(self.train.dense.patch) // math.prod(self.model.image_size)
        if self.train.target == "count":
            accepted = "accepted with train.target = count: null"
            if self.canvas:
                raise problem(f"received a canvas of {self.canvas.count} images; {accepted}", "canvas")
            for key in ("background", "marks"):
                if (received := getattr(self.data, key)) is not None:
                    raise problem(f"received {received}; {accepted}", f"data.{key}")
        elif self.model.num_classes < 2:
            raise problem("received 1; accepted: at least 2, or 1 with train.target = count", "model.num_classes")
        if batch > LARGEST_MAP and not self.train.distribute:
            text = (
                f"received {self.train.batch_size}, whose largest map has {in_bytes(batch)}; accepted: at most "
                f"{LARGEST_MAP * self.train.batch_size // batch}, for {in_bytes(LARGEST_MAP)}"
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
