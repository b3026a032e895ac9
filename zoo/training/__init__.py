"""Training: the recipe, the loop, checkpoints and resuming."""

from zoo.training.loop import train as train
from zoo.training.reproducible import start as start
