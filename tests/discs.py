"""Images of coloured discs whose places are known, and a classifier set by hand that finds them."""

import keras
import numpy as np
from keras import layers
from PIL import Image

import zoo
from zoo.card import Card, attach

# A name that a table has to quote and a formula sign, and a name that is no ASCII.
RED, GROUND, BLUE = '=red, "cell"', "ground", "blåtånd"
WINDOW, STRIDE = 16, 2


def model(background=GROUND, peaks=None, scale=None):
    """A padding-free net of 16 x 16 pixels, stride 2: how red, or how blue, the middle of the window is."""
    image = keras.Input((WINDOW, WINDOW, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.AveragePooling2D(STRIDE)(x)
    x = layers.Dense(3, name="logits")(layers.Flatten()(x))
    net = keras.Model(image, x)
    side = WINDOW // STRIDE
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.exp(-(y**2 + x**2) / 6)
    kernel = np.zeros((side, side, 3, 3), np.float32)
    kernel[..., 0, 0] = kernel[..., 2, 2] = inside / inside.sum()
    kernel[..., 2, 0] = kernel[..., 0, 2] = -inside / inside.sum()
    net.get_layer("logits").set_weights([12 * kernel.reshape(-1, 3), np.array([0, 2, 0], np.float32)])
    return attach(
        net, Card(class_names=(RED, GROUND, BLUE), image_size=(WINDOW, WINDOW), dtype="uint8", background=background,
                  peaks=peaks or {}, scale=scale)
    )  # fmt: skip


def saved(path, **card):
    return zoo.save(model(**card), path)


def picture(size, discs, file=None):
    """Grey ground with discs, each (class, y, x, radius) in continuous pixels: (H, W, 3) uint8."""
    pixels = np.full((*size, 3), 120, np.uint8)
    y, x = (np.arange(side) + 0.5 for side in size)
    for name, down, across, radius in discs:
        inside = (y[:, None] - down) ** 2 + (x[None] - across) ** 2 <= radius**2
        pixels[inside] = (230, 60, 60) if name == RED else (60, 60, 230)
    if file is not None:
        Image.fromarray(pixels).save(file)
    return pixels
