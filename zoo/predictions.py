"""One answer for each image file, whatever computes it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.card import Card
from zoo.engines.engine import check_scores
from zoo.errors import InputError
from zoo.network.scannable import Scannable
from zoo.pictures import Choice, fit_image
from zoo.scanning.model_scale import read_at_model_scale
from zoo.scanning.options import check_pixel_size
from zoo.scanning.pixels import Pixels
from zoo.scores import Outputs, to_probabilities


@dataclass(frozen=True)
class Answer:
    """The scores (K,) of one image file, what they are, and what had to be done to the image first.

    `pixels`: the image as the model took it, (H, W, C).
    """

    path: Path
    scores: np.ndarray
    outputs: Outputs
    note: str
    pixels: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """The probabilities (K,), which sum to 1, unless each is a sigmoid by itself.

        That of a single output is the probability of class 1. A counter has none.
        """
        return to_probabilities(self.scores, self.outputs)


def answers_to(
    network: Scannable,
    run: Callable[[np.ndarray], np.ndarray],
    paths: Sequence[Path],
    choice: Choice = Choice(),  # noqa: B008 - frozen
    pixel_size: float | None = None,
) -> Iterator[Answer]:
    """Classify image files, or count in them, one after another; those of another size are cropped or padded.

    Before that they are brought to the scale at which the model was trained, as its card says. Rows and columns are cut
    off or added about the centre, as the card's `fill` says. A model with one answer for an image of any size takes
    every image whole.

    Args:
        network: the model.
        run: gives its scores for a batch of images.
        paths: the files.
        choice: which image of a file with several.
        pixel_size: that of the images in micrometres, where it is stated.

    Raises:
        InputError: for a file that cannot be read, or whose samples are of another type than those that the model was
            trained on; a converted model, which gives a map instead of an answer; what is no classifier of images; or
            scores that are not finite.
    """
    network.check_one_output()
    outputs, known = network.outputs_are[0], network.card
    if network.gives_map:
        raise InputError(
            f"model {network.name!r}: gives a score map; `zoo scan` takes it, `predict` takes a classifier"
        )
    if network.units() == 1 and outputs == "logits":
        raise InputError(f"model {network.name!r}: has a single output; accepted: one a class, or a single sigmoid")
    size = None if known.pooling == "global" else network.training_size
    if pixel_size is not None:
        pixel_size = check_pixel_size(pixel_size)
    for path in paths:
        image, notes = read_at_model_scale(network, path, choice, pixel_size)
        if size is not None and image.shape[:2] != size:
            notes += (f"{image.shape[0]} x {image.shape[1]} pixels, cropped or padded to {size[0]} x {size[1]}",)
            image = _fitted(image, (size[0], size[1]), known)
        if size is None:
            _check_fit(network, image, path)
        scores = check_scores(run(image[None]), f"image {path}", network)
        yield Answer(Path(path), scores.reshape(-1), outputs, "; ".join(notes), image)


def _fitted(image: np.ndarray, size: tuple[int, int], known: Card) -> np.ndarray:
    """An image cropped or padded to a size about its centre, with what training put beyond a border."""
    fill = known.filling
    if fill == "reflect":
        missing = [max(side - now, 0) for side, now in zip(size, image.shape, strict=False)]
        added = [(each // 2, each - each // 2) for each in missing]
        image = Pixels(image).extended_by((added[0], added[1]))[:, :]
        fill = (0.0,)  # of which nothing is left to add
    return fit_image(image, size, fill=fill)


def _check_fit(network: Scannable, image: np.ndarray, path: Path) -> None:
    """Check that every layer of a model that leaves the size open takes the image."""
    try:
        network.check_takes(image.shape[:2])
    except InputError as error:
        raise InputError(f"image {path}: {error}") from None
