"""The form in which a model takes its images."""

from dataclasses import dataclass

import numpy as np

from zoo.card import Target
from zoo.config import Config
from zoo.pictures import fit_image


@dataclass(frozen=True)
class ImageForm:
    """What images are brought to before a model sees them.

    `size`: height and width. `channels`: 1 or 3 as a rule. `fill`: the value of added pixels, one or one a channel.
    `resize`: images of another size are scaled, instead of cropped or padded. `target`: what the model gives for them,
    see `zoo.config.recipe.TrainConfig`.
    """

    size: tuple[int, int]
    channels: int
    fill: tuple[float, ...] = (0.0,)
    resize: bool = False
    target: Target = "class"

    @classmethod
    def of(cls, config: Config) -> "ImageForm":
        """The form of an experiment's model and data."""
        model = config.model
        return cls(model.training_size, model.channels, model.preprocess.mean, config.data.resize, config.train.target)

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Bring an image to the size: (H, W, C) -> (h, w, C); see `fit_image`."""
        return fit_image(image, self.size, self.resize, self.fill)
