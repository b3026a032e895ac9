"""RoI pooling: parts of a feature map of any size, pooled to one size (Girshick 2015, "Fast R-CNN", section 2.1)."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
from keras import layers, ops

from zoo.errors import chosen, refuse
from zoo.network.positions import pair

# How the cells of a bin become one.
Reduction = Literal["max", "average"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


def roi_pool(maps: Any, regions: Any, size: tuple[int, int], pool: Reduction = "max") -> Any:
    """Pool regions of feature maps to one size: (B, H, W, C) and (B, N, 4) -> (B, N, h, w, C).

    A region is (top, left, bottom, right), half-open, in whole cells; what lies beyond the map is cut off. Of its n
    rows, bin i of h holds those from floor(i n / h) to ceil((i + 1) n / h), columns alike, as in Caffe's RoIPooling: a
    bin is never empty, and where n < h neighbours share rows. With n = h the region is handed on as it is.
    Gradients flow to the maps.
    """
    height, width = ops.shape(maps)[1:3]
    rows, row_weights = _bins(regions[..., 0], regions[..., 2], height, size[0], maps.dtype)
    columns, column_weights = _bins(regions[..., 1], regions[..., 3], width, size[1], maps.dtype)
    images = ops.reshape(ops.arange(ops.shape(maps)[0], dtype="int32"), (-1, 1, 1, 1, 1, 1))
    where = (images * height + rows[..., None, None]) * width + columns[:, :, None, None]
    taken = ops.take(ops.reshape(maps, (-1, maps.shape[-1])), where, axis=0)  # (B, N, h, rows, w, columns, C)
    if pool == "max":
        return ops.max(taken, axis=(3, 5))
    weights = row_weights[..., None, None, None] * column_weights[:, :, None, None, :, :, None]
    return ops.sum(taken * weights, axis=(3, 5))


def _bins(first: Any, last: Any, side: int, count: int, dtype: Any) -> tuple[Any, Any]:
    """The cells of each bin along one axis, and what each weighs in a mean: (B, N) -> (B, N, bins, cells) twice.

    Shorter bins repeat their last cell, with weight 0.
    """
    first = ops.clip(ops.cast(first, "int32"), 0, side - 1)[..., None]
    last = ops.clip(ops.cast(last, "int32")[..., None], first + 1, side)
    index = ops.arange(count, dtype="int32")
    starts = first + ops.floor_divide(index * (last - first), count)
    ends = first - ops.floor_divide(-(index + 1) * (last - first), count)
    lengths = ends - starts
    step = ops.arange(_longest(lengths, side, count), dtype="int32")
    cells = ops.minimum(starts[..., None] + step, ends[..., None] - 1)
    inside = step < lengths[..., None]
    return cells, ops.cast(inside, dtype) / ops.cast(lengths[..., None], dtype)


def _longest(lengths: Any, side: int, count: int) -> Any:
    """Cells of the longest bin; while JAX compiles, when no number is known yet, those of the whole map's bins."""
    try:
        return int(ops.max(lengths))
    except TypeError:
        return -(-side // count) + 1 if keras.backend.backend() == "jax" else ops.max(lengths)


@keras.saving.register_keras_serializable("zoo")
class RoIPooling(layers.Layer):
    """Regions of feature maps, pooled to one size: [(B, H, W, C), (B, N, 4)] -> (B, N, h, w, C).

    With `levels` instead of `size`, a spatial pyramid (He et al. 2014, section 2.2): the region is pooled to level x
    level bins for each level, to (B, N, sum of level * level, C). Regions and bins are those of `roi_pool`; the regions
    of pixel boxes are `Regions.cells`. A head is trained through this layer as through any other.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        levels: Sequence[int] | None = None,
        pool: Reduction = "max",
        **kwargs: Any,
    ):
        """Take either the `size` (h, w) or the `levels` of the output, and how to pool.

        Raises:
            InputError: for both or neither, sides below 1, or another kind of pooling.
        """
        super().__init__(**kwargs)
        sides = tuple(size or ()) + tuple(levels or ())
        if (size is None) == (levels is None) or not sides or min(sides) < 1 or (size and len(size) != 2):
            refuse("RoIPooling", f"size={size}, levels={levels}", "size=(height, width) or levels=(4, 2, 1)")
        self.size = None if size is None else pair(size)
        self.levels = None if levels is None else tuple(levels)
        # Rows and columns of bins, of the one size or of every level.
        self._bins = tuple((level, level) for level in levels or ()) if size is None else (pair(size),)
        self.pool = chosen("pool", pool, REDUCTIONS)

    def call(self, inputs: Sequence[Any]) -> Any:
        """Pool: [(B, H, W, C), (B, N, 4)] -> (B, N, h, w, C), or (B, N, bins, C) with levels."""
        maps, regions = inputs
        pooled = [roi_pool(maps, regions, bins, self.pool) for bins in self._bins]
        if self.levels is None:
            return pooled[0]
        shape = ops.shape(regions)
        flat = [
            ops.reshape(made, (shape[0], shape[1], rows * columns, maps.shape[-1]))
            for (rows, columns), made in zip(self._bins, pooled, strict=True)
        ]
        return ops.concatenate(flat, axis=2)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """The shape of what `call` gives."""
        maps, regions = input_shape
        bins = self.size or (sum(rows * columns for rows, columns in self._bins),)
        return (maps[0], regions[1], *bins, maps[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer anew."""
        return {**super().get_config(), "size": self.size, "levels": self.levels, "pool": self.pool}
