"""The figure of docs/whole_images.md: one photograph with digits, as three nets answer it, side by side.

    python docs/photographs_figure.py photographs

The folder is the one that benchmarks/photographs.py writes, with a picture for each net.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("crops_of_MNIST", "crops,_with_background", "dense")
WIDTH = 1466


def main() -> None:
    """Write the figure."""
    pictures = [Image.open(Path(sys.argv[1], f"{name}.png")).convert("RGB") for name in NAMES]
    height = min(each.height for each in pictures)
    joined = Image.fromarray(np.hstack([np.asarray(each)[:height] for each in pictures]))
    size = (WIDTH, round(WIDTH * joined.height / joined.width))
    joined.resize(size, Image.Resampling.LANCZOS).save(ROOT / "docs" / "images" / "photographs.jpg", quality=90)


if __name__ == "__main__":
    main()
