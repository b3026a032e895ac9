"""The schema of the recipe: how a model is trained."""

import json
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.card import Target
from zoo.schema import LARGEST, Added, Pattern, Positive, Rate, Schema, Size, problem


class SGD(Schema):
    """Stochastic gradient descent with momentum; weight decay is decoupled and spares biases and normalisations."""

    name: Literal["sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Rate = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _check_nesterov(self) -> "SGD":
        if self.nesterov and not self.momentum:
            raise problem("received true beside momentum = 0; accepted: false, or a momentum", "nesterov")
        return self


class AdamW(Schema):
    """AdamW (Loshchilov and Hutter 2017); weight decay spares biases and normalisations."""

    name: Literal["adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Muon(Schema):
    """Momentum of every kernel below the head, orthogonalised; SGD with momentum for the head and for vectors.

    As in the later form of airbench94 (Jordan 2024, arXiv:2404.00498): see `zoo.training.muon`. `learning_rate`: of the
    kernels, whose norms are fixed, so that it is an angle and not a length. `head_rate`: of the head. `bias_rate`: of
    biases below it, and of normalisations' scales and shifts (section 3.4 of the paper: high). `weight_decay`: times
    the learning rate, of all but the kernels.
    """

    name: Literal["muon"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Rate = 0.6
    head_rate: Annotated[float, Field(gt=0)]
    bias_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class RandAugment(Schema):
    """`operations` of Keras's RandAugment, one after another, drawn for each batch (Cubuk et al. 2019).

    `magnitude` from 0 to 1 bounds how far each of them goes, drawn for each image. For 8-bit images.
    """

    operations: Annotated[int, Field(ge=1, le=100)] = 2
    magnitude: Annotated[float, Field(gt=0, le=1)]


class Augment(Schema):
    """What training does to images: RandAugment, shifts and flips of each; MixUp and CutMix of pairs.

    Shifts are of up to `shift` pixels: pad with the value that preprocessing maps to 0, or with `reflect` by the
    mirrored image, then crop. `mixup` is the alpha of Zhang et al. 2017 (arXiv:1710.09412, section 2), `cutmix` that of
    Yun et al. 2019 (arXiv:1905.04899, section 3.1): the share that an image and its label keep comes from Beta(alpha,
    alpha). With both, each batch has one of them, by a coin. `flip`: each image is mirrored left to right, or not, by a
    coin; with `alternate` in every other epoch instead (Jordan 2024, arXiv:2404.00498, section 3.6). `turns`: quarter
    turns, and flips both ways. `brightness`: samples are multiplied by a factor from 1 - `brightness` to 1 +
    `brightness`. `colour`: so is each channel, by a factor of its own, as stains differ.
    """

    shift: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    reflect: Annotated[bool, Added()] = False
    flip: bool = False
    alternate: Annotated[bool, Added()] = False
    randaugment: RandAugment | None = None
    mixup: Annotated[float, Field(ge=0, le=1)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.0
    turns: Annotated[bool, Added()] = False
    brightness: Annotated[Rate, Added()] = 0.0
    colour: Annotated[Rate, Added()] = 0.0

    @model_validator(mode="after")
    def _check_alternate(self) -> "Augment":
        if self.alternate and not self.flip:
            raise problem("received true beside flip = false; accepted: false, or both true", "alternate")
        if self.reflect and not self.shift:
            raise problem("received true beside shift = 0; accepted: false, or a shift", "reflect")
        return self


class Dense(Schema):
    """Training on the grid itself: patches of labelled images, of whose every grid cell the loss is a mean.

    A batch is of `train.batch_size` patches. `patch`: [height, width] of one in scanned pixels. `patches`: how many of
    them an epoch takes of each image. `hardest`: how many background cells, those with the largest loss, count for each
    labelled one of a batch; null: all of them.
    """

    patch: Size
    patches: Positive = 1
    hardest: Annotated[float, Field(gt=0)] | None = None


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
    other. The model that is kept computes in float32. `dense`: see `Dense`. `class_weight`: "balanced" gives every
    class the same weight in the loss, whatever its share of the training images or grid cells. `target`: what a score
    is to be: of the class of what is in the middle of the window, or ("count", of scenes, by dense training) the number
    of objects of each class whose centres lie in the window (Cohen et al. 2017, arXiv:1703.08710, section 3).
    `initial`: "identity" begins with convolutions that hand their inputs on, and a head that is almost 0 (see
    `zoo.training.initial`).
    """

    target: Annotated[Target, Added()] = "class"
    epochs: Annotated[int, Field(ge=1, le=10**6)]
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 128
    optimizer: Annotated[SGD | AdamW | Muon, Field(discriminator="name")]
    warmup: Rate = 0.0
    milestones: Annotated[tuple[Rate, ...], Field(max_length=100)] = ()
    label_smoothing: Rate = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    accumulate: Positive = 1
    patience: Positive | None = None
    augment: Augment = Augment()
    dense: Annotated[Dense | None, Added()] = None
    class_weight: Annotated[Literal["balanced"] | None, Added()] = None
    initial: Annotated[Literal["identity"] | None, Added()] = None
    weights: str | None = None
    freeze: Pattern | None = None
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

    @model_validator(mode="after")
    def _check_initial(self) -> "TrainConfig":
        if self.initial and self.weights:
            raise problem(f"received {self.initial} beside train.weights; accepted: null", "initial")
        return self

    @model_validator(mode="after")
    def _check_dense(self) -> "TrainConfig":
        if self.dense:
            refused = {"shift": 0, "alternate": False, "randaugment": None, "mixup": 0, "cutmix": 0}
            for key, nothing in refused.items():
                if received := getattr(self.augment, key):
                    given = json.dumps(received) if isinstance(received, float | int) else str(received)
                    text = f"received {given} beside train.dense; accepted: {json.dumps(nothing)}"
                    raise problem(text, f"augment.{key}")
            if self.distribute:
                raise problem(f"received {self.distribute} beside train.dense; accepted: null", "distribute")
        return self

    @model_validator(mode="after")
    def _check_target(self) -> "TrainConfig":
        if self.target == "count":
            beside = "beside train.target = count"
            if self.dense is None:
                raise problem(f"received null {beside}; accepted: patches, {{patch: [height, width]}}", "dense")
            if self.dense.hardest is not None:
                raise problem(f"received {self.dense.hardest:g} {beside}; accepted: null", "dense.hardest")
            if self.class_weight is not None:
                raise problem(f"received {self.class_weight} {beside}; accepted: null", "class_weight")
            if self.label_smoothing:
                raise problem(f"received {self.label_smoothing:g} {beside}; accepted: 0", "label_smoothing")
        return self
