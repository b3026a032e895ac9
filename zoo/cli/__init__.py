"""The commands `zoo ...`: parse, call, print. What takes long to import is imported where it is used."""

from zoo.cli import dense, export, hub, images, models, plot, predict, regions, runs, scan
from zoo.cli.start import main, zoo

__all__ = ["dense", "export", "hub", "images", "main", "models", "plot", "predict", "regions", "runs", "scan", "zoo"]
