"""The per-layer table of any Keras model: shapes, parameters, multiply-adds, receptive field, total stride."""

import csv
import io
import json
import math
import operator
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import keras
from keras import layers

from zoo import model_files
from zoo.builder import build
from zoo.card import card
from zoo.catalogue import list_models
from zoo.errors import InputError, unknown
from zoo.network.graph import Graph, Step, check_size, shapes_at, trace
from zoo.network.head import head_collapses
from zoo.network.positions import is_pointwise
from zoo.network.program import Span, smallest_image, spans
from zoo.settings import keras_defaults

Format = Literal["table", "markdown", "csv", "json"]
FORMATS = ("table", "markdown", "csv", "json")
Shape = tuple[int | None, ...]

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
# Layers and operations without a kernel of their own that multiply tensors with each other: not counted.
_PRODUCTS = {
    "AdditiveAttention", "Attention", "Conv", "ConvTranspose", "DepthwiseConv", "Dot", "DotProductAttention", "Einsum",
    "Lambda", "Matmul", "SeparableConv", "Tensordot", "Vdot",
}  # fmt: skip
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
    was built for; None where it is not known. `last_map`: the row of the feature map that the head begins with, or of
    the output where there is no head.
    """

    name: str
    image_size: tuple[int, ...] | None
    rows: tuple[Row, ...]
    params: int
    trainable_params: int
    smallest_image: tuple[int, ...] | None
    last_map: Row | None

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one image in convolutions and Dense layers; None where those of any layer are not known."""
        return _sum(row.macs for row in self.rows)

    @property
    def pointwise_params_share(self) -> float:
        """The share of all parameters that is in 1x1 convolutions, biases included."""
        return sum(row.pointwise_params for row in self.rows) / max(self.params, 1)

    @property
    def pointwise_macs_share(self) -> float | None:
        """The share of the multiply-adds that is in 1x1 convolutions."""
        return None if self.macs is None else _sum(row.pointwise_macs for row in self.rows) / max(self.macs, 1)

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
        totals = ("name", "image_size", "params", "trainable_params", "macs", "pointwise_params_share")
        totals += ("pointwise_macs_share", "smallest_image")
        about = {name: getattr(self, name) for name in totals}
        about["last_map"] = None if self.last_map is None else self.last_map.name
        return about | {"rows": [_row_dict(row) for row in self.rows]}

    def summary(self, separator: str = "") -> str:
        """The totals and the share of the 1x1 convolutions, for people to read; `separator` ends each line."""
        size = ", open image size" if self._is_open else f", {_by(self.image_size)}" if self.image_size else ""
        lines = [f"{self.name}{size}: {self.params:,} parameters ({self.trainable_params:,} trainable)"]
        lines.append(f"multiply-adds (MACs): {self._macs_text()}")
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
            macs = None if self.macs is None else sum(row.macs for row in heads) / max(self.macs, 1)
            parts.append(("Dense layers on vectors, counted apart", params, macs))
        return [
            f"{what}: {params:.1%} of the parameters" + ("" if macs is None else f", {macs:.1%} of the multiply-adds")
            for what, params, macs in parts
        ]

    def _texts(self) -> list[tuple[str, ...]]:
        """The rows for people to read."""
        rows = []
        for row in self.rows:
            name, kind, output, kernel, _, _, *reach = row.cells()
            for long, short in _SHORTER.items():
                kind = kind.replace(long, short)
            macs = "-" if row.macs is None else _short(row.macs)
            rows.append((name, kind, output, kernel, f"{row.params:,}", macs, *reach))
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
            it open the size it was trained at; where that is not known either, multiply-adds are None.

    Raises:
        InputError: for a subclassed model, or an `image_size` that a layer does not take.
    """
    graph = trace(model)
    built = tuple(graph.model.inputs[0].shape[graph.layout.spatial])
    known = built if built and None not in built else card(model).image_size
    size = known if image_size is None else _checked_size(graph, image_size, built)
    shapes = shapes_at(graph, size)
    one_image = len(graph.inputs) == 1 and len(built) > 0
    reaches = spans(graph, size) if one_image else {}
    seen: set[int] = set()
    rows: dict[int, Row] = {}
    for step in graph.steps:
        row = _row(step, shapes, reaches.get(step.outputs[0]) if built else (), seen)
        rows |= dict.fromkeys(step.outputs, row)
    collapses = head_collapses(graph)
    last = graph.steps[max(collapses)].inputs[0] if collapses else graph.outputs[0]
    return Description(
        name=model.name,
        image_size=tuple(size) if size else None,
        rows=tuple(rows[step.outputs[0]] for step in graph.steps),
        params=sum(math.prod(weight.shape) for weight in model.weights),
        trainable_params=sum(math.prod(weight.shape) for weight in model.trainable_weights),
        smallest_image=smallest_image(graph, known) if one_image else None,
        last_map=rows.get(last) if one_image else None,
    )


def find_model(spec: str | Path) -> keras.Model:
    """The model that `spec` names, for reading about it.

    Args:
        spec: a catalogue name, the path of a config, a .keras file or a run directory, or "keras:" and the name of a
            constructor in keras.applications, which is called with weights=None.

    Raises:
        InputError: where there is no such model; with the nearest name.
    """
    name, prefix = str(spec), "keras:"
    if name.startswith(prefix):
        constructors = [each for each in dir(keras.applications) if each[0].isupper()]
        if name.removeprefix(prefix) not in constructors:
            raise InputError(unknown("keras.applications model", name.removeprefix(prefix), constructors))
        return getattr(keras.applications, name.removeprefix(prefix))(weights=None)
    if name in list_models() or Path(name).suffix in (".yaml", ".yml"):
        return build(spec)
    if Path(name).suffix == ".keras" or Path(name).is_dir():
        return model_files.load(name)
    forms = "a path to a .yaml or .keras file, a run directory, or keras:NAME of keras.applications"
    raise InputError(f"{unknown('model', name, list_models())}; or {forms}")


@dataclass(frozen=True)
class _Part:
    """A kernel of a layer, and at how many positions it is applied to one image; None where that is open."""

    kernel: tuple[int, ...]
    positions: int | None
    pointwise: bool

    @property
    def weights(self) -> int:
        return math.prod(self.kernel)

    @property
    def macs(self) -> int | None:
        return None if self.positions is None else self.weights * self.positions


def _row(step: Step, shapes: dict[int, Shape], reach: tuple[Span, ...] | None, seen: set[int]) -> Row:
    """The row of a step; `seen` holds the weights of the rows above, by identity."""
    layer, made = step.layer, shapes[step.outputs[0]]
    fresh = {id(weight): math.prod(weight.shape) for weight in getattr(layer, "weights", ())}
    params = sum(count for key, count in fresh.items() if key not in seen)
    seen.update(fresh)
    parts = _parts(layer, shapes[step.inputs[0]] if step.inputs else (), made)
    spatial = [part for part in parts or () if not part.pointwise]
    pointwise = [part for part in parts or () if part.pointwise]
    strides = tuple(span.stride for span in reach or ())
    return Row(
        name=step.path,
        type=type(layer).__name__,
        output_shape=made,
        kernel=" + ".join(_kernel_text(part, layer) for part in parts) if parts else _window_text(layer),
        params=params,
        macs=None if parts is None else _sum(part.macs for part in parts),
        receptive_field=None if reach is None else tuple(span.extent for span in reach),
        stride=strides if strides and 0 not in strides else None,
        pointwise_params=params - sum(part.weights for part in spatial) if pointwise and params else 0,
        pointwise_macs=_sum(part.macs for part in pointwise),
    )


def _parts(layer: keras.Operation, given: Shape, made: Shape) -> list[_Part] | None:
    """The kernels of a layer that takes `given` and gives `made`; None where it multiplies in a way not known here."""
    if isinstance(layer, _CONVOLUTIONS):
        kernel = tuple(layer.kernel.shape)
        return [_Part(kernel, _positions(made, kernel[-1]), set(kernel[:-2]) == {1})]
    if isinstance(layer, _TRANSPOSED):
        kernel = tuple(layer.kernel.shape)  # (rows, columns, filters, channels): laid down once for each position given
        return [_Part(kernel, _positions(given, kernel[-1]), set(kernel[:-2]) == {1})]
    if isinstance(layer, _DEPTHWISE):
        kernel = tuple(layer.kernel.shape)
        return [_Part(kernel, _positions(made, kernel[-2] * kernel[-1]), False)]
    if isinstance(layer, _SEPARABLE):
        positions = _positions(made, layer.filters)
        kernels = (tuple(layer.depthwise_kernel.shape), False), (tuple(layer.pointwise_kernel.shape), True)
        return [_Part(kernel, positions, pointwise) for kernel, pointwise in kernels]
    if isinstance(layer, layers.Dense):
        kernel = tuple(layer.kernel.shape)
        return [_Part(kernel, _positions(made, kernel[-1]), len(made) > 1)]
    if isinstance(layer, layers.Embedding) or is_pointwise(layer):
        return []
    has_matrix = any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))
    return None if has_matrix or type(layer).__name__ in _PRODUCTS else []


def _positions(shape: Shape, channels: int) -> int | None:
    return None if None in shape else math.prod(shape) // channels


def _kernel_text(part: _Part, layer: keras.Operation) -> str:
    """The kernel's shape; a depthwise one without its multiplier of one."""
    is_single = isinstance(layer, (*_DEPTHWISE, *_SEPARABLE)) and not part.pointwise and part.kernel[-1] == 1
    return _by(part.kernel[:-1] if is_single else part.kernel)


def _window_text(layer: keras.Operation) -> str:
    window = getattr(layer, "pool_size", ())
    return _by((window,) if isinstance(window, int) else tuple(window)) if window else ""


def _checked_size(graph: Graph, image_size: tuple[int, ...], built: Shape) -> tuple[int, ...]:
    if len(graph.inputs) != 1 or not built:
        raise InputError(
            f"image_size: received {image_size}; accepted: none, for model {graph.model.name!r} takes no single image"
        )
    size = check_size(image_size, len(built))
    flattens = any(isinstance(graph.steps[index].layer, layers.Flatten) for index in head_collapses(graph))
    if flattens and None not in built and size != built:
        raise InputError(f"image_size: received {size}; accepted: {built}, for this model flattens its map")
    return size


def _row_dict(row: Row) -> dict[str, Any]:
    field = row.receptive_field
    sides = field and ["all" if math.isinf(side) else int(side) for side in field]
    return {**asdict(row), "receptive_field": sides}


def _markdown(rows: list[tuple[str, ...]]) -> str:
    rules = tuple("---:" if index >= 4 else "---" for index in range(len(_HEADINGS)))
    return "".join(f"| {' | '.join(row)} |\n" for row in (_HEADINGS, rules, *rows))


def _sum(numbers: Iterable[int | None]) -> int | None:
    """The sum, None where any number is."""
    numbers = list(numbers)
    return None if None in numbers else sum(numbers)


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
