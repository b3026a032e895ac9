import keras
import numpy as np
import pytest

import zoo
from zoo.config import load_config
from zoo.training.muon import orthogonal
from zoo.training.recipe import optimizer

RATES = {"learning_rate": 0.2, "momentum": 0.6, "head_rate": 0.05, "bias_rate": 3.0, "weight_decay": 0.4}


def by_singular_values(matrix):
    """The iteration on each singular value by itself."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ v


@pytest.mark.parametrize("shape", [(18, 5), (5, 18), (7, 7)])
def test_a_step_is_made_of_the_momentums_own_directions_all_of_about_one_length(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    made = np.asarray(orthogonal(keras.ops.convert_to_tensor(matrix)))
    np.testing.assert_allclose(made, by_singular_values(matrix), atol=2e-5)
    before = np.linalg.svd(matrix, compute_uv=False)
    after = np.linalg.svd(made, compute_uv=False)
    assert before.max() / before.min() > 2 or shape != (7, 7)
    assert after.max() < 1.3


def test_two_steps_are_those_worked_out_by_hand():
    """Kernels by orthogonal steps at a fixed norm, the head and vectors by decayed SGD at rates of their own."""
    recipe = load_config("nin_digits", [f"train.optimizer={{name: muon, {', '.join(map(as_key, RATES))}}}"])
    config = recipe.train.model_copy(update={"warmup": 0.0, "milestones": (0.9,)})
    model = zoo.build("nin_digits")
    made = optimizer(config, model, 10)
    made.build(model.trainable_variables)
    variables = model.trainable_variables
    rng = np.random.default_rng(0)
    values = [np.array(each, np.float64) for each in variables]
    momenta = [np.zeros(each.shape) for each in values]
    kinds = set()
    for _ in range(2):
        gradients = [rng.normal(size=each.shape).astype(np.float32) for each in values]
        made.apply([keras.ops.convert_to_tensor(each) for each in gradients], variables)
        for index, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
            head, is_vector = variable.path.split("/")[-2].startswith("head_"), gradient.ndim == 1
            keep = 0.85 if head or is_vector else RATES["momentum"]
            momenta[index] = keep * momenta[index] + gradient
            ahead = gradient + keep * momenta[index]
            if is_vector or head:
                values[index] *= 1 - RATES["learning_rate"] * RATES["weight_decay"]
                values[index] -= RATES["head_rate" if head else "bias_rate"] * ahead
            else:
                filters = gradient.shape[-1]
                values[index] *= np.sqrt(filters / (values[index] ** 2).sum())
                step = by_singular_values(ahead.reshape(-1, filters))
                values[index] -= RATES["learning_rate"] * step.reshape(gradient.shape)
            kinds.add((head, is_vector))
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}
    for variable, wanted in zip(variables, values, strict=True):
        np.testing.assert_allclose(np.asarray(variable), wanted, rtol=1e-4, atol=1e-4, err_msg=variable.path)


def as_key(name):
    return f"{name}: {RATES[name]}"
