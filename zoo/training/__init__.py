"""Training: the recipe, the loop, checkpoints and resuming, on one device or many."""

from zoo.training.distribution import joined as joined
from zoo.training.loop import Diverged as Diverged
from zoo.training.loop import train as train
from zoo.training.reproducible import start as start
