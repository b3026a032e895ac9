"""The commands `zoo ...`: parse, call, print. What takes long to import is imported where it is used."""

from zoo.cli import card, convert, evaluate, export, models, plot, predict, regions, scan, tile, train
from zoo.cli.start import main, zoo

__all__ = [
    "card",
    "convert",
    "evaluate",
    "export",
    "main",
    "models",
    "plot",
    "predict",
    "regions",
    "scan",
    "tile",
    "train",
    "zoo",
]
