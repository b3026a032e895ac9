"""Models on large images: scanned, asked about boxes, and about what one cell looks at.

What scans takes a network and an engine; here they are made of a model, or of an exported file. Keras is imported for
Keras models alone.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.engines.engine import EngineName, Precision
from zoo.errors import InputError, quoted, refuse, unknown
from zoo.exported.network import ExportedNetwork, exported_files, has_engine
from zoo.pictures import Choice
from zoo.scanning.boxes import Boxes, BoxScores
from zoo.scanning.density import OF_DENSITY
from zoo.scanning.influence import Influence
from zoo.scanning.measurement import measure
from zoo.scanning.merging import Merge
from zoo.scanning.options import BorderRule, Options, check_pixel_size
from zoo.scanning.pixels import Pixels
from zoo.scanning.regions import WAYS, BoxScorer, ByCells, ByCrops, ByDensity, ByRegions, Way, score
from zoo.scanning.scan import Scanner
from zoo.scanning.score_map import ScoreMap
from zoo.settings import own_settings

if TYPE_CHECKING:
    import keras

    from zoo.network.network import Network


@own_settings()
def scan(
    fcn: "keras.Model | ExportedNetwork",
    image: np.ndarray | str | Path | Pixels,
    tile: int | None = None,
    memory: int | str | None = None,
    stride: int | tuple[int, int] | None = None,
    scales: Sequence[float] | None = None,
    merge: Merge | None = None,
    border: BorderRule | None = None,
    mask: np.ndarray | str | Path | None = None,
    output: str | Path | None = None,
    engine: EngineName | None = None,
    precision: Precision | None = None,
    progress: bool = False,
    choice: Choice = Choice(),  # noqa: B008 - frozen
    overwrite: bool = False,
    output_name: str | None = None,
    pixel_size: float | None = None,
) -> ScoreMap:
    """Slide a model over a large image in one pass: (H, W, C) -> scores (rows, cols, classes).

    Pixels and scores are float32, or float64 for a model that computes in it. An image is brought to the scale at which
    the model was trained, as its card says (see `zoo.card.Card`); all places are in pixels of the given image.

    Args:
        fcn: a converted model; a classifier is converted first. Or the export of a converted model, as
            `zoo.exported.network.ExportedNetwork.at` reads it.
        image: an array (H, W) or (H, W, C), anything with a shape that is read by slices, or a file. Values are those
            that the model was trained on: raw pixels, of the same type or as floats.
        tile: side in pixels of the region that one tile answers for; what its cells see beyond it comes on top. The
            scores do not depend on it. Default: the largest that the memory allows, up to 2,048.
        memory: what the process may hold at its peak, in bytes or as "2GiB"; instead of `tile`. Default: a tile may
            take 1 GiB on top of what the process holds.
        stride: pixels between neighbouring cells, any divisor of the model's stride, or one for rows and one for
            columns; 1 gives a cell at every pixel (see `zoo.network.finer`). Default: the model's own.
        scales: scan the image at each of these scales, such as [0.7, 1, 1.4], which finds things of other sizes, and
            merge the maps on the grid of the image itself. At scale s a cell looks at a window of 1/s times the
            model's; a scale counts for the cells of which one lies in the image, to half a stride of its grid, and
            cells that no scale counts for are not scanned (see `zoo.scanning.scales`). They come on top of the model's.
            A counter takes none.
        merge: with `scales`, how the scores of a cell at several of them become one: a way of `zoo.answer`. The scores
            are probabilities then where its name says so, and logits else. Default: "average-probabilities".
        border: what becomes of pixels that no window covers: "none" leaves the grid as it is, "reflect" mirrors the
            image, "shift" adds a last row and column of windows flush with the border, "full" extends the image so
            that windows lie all around every pixel (see `zoo.scanning.grid.Grid.of`). Default: "none"; of a counter
            "full", with which the counts are right (see `zoo.scanning.density`).
        mask: a region of interest, (H, W), true inside, or an image file. A cell is scanned where any pixel of its
            window is inside (with `scales`: of its `ScoreMap.cell_box`). Tiles without such a cell are skipped; the
            scores of cells that were not scanned are NaN, and `ScoreMap.scanned` says which those are.
        output: a new `.npy` file or `.zarr` folder (chunks are tiles) for the scores, which are then read from there.
            A scan that was stopped goes on where it was when it is called again.
        engine: "keras", which is the default, or "openvino", which has an extra of its own (see
            `zoo.engines.factory.make_engine`). An exported file has its own runtime alone.
        precision: what OpenVINO computes in: "float32", or "bfloat16" where the processor has it.
        progress: show a bar over the tiles, on a terminal.
        choice: which image of a file with several, such as `zoo.Choice(series=1, level=2)`; an array is a single one.
        overwrite: with `output`, replace what is there, where that is not the same scan's; never the image or the mask.
        output_name: which output of a model with several gives the scores.
        pixel_size: that of the image in micrometres, where its file states none, or a wrong one.

    Warns:
        UserWarning: what the reader has to say of the image and the mask, such as which of several images was read, or
            at which scale an image without a pixel size was taken.

    Raises:
        InputError: for an image of other channels or samples than the model's images, with values that are not finite,
            too small for one window, or without the pixel size that the model needs; a pixel size for a model that
            knows none. For a tile smaller than the stride, or tiles of a model whose cells depend on the whole image;
            a stride that is no divisor, or none for this engine; a scale that is no number above 0, or at which the
            image is too small or too large; a mask or scales that leave no cell to scan. For `tile` beside `memory`,
            `merge` without `scales`, `overwrite` without `output`, or a `choice` that the image does not offer. For an
            engine or precision that is not there; memory that does not suffice; an output that is the image or the
            mask, or holds something else than the same scan; scores that are not finite; a model with several outputs
            of which none is named, or none of that name; or one that gives no map but one answer for an image of any
            size.
        Interrupted: after Ctrl-C, where there is an output.
        OSError: where the output cannot be written; what is there is kept.
    """
    options = Options(tile, memory, stride, scales, merge, border, engine, precision, choice, output_name, pixel_size)
    score_map = scanner_of(fcn, options, progress)(image, mask, output, overwrite)
    for note in score_map.notes:
        warnings.warn(f"{image if isinstance(image, str | Path) else 'image'} {note}", stacklevel=3)
    return score_map


@own_settings()
def scanner_of(
    model: "keras.Model | Network | ExportedNetwork",
    options: Options = Options(),  # noqa: B008 - frozen
    progress: bool = False,
) -> Scanner:
    """What scans images by a model, each as `scan` does.

    Raises:
        InputError: for a model that cannot be converted, or whose output is not named where it has several; for an
            exported file that gives no map.
    """
    if isinstance(model, ExportedNetwork):
        exported = model.output(options.output_name)
        exported.check_scannable()
        options = replace(options, engine=exported.check_engine(options.engine, options.precision))
        return Scanner(exported, exported.engine, options, progress)
    from zoo.engines.factory import make_engine

    network = _converted(model, options.output_name)
    return Scanner(
        network, partial(make_engine, network, options.engine or "keras", options.precision), options, progress
    )


def scanner_at(file: str | Path, options: Options, progress: bool = False) -> Scanner:
    """What scans images by the model in a file: a Keras model's, or an exported one.

    Raises:
        InputError: where there is no model there; see `scanner_of`.
    """
    return scanner_of(model_at(file), options, progress)


def model_at(file: str | Path) -> "keras.Model | ExportedNetwork":
    """The model in a file: a Keras model, or what an exported file is to a scan.

    Raises:
        InputError: where there is none.
    """
    if has_engine(file):
        return ExportedNetwork.at(file)
    from zoo import model_files

    return model_files.load(file)


def files_at(file: Path) -> list[Path]:
    """The files that the model in a file, or a run directory, is read from."""
    if has_engine(file):
        return exported_files(file)
    from zoo import model_files

    return model_files.files_of(file)


def _converted(model: "keras.Model | Network", output_name: str | None) -> "Network":
    from zoo.convert.conversion import convert
    from zoo.network.network import Network

    return convert(Network.of(model).output(output_name)).network


@own_settings()
def score_boxes(
    model: "keras.Model",
    image: np.ndarray | str | Path,
    boxes: Sequence | Boxes,
    way: Way | None = None,
    progress: bool = False,
    output_name: str | None = None,
    pixel_size: float | None = None,
) -> BoxScores:
    """Score boxes in an image, which share what they can.

    Args:
        model: a classifier with its head.
        image: (H, W) or (H, W, C) raw pixels, or a file.
        boxes: (n, 4) in pixels of the image, (top, left, bottom, right), half-open, or those of
            `zoo.scanning.boxes.read_boxes`; each overlaps the image. Of one that reaches beyond it, the part inside is
            scored.
        way: "roi": the body runs once, and each box's part of its map is pooled and given to the head; boxes of any
            size. "cells": the score map is scanned once, and each box has the scores of the cell whose window is
            centred nearest. "crops": the model itself runs on the window of its training size that is centred at each
            box, moved into the image where it would end beyond it.
            Default: "roi"; of a counter "cells", and it is no other: the sum of the density over the box, an estimate
            (see `zoo.scanning.density.counts_in`).
        progress: show a bar, on a terminal.
        output_name: which output of a model with several gives the scores.
        pixel_size: that of the image in micrometres; see `scan`.

    Warns:
        UserWarning: where the model pads its maps, so that the answers of the ways differ; where an image without a
            pixel size was taken at the scale of the model's training.

    Raises:
        InputError: for another way, bad boxes or images, scores that are not finite, or a model that cannot be split
            (see `zoo.engines.regions.Regions`).
    """
    scored = box_scores(model, image, boxes, way, progress, output_name, pixel_size)
    for note in scored.notes:
        warnings.warn(note, stacklevel=3)
    return scored


@own_settings()
def box_scores(
    model: "keras.Model",
    image: np.ndarray | str | Path | Pixels,
    boxes: Sequence | Boxes,
    way: Way | None = None,
    progress: bool = False,
    output_name: str | None = None,
    pixel_size: float | None = None,
) -> BoxScores:
    """`score_boxes`, whose result holds the warnings.

    Raises:
        InputError: see `score_boxes`.
    """
    from zoo.convert.conversion import channels_last
    from zoo.engines.regions import Regions, training_size
    from zoo.network.network import Network

    if way is not None and way not in WAYS:
        raise InputError(unknown("way", way, WAYS))
    network = Network.of(model).output(output_name)
    network.check_one_image()
    counts = network.outputs_are[0] == "counts"
    if counts and way not in (None, "cells"):
        refuse("way", quoted(way), "'cells' for a model that counts, of which the density is summed over each box")
    if network.axes.channels_first:
        network = channels_last(network)
    scorer: BoxScorer
    if counts or way == "cells":
        scanner = scanner_of(network, progress=progress)
        scorer, padding = (ByDensity if counts else ByCells)(scanner), scanner.network.program.padding
    elif way in (None, "roi"):
        regions = Regions(network)
        scorer, padding = ByRegions(regions, progress), regions.padding
    else:
        run = partial(_on_crops, network.model)
        scorer, padding = ByCrops(network, run, training_size(network), progress), ()
    if pixel_size is not None:
        pixel_size = check_pixel_size(pixel_size)
    scored = score(network, image, boxes, scorer, pixel_size)
    notes = (*scored.notes, *([OF_DENSITY] if counts else [_of_padding(padding)] if padding else []))
    return replace(scored, notes=notes)


def _on_crops(model: "keras.Model", crops: np.ndarray) -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(model(crops, training=False))


def _of_padding(layers: Sequence[str]) -> str:
    """What to know of answers about parts of a padded model's map."""
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return (
        f"this model pads its maps (layer {layers[0]!r}{more}): a box's answer depends on the pixels around it, "
        "where its crop has padding, so the two may differ; the way 'crops' asks the crop, and a model trained "
        "with padding: valid gives one answer"
    )


@own_settings()
def influence(
    fcn: "keras.Model",
    image: np.ndarray | str | Path | Pixels,
    cell: tuple[int, int],
    class_index: int | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> Influence:
    """Measure how much each pixel of an image matters to one cell of its score map.

    That is the absolute gradient of the class's score, before a softmax or sigmoid at the end of the model, with
    respect to the pixel, summed over the channels. Only the part of the image that the cell can depend on is run.
    Where a border mirrors the image, a pixel's gradient is the sum of its copies'; a border of constant values has
    none. Where the image is scaled, for the model or with scales, it is the gradient through the resizing, of the
    merged score; of merged probabilities up to a factor.

    Args:
        fcn: a converted model; a classifier is converted first.
        image: an array (H, W) or (H, W, C), anything with a shape that is read by slices, or a file. Scales of a
            pyramid are made of the level that is read.
        cell: row and column in the grid of `scan`.
        class_index: the class whose score it is; default: the cell's winner.
        options: stride, border, scales, merge, choice, output_name and pixel_size of the scan whose grid it is; the
            rest counts for nothing here.

    Raises:
        InputError: where the image does not suit the model, the grid has no such cell, the model gives no map, or the
            backend has no gradients.
    """
    from zoo.engines.gradients import PixelGradients, check_backend

    check_backend()
    network = _converted(fcn, options.output_name)
    return measure(network, PixelGradients(network, options.stride), image, cell, class_index, options)
