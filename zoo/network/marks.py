"""A mark in a converted model's graph of the windows that its cells stand for, and of the scale that it sees images at.

The card says the same and more, but is an attribute of the model: copies, clones, and files that Keras itself writes
lose it, and a converted head alone does not say what its window was. The mark is the name of a layer that hands the
image on, which all of them keep.
"""

import re

from keras import layers

from zoo.card import Card
from zoo.network.graph import Graph, Step

_NUMBER = r"\d[\d.e+-]*"
_NAME = re.compile(
    r"zoo_window_(?P<window>[\dx]+)(?:_of_(?P<image_size>[\dx]+)_without_padding)?"
    rf"(?:_at_scale_(?P<scale>{_NUMBER}))?(?:_at_pixel_size_(?P<pixel_size>{_NUMBER}))?"
)


def mark_name(about: Card) -> str:
    """The name that tells a converted model's window; of a padding-free twin also the size that it was trained at.

    Scale and pixel size follow where the card has them: without them an image would be scanned at a wrong size, and
    nothing would show it.
    """
    name = f"zoo_window_{_by(about.window)}"
    name += f"_of_{_by(about.image_size)}_without_padding" if about.padding == "valid" else ""
    name += "" if about.scale is None else f"_at_scale_{about.scale!r}"
    return name if about.pixel_size is None else f"{name}_at_pixel_size_{about.pixel_size!r}"


def is_mark(step: Step) -> bool:
    """Whether a step hands the image on under a name that `mark_name` gave."""
    return isinstance(step.layer, layers.Identity) and _NAME.fullmatch(step.layer.name) is not None


def marked(graph: Graph) -> Card | None:
    """What the mark in a graph says of the model; None where it has none, or several."""
    names = [_NAME.fullmatch(step.layer.name) for step in graph.steps if is_mark(step)]
    if len(names) != 1 or names[0] is None:
        return None
    said = names[0].groupdict()
    window = _sides(said["window"])
    scales = {key: float(said[key]) for key in ("scale", "pixel_size") if said[key] is not None}
    if said["image_size"] is None:
        return Card(pooling="window", window=window, image_size=window, **scales)
    image_size = _sides(said["image_size"])
    return Card(pooling="window", window=window, image_size=image_size, padding="valid", **scales)


def _by(sides: tuple[int, ...] | None) -> str:
    return "x".join(map(str, sides or ()))


def _sides(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))
