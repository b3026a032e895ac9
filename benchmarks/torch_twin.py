"""A Keras model's twin in PyTorch, as its user would write it there: the same steps and weights, channels last.

What other benchmarks compare with. A padding is part of the convolution or pooling after it where PyTorch has it so,
and colours are scaled in float32, in whatever the rest is computed.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from torch import fx, nn

from zoo.network.graph import Graph, Step, trace
from zoo.network.layer_kinds import does_nothing


def twin(model: keras.Model, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
    """A module from images (B, H, W, C), of any numbers, to scores, (B, K) or (B, rows, columns, K), in float32.

    `dtype`: of the weights and of all that is computed after the colours are scaled.

    Raises:
        SystemExit: naming the first layer that has no counterpart here.
    """
    return _Twin(trace(model), dtype).made()


class _Twin:
    """The steps of a graph, one after the other, as a graph of PyTorch's."""

    def __init__(self, graph: Graph, dtype: torch.dtype):
        self.graph, self.dtype = graph, dtype
        self.nodes, self.root = fx.Graph(), nn.Module()
        images = self.nodes.placeholder("images")
        pixels = self.nodes.call_method("float", (self.nodes.call_method("permute", (images, 0, 3, 1, 2)),))
        self.values: dict[int, fx.Node] = {graph.inputs[0]: pixels}
        # Keys of maps whose border is still to be added, with how many rows and columns, and of maps after ReLU.
        self.padded: dict[int, tuple[tuple[int, int], ...]] = {}
        self.rectified: set[int] = set()
        if type(graph.steps[0].layer) is not keras.layers.Rescaling:
            self._cast(graph.inputs[0])

    def made(self) -> fx.GraphModule:
        """The module."""
        for step in self.graph.steps:
            kind = type(step.layer).__name__
            if does_nothing(step.layer):
                self._hand_on(step)
                continue
            if (method := getattr(self, f"_{kind}", None)) is None:
                raise SystemExit(f"layer {step.path!r}: {kind} has no counterpart in benchmarks/torch_twin.py")
            method(step)
        (key,) = self.graph.outputs
        scores = self.nodes.call_method("float", (self.values[key],))
        if len(self.graph.model.outputs[0].shape) == 4:
            scores = self.nodes.call_method("permute", (scores, 0, 2, 3, 1))
        self.nodes.output(scores)
        module = fx.GraphModule(self.root, self.nodes)
        module.graph.eliminate_dead_code()
        module.recompile()
        return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def _cast(self, key: int) -> None:
        if self.dtype != torch.float32:
            self.values[key] = self.nodes.call_method("to", (self.values[key], self.dtype))

    def _hand_on(self, step: Step) -> None:
        """Its output is its input."""
        (source,), (made,) = step.inputs, step.outputs
        self.values[made] = self.values[source]
        if source in self.padded:
            self.padded[made] = self.padded[source]
        if source in self.rectified:
            self.rectified.add(made)

    def _module(self, step: Step, module: nn.Module, value: fx.Node | None = None) -> None:
        """Call a module on the step's input, or on `value`."""
        name = step.path.replace("/", "_")
        self.root.add_module(name, module.to(self.dtype))
        self.values[step.outputs[0]] = self.nodes.call_module(name, (value or self.values[step.inputs[0]],))

    def _function(self, step: Step, function: Callable, *arguments: Any) -> None:
        self.values[step.outputs[0]] = self.nodes.call_function(function, arguments)

    def _border(self, step: Step, takes: Callable[[tuple[tuple[int, int], ...]], bool]) -> tuple[Any, fx.Node]:
        """The padding that the step's own layer adds, and the step's input, with a border that it cannot add."""
        key = step.inputs[0]
        value, border = self.values[key], self.padded.get(key, ((0, 0), (0, 0)))
        if takes(border):
            return tuple(before for before, _ in border), value
        (top, bottom), (left, right) = border
        return 0, self.nodes.call_function(nn.functional.pad, (value, (left, right, top, bottom)))

    def _Rescaling(self, step: Step) -> None:
        pair = np.broadcast_arrays(np.atleast_1d(step.layer.scale), np.atleast_1d(step.layer.offset))
        for name, numbers in zip(("scale", "offset"), pair, strict=True):
            self.root.register_buffer(name, torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1))
        scaled = self.nodes.call_function(torch.mul, (self.values[step.inputs[0]], self.nodes.get_attr("scale")))
        self._function(step, torch.add, scaled, self.nodes.get_attr("offset"))
        self._cast(step.outputs[0])

    def _ZeroPadding2D(self, step: Step) -> None:
        self._hand_on(step)
        self.padded[step.outputs[0]] = step.layer.padding

    def _Conv2D(self, step: Step) -> None:
        layer = step.layer
        padding, value = self._border(step, _is_even)
        if layer.padding == "same" and set(layer.kernel_size) != {1}:
            if set(layer.strides) != {1} or padding not in (0, (0, 0)):
                raise SystemExit(f"layer {step.path!r}: padding 'same' with a stride has no counterpart here")
            padding = "same"
        channels, filters = step.shapes[0][-1], layer.filters
        sizes = (layer.kernel_size, layer.strides, padding, layer.dilation_rate, layer.groups)
        made = nn.Conv2d(channels, filters, *sizes, bias=layer.use_bias)
        kernel, *bias = (torch.from_numpy(np.array(each)) for each in layer.get_weights())
        made.weight.data = kernel.permute(3, 2, 0, 1).contiguous()
        if bias:
            made.bias.data = bias[0]
        self._module(step, made, value)
        self._activation(step)

    def _Dense(self, step: Step) -> None:
        kernel, *bias = (torch.from_numpy(np.array(each)) for each in step.layer.get_weights())
        made = nn.Linear(*kernel.shape, bias=bool(bias))
        made.weight.data = kernel.T.contiguous()
        if bias:
            made.bias.data = bias[0]
        self._module(step, made)
        self._activation(step)

    def _activation(self, step: Step) -> None:
        if step.layer.activation is not keras.activations.linear:
            raise SystemExit(f"layer {step.path!r}: an activation of its own has no counterpart here")

    def _BatchNormalization(self, step: Step) -> None:
        layer = step.layer
        made = nn.BatchNorm2d(step.shapes[0][-1], eps=layer.epsilon)
        parts = {"weight": layer.gamma, "bias": layer.beta}
        for name, weight in (parts | {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}).items():
            if weight is not None:
                getattr(made, name).data = torch.from_numpy(np.array(weight))
        self._module(step, made)

    def _ReLU(self, step: Step) -> None:
        self._module(step, nn.ReLU(inplace=True))
        self.rectified.add(step.outputs[0])

    def _MaxPooling2D(self, step: Step) -> None:
        """PyTorch fills with minus infinity, which wins as seldom as zero after ReLU."""
        layer, is_rectified, same = step.layer, step.inputs[0] in self.rectified, _same(step)
        filled = is_rectified and not same
        ceil = filled and self.padded.get(step.inputs[0]) == ((0, 1), (0, 1))
        padding, value = self._border(step, lambda border: ceil or not _any(border) or filled and _is_even(border))
        self._module(step, nn.MaxPool2d(layer.pool_size, layer.strides, same or padding, ceil_mode=ceil), value)
        if is_rectified:
            self.rectified.add(step.outputs[0])

    def _AveragePooling2D(self, step: Step) -> None:
        same = _same(step)
        padding, value = self._border(step, lambda border: not _any(border) or not same and _is_even(border))
        sizes = (step.layer.pool_size, step.layer.strides, same or padding)
        self._module(step, nn.AvgPool2d(*sizes, count_include_pad=not same), value)

    def _GlobalAveragePooling2D(self, step: Step) -> None:
        self._function(step, torch.mean, self.values[step.inputs[0]], (2, 3))

    def _Add(self, step: Step) -> None:
        first, *others = (self.values[key] for key in step.inputs)
        for other in others:
            first = self.nodes.call_function(torch.add, (first, other))
        self.values[step.outputs[0]] = first

    def _Concatenate(self, step: Step) -> None:
        self._function(step, torch.cat, [self.values[key] for key in step.inputs], 1)


def _any(border: tuple[tuple[int, int], ...]) -> bool:
    return any(map(any, border))


def _is_even(border: tuple[tuple[int, int], ...]) -> bool:
    """Whether there is as much on both sides of each axis."""
    return all(before == after for before, after in border)


def _same(step: Step) -> tuple[int, ...] | None:
    """The padding of a pooling with `same`, which has to be even; None of one without."""
    layer = step.layer
    if layer.padding == "valid":
        return None
    if set(layer.strides) != {1} or any(side % 2 == 0 for side in layer.pool_size):
        raise SystemExit(f"layer {step.path!r}: padding 'same' that is uneven has no counterpart here")
    return tuple(side // 2 for side in layer.pool_size)
