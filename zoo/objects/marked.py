"""Labelled objects, and the large images that they are in."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Pair = tuple[float, float]


@dataclass(frozen=True)
class Objects:
    """The n labelled objects of an image, in its pixels.

    Coordinates are continuous: the centre of the first pixel is (0.5, 0.5).

    `centres`: (n, 2), y and x. `sides`: (n, 2), height and width; 0 of an object that is a point. `classes`: (n,), the
    index of each one's class.
    """

    centres: np.ndarray
    sides: np.ndarray
    classes: np.ndarray

    @classmethod
    def none(cls) -> "Objects":
        """No objects."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, np.int32))

    @classmethod
    def joined(cls, *parts: "Objects") -> "Objects":
        """Those of several, one after the other."""
        each = ((part.centres, part.sides, part.classes) for part in parts)
        return cls(*map(np.concatenate, zip(*each, strict=True)))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.classes)

    @property
    def boxes(self) -> np.ndarray:
        """Their boxes, (n, 4): top, left, bottom, right; a point's has no sides."""
        return np.hstack([self.centres - self.sides / 2, self.centres + self.sides / 2])

    @property
    def are_points(self) -> np.ndarray:
        """Which of them are points, (n,) bool."""
        return (self.sides == 0).all(-1)

    def reaches(self, tolerance: float) -> np.ndarray:
        """How far each one reaches from its centre, down and across, (n, 2): half its sides, a point's `tolerance`."""
        return np.where(self.are_points[:, None], tolerance, self.sides / 2)

    def distances(self, place: np.ndarray, tolerance: float) -> np.ndarray:
        """How far a place, y and x, is from each one, (n,): 0 at its centre, 1 at the ellipse of its reach."""
        away = (place - self.centres) / self.reaches(tolerance)
        return np.hypot(away[:, 0], away[:, 1])

    def at(self, indices: np.ndarray) -> "Objects":
        """Those at `indices`, or where a mask (n,) is true."""
        return Objects(self.centres[indices], self.sides[indices], self.classes[indices])

    def scaled(self, scale: Pair) -> "Objects":
        """The same objects in an image that is `scale` times as high and as wide."""
        return replace(self, centres=self.centres * scale, sides=self.sides * scale)


@dataclass(frozen=True)
class Scene:
    """A large image with its labels.

    `name`: its file's path below `data.dir`. `pixels`: (h, w, C), an array or what is read by slices like one, at the
    scale that a model sees. `objects`: in pixels of the given image, of which `image_size` is (height, width).
    `scale`: scanned pixels a pixel of the given image, (vertical, horizontal). `pixel_size`: the given image's in
    micrometres, (vertical, horizontal); None where not known. `marks`: what a user corrected, as objects: those of
    `objects`, and places with the background's class, at which a model found something. `is_labelled`: whether what
    no object lies in is background; if not, nothing is known but the marks.
    """

    name: str
    pixels: Any
    objects: Objects
    image_size: tuple[int, int]
    scale: Pair = (1.0, 1.0)
    pixel_size: Pair | None = None
    marks: Objects = field(default_factory=Objects.none)
    is_labelled: bool = True

    @property
    def scanned_objects(self) -> Objects:
        """The objects in scanned pixels, those of `pixels`."""
        return self.objects.scaled(self.scale)

    @property
    def scanned_marks(self) -> Objects:
        """The marks in scanned pixels."""
        return self.marks.scaled(self.scale)


@dataclass(frozen=True)
class Scenes:
    """Labelled images, by what they are for.

    `class_names`: those of the objects, and of the background, which is `background`; None where the objects are to be
    counted, and nothing has a class but they. `tolerance`: how far a place may lie from an object that is a point and
    still be its, in pixels of the given image; None where none is a point, or nothing asks for it. `fill`: what
    training puts beyond an image's border, raw values, one or one a channel.
    """

    class_names: tuple[str, ...]
    background: str | None
    train: tuple[Scene, ...]
    validation: tuple[Scene, ...]
    test: tuple[Scene, ...]
    tolerance: float | None = None
    fill: tuple[float, ...] = (0.0,)

    @property
    def background_index(self) -> int:
        """The index of the background's class.

        Raises:
            ValueError: where there is none.
        """
        if self.background is None:
            raise ValueError("scenes: have no background, as their objects are to be counted")
        return self.class_names.index(self.background)

    @property
    def labelled(self) -> tuple[Scene, ...]:
        """The training images of which more is known than marks."""
        return tuple(scene for scene in self.train if scene.is_labelled)

    @property
    def marked(self) -> tuple[Scene, ...]:
        """The training images with marks."""
        return tuple(scene for scene in self.train if len(scene.marks))

    def scanned_tolerance(self, scene: Scene) -> float:
        """The tolerance in scanned pixels of an image; 0 where no object is a point."""
        return (self.tolerance or 0.0) * math.sqrt(math.prod(scene.scale))
