"""The figure of docs/class_activation.md: one class of an image, as three pictures show it.

    python docs/class_activation_figure.py RUN

RUN is the run directory that the page's first command makes.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np  # noqa: E402  # after the backend is chosen
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import PowerNorm  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from PIL import Image  # noqa: E402

import zoo  # noqa: E402
from zoo.figures import rim  # noqa: E402
from zoo.large_images import influence  # noqa: E402

CLASS = 8


def main(run: Path) -> None:
    """Draw the image and the three pictures."""
    file = run / "canvas_input.png"
    model = zoo.load(run)
    image = np.asarray(Image.open(file))
    found = zoo.class_activation(zoo.convolutionalize(model, pooling="global"), file)
    scores = zoo.scan(zoo.convolutionalize(model), file)
    cell = np.unravel_index(scores.scores[..., CLASS].argmax(), scores.scores.shape[:2])
    top, left, bottom, right = scores.geometry.cell_box(*map(int, cell))
    influences = influence(model, file, tuple(map(int, cell)), CLASS).over((0, 0, *image.shape[:2]))

    rows, columns = scores.own_pixels
    activation_box = found.box
    score_box = rows[0], columns[0], rows[-1], columns[-1]
    most = max(np.abs(found.maps[..., CLASS]).max(), np.abs(scores.scores[..., CLASS]).max())
    signed = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    pictures = [
        ("the image", image, (0, 0, *image.shape[:2]), {"cmap": "gray"}),
        (f"class activation map of {CLASS}", found.maps[..., CLASS], activation_box, signed),
        (f"score map of {CLASS}: logits of windows", scores.scores[..., CLASS], score_box, signed),
        (
            "influence of pixels on the framed window's logit",
            influences,
            (0, 0, *image.shape[:2]),
            {"cmap": "inferno", "norm": PowerNorm(0.5)},
        ),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained", sharex=True, sharey=True)
    for axis, (title, values, box, look) in zip(axes.flat, pictures, strict=True):
        extent = box[1] - 0.5, box[3] - 0.5, box[2] - 0.5, box[0] - 0.5
        shown = axis.imshow(values, extent=extent, interpolation="nearest", **look)
        frame = {"fill": False, "ec": "lime", "lw": 1.5, "path_effects": rim(1.5)}
        axis.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **frame))
        axis.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5), facecolor="0.8")
        axis.set_title(title, fontsize=9)
        if title != "the image":
            figure.colorbar(shown, ax=axis, label="absolute gradient" if look["cmap"] == "inferno" else "logit")
    figure.savefig(Path(__file__).with_name("images") / "class_activation.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
