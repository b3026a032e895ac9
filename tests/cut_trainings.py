"""Trainings that end at a step, as a kill would end them, and go on."""

import numpy as np
import pytest

import zoo
from zoo.training import loop, start, train


class Stopped(BaseException):
    """Ends a training between two checkpoints."""


def at_a_step(patch, at, die):
    """Call `die` before step `at` of a training is counted."""
    count = loop._Keeper._count

    def dying(keeper):
        if keeper.progress.step + 1 == at:
            die()
        count(keeper)

    patch.setattr(loop._Keeper, "_count", dying)


def trained(config, dataset, folder):
    """A model as it is built, and after its training."""
    start(config.seed, True)
    model = zoo.build(config.model)
    first = [np.array(weight) for weight in model.weights]
    return model, first, train(model, dataset, config, folder)


def check_cut(config, dataset, folder, at, monkeypatch):
    """Check that a training that is cut at a step ends in the bits of one that is not; what `trained` gives of this."""

    def die():
        raise Stopped

    whole = trained(config, dataset, folder / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        at_a_step(patch, at, die)
        trained(config, dataset, folder / "cut")
    again, *_ = trained(config, dataset, folder / "cut")
    for one, other in zip(whole[0].weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    return whole
