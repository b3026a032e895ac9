"""Muon for convolutions: steps whose matrix is orthogonal, on kernels whose norm is fixed.

From the later form of airbench94 (Jordan 2024, arXiv:2404.00498; its repository, `airbench94_muon.py`). Keras's own
Muon takes variables of two dimensions alone.
"""

import math

import keras
from keras import ops

from zoo.config.recipe import Muon

# Of a quintic with the steepest slope at zero: singular values end between 0.5 and 1.5, which serves as well as 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 3
# Of all but the kernels, as in airbench94.
_MOMENTUM = 0.85


class Orthogonal(keras.optimizers.Optimizer):
    """Muon for the kernels below the head, Nesterov's SGD at rates of their own for the vectors there and for the head.

    A kernel (h, w, inputs, filters) is scaled to the norm that `filters` unit vectors have, and then moves by the
    learning rate times its momentum's nearest orthogonal matrix (h w inputs, filters), about. The rates of the others
    are in proportion to the learning rate's schedule. Weight decay is decoupled, and of all but the kernels, whose
    norms are fixed.
    """

    def __init__(self, learning_rate, config: Muon, model: keras.Model, **common):
        """Take the schedule of the kernels' rate, the config's section, the model, and what all optimizers take."""
        super().__init__(learning_rate=learning_rate, **common)
        self.momentum = config.momentum
        rates = {"head": config.head_rate, "vector": config.bias_rate}
        self.shares = {kind: rate / config.learning_rate for kind, rate in rates.items()}
        self.known = {id(weight): _kind(layer, weight) for layer in model.layers for weight in layer.trainable_weights}
        if self.weight_decay:
            kernels = [weight for weight in model.trainable_weights if self.known[id(weight)] == "kernel"]
            self.exclude_from_weight_decay(kernels)

    def build(self, variables: list[keras.Variable]) -> None:
        """Make the momentum of each variable."""
        if not self.built:
            super().build(variables)
            self.kinds = [self.known[id(variable)] for variable in variables]
            self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Move one variable."""
        index = self._get_variable_index(variable)
        kind, average = self.kinds[index], self.momentums[index]
        keep = self.momentum if kind == "kernel" else _MOMENTUM
        rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
        self.assign(average, keep * average + gradient)
        ahead = gradient + keep * average
        if kind != "kernel":
            self.assign_sub(variable, rate * self.shares[kind] * ahead)
            return
        kernel, ahead = (ops.reshape(each, (-1, variable.shape[-1])) for each in (variable, ahead))
        unit = kernel * (math.sqrt(variable.shape[-1]) / ops.norm(kernel))
        self.assign(variable, ops.reshape(unit - rate * orthogonal(ahead), variable.shape))


def _kind(layer: keras.layers.Layer, weight: keras.Variable) -> str:
    # The biases of the classes too: at the rate of those below they make the loss blow up.
    if layer.name.startswith("head_"):
        return "head"
    return "kernel" if len(weight.shape) > 1 else "vector"


def orthogonal(matrix: keras.KerasTensor) -> keras.KerasTensor:
    """About U V' of a matrix U S V', by Newton-Schulz iterations: the same shape, singular values near 1."""
    a, b, c = _QUINTIC
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if is_tall else matrix
    # So that no singular value is above 1, where the iteration would diverge.
    x = x / (ops.norm(x) + 1e-7)
    for _ in range(_ITERATIONS):
        square = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
    return ops.transpose(x) if is_tall else x
