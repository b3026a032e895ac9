"""Images to measure trust in a conversion on: a user's own, or what the run of the model was tested on."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zoo import data
from zoo.config import load_config
from zoo.convert.cells import MOST_IMAGES, NamedImage, fits
from zoo.errors import InputError, refuse
from zoo.network.network import Network
from zoo.pictures import Choice
from zoo.progress import note
from zoo.scanning.model_scale import at_model_scale
from zoo.scanning.pixels import open_pixels

# The canvas of a run, by its name and that of version 1.
_CANVASES = ("canvas_input.png", "scene_input.png")
# Test images that are put side by side, along each axis, and how many of them a set may have to be read for that: where
# they are files, each is read.
_SIDE, _MOST, _MOST_FILES = 6, 10_000, 1_000


@contextmanager
def opened(
    network: Network,
    files: Sequence[Path],
    run: Path | None = None,
    choice: Choice = Choice(),  # noqa: B008 - frozen
    pixel_size: float | None = None,
) -> Iterator[list[NamedImage] | None]:
    """Images for a converted network, at its scale, with their names; None where there are none of this kind.

    Args:
        network: a converted one.
        files: a user's images.
        run: where there are none, the run directory whose canvas and test images are taken, as far as its data are at
            hand and read quickly.
        choice: which image of a file with several.
        pixel_size: that of the user's images in micrometres, where it is stated.

    Raises:
        InputError: where a file cannot be read, or does not fit the network, or states no pixel size where one is
            needed.
    """
    if len(files) > MOST_IMAGES:
        refuse("--image", f"{len(files)} images", f"at most {MOST_IMAGES}")
    with ExitStack() as open_files:
        if files:
            given = [open_files.enter_context(open_pixels(network, file, choice)) for file in files]
            images = [open_files.enter_context(at_model_scale(network.card, each, pixel_size)) for each in given]
            yield [(file.name, image) for file, image in zip(files, images, strict=True)]
            for file, image in zip(files, images, strict=True):
                for each in image.notes:
                    note(f"note: {file} {each}")
            return
        of_run: list[NamedImage] = []
        if run is not None and run.is_dir() and network.axes.count == 2:
            canvases = [run / name for name in _CANVASES if (run / name).is_file()]
            of_run = [(file.name, open_files.enter_context(open_pixels(network, file))) for file in canvases[:1]]
            of_run += _side_by_side(run)
        of_run = [(name, image) for name, image in of_run if fits(network, image)]
        yield of_run or None


def _side_by_side(run: Path) -> list[NamedImage]:
    """Test images of a run's data set as one image, in a list; an empty one where they are not read quickly."""
    try:
        config = load_config(run / "config.yaml")
        count = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["n"]
        most = _MOST_FILES if "unreadable" in config.data.source.keys else _MOST
        if count > most or not data.is_at_hand(config.data):
            return []
        images = data.load(config).test.images
    except (InputError, OSError, ValueError, KeyError):
        return []  # a run that is not finished, or was moved here without its data
    side = min(int(len(images) ** 0.5), _SIDE)
    return [(f"{side**2} test images side by side", side_by_side(images, config.seed))]


def side_by_side(images: Any, seed: int) -> np.ndarray:
    """Some of the images (n, H, W, C), drawn by a seed, as one image: as many along each axis, at most six."""
    side = min(int(len(images) ** 0.5), _SIDE)
    pixels = np.asarray(images[np.random.default_rng(seed).choice(len(images), side**2, replace=False)])
    rows = pixels.reshape(side, side, *pixels.shape[1:]).swapaxes(1, 2)
    return rows.reshape(side * pixels.shape[1], side * pixels.shape[2], pixels.shape[3])
