"""Train an experiment: python train.py CONFIG [key=value ...] [--workdir DIR]."""

from zoo.cli import main
from zoo.cli.train import train

if __name__ == "__main__":
    main(command=train, name="train.py")
