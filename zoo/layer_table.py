"""The per-layer table of any Keras model: shapes, parameters, multiply-adds, receptive field, total stride."""

import csv
import io
import json
import math
import operator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import keras

from zoo.errors import InputError, refuse, unknown
from zoo.layer_counts import kernels_of, sides_of, total
from zoo.network.graph import Shape, Step
from zoo.network.network import Network
from zoo.network.positions import Span
from zoo.network.scannable import check_size
from zoo.settings import keras_defaults

Format = Literal["table", "markdown", "csv", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_HEADINGS = ("layer", "type", "output", "kernel", "params", "MACs", "field", "stride")
# Keras's own shorter names, so that a row fits a line of 100 characters.
_SHORTER = {"Normalization": "Norm", "GlobalAverage": "GlobalAvg", "Pooling": "Pool"}


@dataclass(frozen=True)
class Row:
    """One call of one layer.

    `output_shape`: without the batch, None where open. `kernel`: the shape of the weights that slide, as
    "7x7x8x16" (rows x columns x channels in x filters; "7x7x8" for a depthwise one, both for a separable one), or a
    pooling's window. `params`: weights that no row above holds, so that a shared layer counts once. `macs`:
    multiply-adds of one image, None where the image's size is open or the layer is none that can be counted.
    `receptive_field`: sides in pixels, infinite after a global pooling, None where not known. `stride`: pixels between
    neighbouring positions, None where there are no positions, or it is not known. `pointwise_params` and
    `pointwise_macs`: how much of both is a 1x1 convolution.
    """

    name: str
    type: str
    output_shape: Shape
    kernel: str
    params: int
    macs: int | None
    receptive_field: tuple[float, ...] | None
    stride: tuple[int, ...] | None
    pointwise_params: int
    pointwise_macs: int | None

    @property
    def is_vector_dense(self) -> bool:
        """Whether this is a Dense layer on a vector, as in a head, not at every position of a map."""
        return self.type == "Dense" and len(self.output_shape) == 1

    def cells(self) -> tuple[str, ...]:
        """The columns as text, with whole numbers."""
        numbers = (str(self.params), "-" if self.macs is None else str(self.macs))
        return (self.name, self.type, _by(self.output_shape), self.kernel, *numbers, self.field_text, self.stride_text)

    @property
    def field_text(self) -> str:
        """The receptive field as text: one number where its sides are equal; "all", or "?" where not known."""
        return "?" if self.receptive_field is None else _sides(self.receptive_field)

    @property
    def stride_text(self) -> str:
        """The total stride as text; "-" where there are no positions, "?" where not known."""
        return "?" if self.receptive_field is None else _sides(self.stride or ())


@dataclass(frozen=True)
class Description:
    """What `describe` finds out.

    `image_size`: of the image that shapes and multiply-adds belong to, None where it is open. `smallest_image`: the
    least (height, width) at which every layer's window fits, both equal; of a model that flattens its map the size it
    was built for; None where it is not known. `last_map`: the row of the feature map that the head begins with, of
    several heads the last one, or of the output where there is no head. `outputs`: the names of the outputs, and how
    many numbers each gives, None where that is open.
    """

    name: str
    image_size: tuple[int, ...] | None
    rows: tuple[Row, ...]
    params: int
    trainable_params: int
    smallest_image: tuple[int, ...] | None
    last_map: Row | None
    outputs: dict[str, int | None]

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one image in convolutions and Dense layers; None where those of any layer are not known."""
        return total(row.macs for row in self.rows)

    @property
    def pointwise_params_share(self) -> float:
        """The share of all parameters that is in 1x1 convolutions, biases included."""
        return sum(row.pointwise_params for row in self.rows) / max(self.params, 1)

    @property
    def pointwise_macs_share(self) -> float | None:
        """The share of the multiply-adds that is in 1x1 convolutions."""
        pointwise = total(row.pointwise_macs for row in self.rows)
        return None if self.macs is None or pointwise is None else pointwise / max(self.macs, 1)

    @property
    def _is_open(self) -> bool:
        return any(None in row.output_shape for row in self.rows)

    def format(self, how: Format = "table", width: int = 100) -> str:
        """The description as text: a "table" of `width` columns, "markdown", "csv" (rows alone), or "json".

        Numbers are exact in csv and json. In json a side of a receptive field is a number or "all", and null stands
        for what is not known.
        """
        writers = {
            "table": lambda: f"{self._table(width)}\n{self.summary()}",
            "markdown": lambda: f"{_markdown(self._texts())}\n{self.summary(separator='  ')}",
            "csv": self._csv,
            "json": lambda: json.dumps(self.to_dict(), indent=2),
        }
        if how not in writers:
            raise InputError(unknown("format", how, FORMATS))
        return writers[how]().rstrip("\n") + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Totals and rows as JSON holds them."""
        shares = ("pointwise_params_share", "pointwise_macs_share")
        totals = ("name", "image_size", "params", "trainable_params", "macs", *shares, "smallest_image")
        about = {name: getattr(self, name) for name in totals}
        about["outputs"] = self.outputs
        about["last_map"] = None if self.last_map is None else self.last_map.name
        return about | {"rows": [_row_dict(row) for row in self.rows]}

    def summary(self, separator: str = "") -> str:
        """The totals and the share of the 1x1 convolutions, for people to read; `separator` ends each line."""
        size = ", open image size" if self._is_open else f", {_by(self.image_size)}" if self.image_size else ""
        lines = [f"{self.name}{size}: {self.params:,} parameters ({self.trainable_params:,} trainable)"]
        lines.append(f"multiply-adds (MACs): {self._macs_text()}")
        if len(self.outputs) > 1:
            lines.append("outputs: " + ", ".join(f"{name} ({units})" for name, units in self.outputs.items()))
        if self.last_map is not None:
            row = self.last_map
            reach = f"receptive field {row.field_text}, stride {row.stride_text}"
            lines.append(f"last feature map: {row.name}, {_by(row.output_shape)}, {reach}")
        least = "not known" if self.smallest_image is None else _by(self.smallest_image)
        lines.append(f"smallest image that the layers fit: {least}{self._one_stride()}")
        lines += self._shares()
        return f"{separator}\n".join(lines) + "\n"

    def _one_stride(self) -> str:
        """What a padded net needs for a map of more than its own padding, where that is more than its layers fit."""
        stride = self.last_map.stride if self.last_map is not None else None
        if not stride or not self.smallest_image or all(map(operator.ge, self.smallest_image, stride)):
            return ""
        return f"; one total stride, the least that zoo.build takes: {_by(stride)}"

    def _macs_text(self) -> str:
        if self.macs is not None:
            return f"{self.macs:,} ({_short(self.macs)})"
        if self._is_open:
            return "not known, the image size is open; give one"
        return "not known: " + ", ".join(f"{row.name} ({row.type})" for row in self.rows if row.macs is None)

    def _shares(self) -> list[str]:
        heads = [row for row in self.rows if row.is_vector_dense]
        shares = (self.pointwise_params_share, self.pointwise_macs_share)
        parts = [("1x1 convolutions (and Dense at every pixel)", *shares)]
        if heads:
            params = sum(row.params for row in heads) / max(self.params, 1)
            of_heads = total(row.macs for row in heads)
            macs = None if self.macs is None or of_heads is None else of_heads / max(self.macs, 1)
            parts.append(("Dense layers on vectors, counted apart", params, macs))
        return [
            f"{what}: {params:.1%} of the parameters" + ("" if macs is None else f", {macs:.1%} of the multiply-adds")
            for what, params, macs in parts
        ]

    def _texts(self) -> list[tuple[str, ...]]:
        """The rows for people to read."""
        rows: list[tuple[str, ...]] = []
        for row in self.rows:
            name, kind, output, kernel = row.cells()[:4]
            for long, short in _SHORTER.items():
                kind = kind.replace(long, short)
            macs = "-" if row.macs is None else _short(row.macs)
            rows.append((name, kind, output, kernel, f"{row.params:,}", macs, row.field_text, row.stride_text))
        return rows

    def _table(self, width: int) -> str:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
        for index, heading in enumerate(_HEADINGS):
            fixed = index not in (0, 1, 3)
            table.add_column(heading, justify="right" if index >= 4 else "left", no_wrap=fixed, overflow="fold")
        for row in self._texts():
            table.add_row(*row)
        text = io.StringIO()
        Console(file=text, width=width, markup=False, highlight=False, emoji=False).print(table)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("name", "type", "output_shape", "kernel", "params", "macs", "receptive_field", "stride"))
        writer.writerows(row.cells() for row in self.rows)
        return text.getvalue()


@keras_defaults()
def describe(model: keras.Model, image_size: tuple[int, ...] | None = None) -> Description:
    """Describe every layer of a Functional or Sequential model, whoever built it; nested models are laid open.

    Multiply-adds are one for each multiply of a convolution or Dense layer, with those by the zeros of a padding; a
    layer that is called twice counts twice, its parameters once. Biases, normalisations and activations have none.

    Args:
        model: the model. It is not changed.
        image_size: (height, width) to count at. Default: the size the model was built for, or where its input leaves
            it open the size it was trained at, of a padding-free twin its window; where that is not known either,
            multiply-adds are None.

    Raises:
        InputError: for a subclassed model, or an `image_size` that a layer does not take.
    """
    network = Network.of(model)
    graph, count = network.graph, network.axes.count
    size = network.own_size if image_size is None else _checked_size(network, image_size)
    shapes = network.shapes(size if count else None)
    one_image = len(graph.inputs) == 1 and count > 0
    reaches = network.spans(size) if one_image else {}
    seen: set[int] = set()
    rows: dict[int, Row] = {}
    for step in graph.steps:
        row = _row(step, shapes, reaches.get(step.outputs[0]) if count else (), seen)
        rows |= dict.fromkeys(step.outputs, row)
    collapses = network.head.collapses
    made = [key for step in graph.steps for key in step.outputs]
    heads = [graph.steps[index].inputs[0] for index in collapses]
    last = max(heads, key=lambda key: made.index(key) if key in made else -1) if heads else graph.outputs[0]
    return Description(
        name=model.name,
        image_size=tuple(size) if size else None,
        rows=tuple(rows[step.outputs[0]] for step in graph.steps),
        params=sum(math.prod(weight.shape) for weight in model.weights),
        trainable_params=sum(math.prod(weight.shape) for weight in model.trainable_weights),
        smallest_image=network.smallest_image if one_image else None,
        last_map=rows.get(last) if one_image else None,
        outputs={
            name: _numbers(network, shapes[key]) for name, key in zip(network.output_names, graph.outputs, strict=True)
        },
    )


def _numbers(network: Network, shape: Shape) -> int | None:
    """How many numbers an output of a shape without the batch gives, for an image or at a cell."""
    if not shape:
        return 1
    return shape[network.axes.channel - 1 if len(shape) + 1 == network.axes.rank else -1]


def _row(step: Step, shapes: dict[int, Shape], reach: tuple[Span, ...] | None, seen: set[int]) -> Row:
    """The row of a step; `seen` holds the weights of the rows above, by identity."""
    layer, made = step.layer, shapes[step.outputs[0]]
    fresh = {id(weight): math.prod(weight.shape) for weight in getattr(layer, "weights", ())}
    params = sum(count for key, count in fresh.items() if key not in seen)
    seen.update(fresh)
    parts = kernels_of(layer, shapes[step.inputs[0]] if step.inputs else (), made)
    spatial = [part for part in parts or () if not part.pointwise]
    pointwise = [part for part in parts or () if part.pointwise]
    strides = tuple(span.stride for span in reach or ())
    return Row(
        name=step.path,
        type=type(layer).__name__,
        output_shape=made,
        kernel=" + ".join(_by(sides_of(part, layer)) for part in parts) if parts else _window_text(layer),
        params=params,
        macs=None if parts is None else total(part.macs for part in parts),
        receptive_field=None if reach is None else tuple(span.extent for span in reach),
        stride=strides if strides and 0 not in strides else None,
        pointwise_params=params - sum(part.weights for part in spatial) if pointwise and params else 0,
        pointwise_macs=total(part.macs for part in pointwise),
    )


def _window_text(layer: keras.Operation) -> str:
    window = getattr(layer, "pool_size", ())
    return _by((window,) if isinstance(window, int) else tuple(window)) if window else ""


def _checked_size(network: Network, image_size: tuple[int, ...]) -> tuple[int, ...]:
    if len(network.graph.inputs) != 1 or not network.axes.count:
        refuse("image_size", f"{image_size}", f"none, for model {network.name!r} takes no single image")
    size = check_size(image_size, network.axes.count)
    flattens = any(map(network.is_flattened, network.head.collapses))
    if flattens and network.built_size not in (None, size):
        refuse("image_size", f"{size}", f"{network.built_size}, for this model flattens its map")
    return size


def _row_dict(row: Row) -> dict[str, Any]:
    field = row.receptive_field
    sides = field and ["all" if math.isinf(side) else int(side) for side in field]
    return {**asdict(row), "receptive_field": sides}


def _markdown(rows: list[tuple[str, ...]]) -> str:
    rules = tuple("---:" if index >= 4 else "---" for index in range(len(_HEADINGS)))
    return "".join(f"| {' | '.join(row)} |\n" for row in (_HEADINGS, rules, *rows))


def _by(sides: Shape) -> str:
    return "x".join("?" if side is None else str(side) for side in sides) or "-"


def _sides(sides: tuple[float, ...]) -> str:
    texts = ["all" if math.isinf(side) else str(int(side)) for side in sides]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts) or "-"


def _short(number: int) -> str:
    """A count in three or four digits: 0, 950, 86.7 k, 115.6 M, 3.86 G."""
    for unit, digits in (("G", 2), ("M", 1), ("k", 1)):
        size = {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
        if number >= size:
            return f"{number / size:.{digits}f} {unit}"
    return str(number)
