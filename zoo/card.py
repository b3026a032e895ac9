"""The card: what travels with a model, beside its graph and weights. No backend is needed to read one."""

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from zoo.classes import class_list
from zoo.errors import InputError
from zoo.schema import Positive, Schema, problem

if TYPE_CHECKING:
    import keras

Sides = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=2)]
PixelType = Literal["uint8", "uint16", "float32"]
Target = Literal["class", "count"]
PIXEL_TYPES: tuple[PixelType, ...] = get_args(PixelType)


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return class_list(names, "classes")
    except InputError as error:
        raise problem(str(error)) from None


class Preprocess(Schema):
    """Raw pixels to network inputs: (x - mean) / std, in the units of the raw image, one number or one a channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (255.0,)


class Peaks(Schema):
    """When a class's peak of a score map is an object.

    `threshold`: the least probability. `distance`: how far apart two objects are at least, and `margin`: how far from
    the image's border each is, both in pixels that are scanned.
    """

    threshold: Annotated[float, Field(ge=0, le=1)]
    distance: Annotated[float, Field(ge=0)]
    margin: Annotated[float, Field(ge=0)] = 0.0


class Card(Schema):
    """What travels with a model.

    `image_size`: [height, width] in pixels that the model was trained at; [length] of a sequence. `dtype`: the type of
    the samples of the images that it was trained on; null where not known. `preprocess`: what the model itself does
    to raw pixels, for the reader; nobody has to do it again. `pooling`: how the head was converted, to a map of scores
    ("window") or to one answer for an image of any size ("global"); null where the model is not converted. `window`:
    the sides of the crop that one cell of such a map answers for. `padding`: "valid" in a padding-free twin.

    `scale`: what images of the training were scaled by. `pixel_size`: the size in micrometres of a pixel that the model
    sees. A model that was trained by pixel size has the latter alone, and an image is brought to it by its own pixel
    size, stated by its file or its user; without one it is refused. A model that was trained by scale has the former,
    by which an image without a pixel size is scaled; and the latter too, where all training images stated one and it
    was the same, so that an image with one is brought to it. A model without both takes images as they are.

    `fill`: what training put beyond an image's border, "reflect" (mirrored, the outermost pixels not repeated) or raw
    values, one or one a channel; null where it put nothing there, or it is not known. `background`: the class that
    stands for nothing. `peaks`: by class, what makes an object of a peak, as it was found on validation images.
    `target`: what the scores are of, classes, or the numbers of each class's objects in the window ("count").
    """

    version: int = 1
    class_names: Annotated[tuple[str, ...], AfterValidator(_checked)] = ()
    image_size: Sides | None = None
    dtype: PixelType | None = None
    preprocess: Preprocess | None = None
    pooling: Literal["window", "global"] | None = None
    window: Sides | None = None
    padding: Literal["keep", "valid"] = "keep"
    scale: Annotated[float, Field(gt=0)] | None = None
    pixel_size: Annotated[float, Field(gt=0)] | None = None
    fill: Literal["reflect"] | tuple[float, ...] | None = None
    background: str | None = None
    peaks: dict[str, Peaks] = Field(default_factory=dict)
    target: Target = "class"

    @property
    def filling(self) -> Literal["reflect"] | tuple[float, ...]:
        """What `zoo predict` puts beyond the border of an image that is too small: `fill`, or the mean, or 0."""
        return self.fill or (self.preprocess.mean if self.preprocess else (0.0,))

    def of_output(self, units: int) -> "Card":
        """The card of one output of several: without classes where it has another number of units than there are names.

        The names are those of the classes of one output, and the file does not say of which.
        """
        if len(self.class_names) == units:
            return self
        return Card.model_validate(self.model_dump() | {"class_names": (), "background": None, "peaks": {}})


def card(model: "keras.Model") -> Card:
    """What travels with `model`; an empty card where it has none."""
    return getattr(model, "_zoo_card", Card())


def attach(model: "keras.Model", card: Card) -> "keras.Model":
    """Give `model` its card, and return it."""
    model._zoo_card = card
    return model
