"""Which class a grid cell is of, if any: the one definition, of pictures, shares, counts and peaks alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.card import Peaks
from zoo.errors import quoted, refuse
from zoo.scores import Outputs, check_no_counts, to_probabilities

# In place of a class's index, for a cell that is of none.
NONE = -1


@dataclass(frozen=True)
class CellClasses:
    """What makes a class of scores.

    A cell is of the class that wins, where that is not the background and its probability is at least that class's
    threshold; else of none. Without a background and thresholds the winner is the class of every cell.

    `class_names`: of the scores, in order. `background`: the class that stands for nothing, None where there is none.
    `peaks`: by class, its threshold, 0 for a class that is not there, and its distance (see `zoo.objects.peaks`).

    Raises:
        InputError: where the background, or a class of `peaks`, is none of the classes.
    """

    class_names: tuple[str, ...]
    background: str | None
    peaks: Mapping[str, Peaks]

    def __post_init__(self) -> None:
        """Check the names."""
        for what, names in (("background", [self.background] if self.background is not None else []),
                            ("peaks", self.peaks)):  # fmt: skip
            for name in names:
                if name not in self.class_names:
                    refuse(what, f"the class {quoted(name)}", f"one of {', '.join(self.class_names)}")

    @property
    def find_objects(self) -> bool:
        """Whether there are cells of no class, so that peaks of the others are objects."""
        return self.background is not None or bool(self.peaks)

    @property
    def background_index(self) -> int | None:
        """The index of the class that stands for nothing; None where there is none."""
        return None if self.background is None else self.class_names.index(self.background)

    @cached_property
    def objects(self) -> tuple[int, ...]:
        """The indices of the classes that objects may have: all but the background's."""
        return tuple(index for index, name in enumerate(self.class_names) if name != self.background)

    @cached_property
    def least(self) -> np.ndarray:
        """The least probability of each class, (classes,); infinite for the background's."""
        least = [self.peaks[name].threshold if name in self.peaks else 0.0 for name in self.class_names]
        return np.where(np.isin(np.arange(len(least)), self.objects), least, np.inf)

    def of(self, scores: np.ndarray, outputs: Outputs) -> np.ndarray:
        """The class's index of every cell, `NONE` where it is of none: (..., K) -> (...).

        A cell whose scores are NaN has any class where there is no background and no threshold, else none.

        Raises:
            InputError: for the numbers that a counter gives, of which each stands for itself.
        """
        check_no_counts("classes", outputs)
        winners = scores.argmax(-1)
        if not self.find_objects:
            return winners
        return np.where(of_class(to_probabilities(scores, outputs), winners) >= self.least[winners], winners, NONE)


def of_class(probabilities: np.ndarray, classes: np.ndarray | Sequence[int]) -> np.ndarray:
    """Each cell's probability of one class: (..., K), (...) -> (...)."""
    return np.take_along_axis(probabilities, np.asarray(classes)[..., None], -1)[..., 0]
