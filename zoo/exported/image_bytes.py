"""The signature `predict_bytes` of SavedModels: files of images, each brought to size as `zoo predict` does it.

All of it is a graph of TensorFlow's operations, which a server runs without the zoo, and without Python.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from zoo.exported.carried import Carried
from zoo.pictures import as_pixel
from zoo.pictures.decoding import MOST_PIXELS
from zoo.pictures.whole import DENSEST, JPEG, PNG

if TYPE_CHECKING:
    import tensorflow as tf

# The signature, and its one input.
SIGNATURE, INPUT = "predict_bytes", "image_bytes"
# Bytes at the beginning of a PNG file that tell its height, width and bits a sample (PNG specification, 11.2.2).
_HEADER = 26


@dataclass(frozen=True)
class FileForm:
    """What files of images are brought to: `size` (height, width), `channels`, and what is put beyond their borders.

    `fill`: "reflect", or the raw values of the channels.
    """

    size: tuple[int, int]
    channels: int
    fill: Literal["reflect"] | tuple[int, ...]

    @classmethod
    def of(cls, carried: Carried) -> "FileForm | None":
        """That of a classifier, or counter, of bytes in one or three channels, of one size; None of any other model.

        A model that takes images at a scale of its own, or each image whole, has none either.
        """
        known, shape, outputs = carried.card, carried.image.shape, carried.outputs
        is_of_pictures = len(shape) == 4 and shape[3] in (1, 3) and not carried.channels_first
        is_of_bytes = carried.image.dtype == "uint8" and (known.scale, known.pixel_size) == (None, None)
        if not is_of_pictures or not is_of_bytes or len(outputs) > 1 or len(outputs[0].shape) != 2:
            return None
        if outputs[0].shape[1] == 1 and outputs[0].outputs == "logits" or known.pooling == "global":
            return None
        channels = shape[3]
        height, width = known.image_size or shape[1:3]
        if channels is None or height is None or width is None:
            return None
        if known.filling == "reflect":
            return cls((height, width), channels, "reflect")
        pixel = np.broadcast_to(as_pixel(known.filling, np.dtype(np.uint8)), channels)
        return cls((height, width), channels, tuple(pixel.tolist()))


def endpoint(form: FileForm, model: Callable) -> Callable:
    """A function for a graph: from file contents, (B,) strings, to what `model` gives for (B, H, W, C) uint8.

    In the graph a batch of no files is refused; and a file that is no PNG or JPEG, has 16 bits a sample, colours where
    the model takes grey, or too many pixels, by its number in the batch; the last before it is decoded.
    """
    import tensorflow as tf

    def predict_bytes(image_bytes: "tf.Tensor") -> "dict[str, tf.Tensor]":
        def one(element: "tuple[tf.Tensor, tf.Tensor]") -> "tf.Tensor":
            number, content = element
            name = tf.strings.join([f"{INPUT}[", tf.strings.as_string(number), "]: "])
            return _fitted(_to_channels(_decoded(content, name), form.channels, name), form)

        why = [f"{INPUT}: received no file; accepted: one or more"]
        image_bytes = _checked(image_bytes, tf.size(image_bytes) > 0, why)
        numbered = (tf.range(tf.size(image_bytes)), image_bytes)
        form_of_one = tf.TensorSpec((*form.size, form.channels), tf.uint8)
        return model(tf.map_fn(one, numbered, fn_output_signature=form_of_one))

    return predict_bytes


def _decoded(content: "tf.Tensor", name: "tf.Tensor") -> "tf.Tensor":
    """The pixels of a file as it stores them, (H, W, 1 to 4) uint8, without a look at how EXIF says it lies."""
    import tensorflow as tf

    is_png = tf.strings.substr(content, 0, len(PNG)) == PNG
    is_jpeg = tf.strings.substr(content, 0, len(JPEG)) == JPEG
    content = _checked(content, is_png | is_jpeg, [name, "unknown format; accepted: PNG and JPEG"])
    return tf.cond(is_png, lambda: _png(content, name), lambda: _jpeg(content, name))


def _png(content: "tf.Tensor", name: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    start = tf.strings.substr(tf.strings.join([content, bytes(_HEADER)]), 0, _HEADER)
    header = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)
    places = tf.constant([256**3, 256**2, 256, 1], tf.int64)
    width, height = tf.reduce_sum(header[16:20] * places), tf.reduce_sum(header[20:24] * places)
    content = _checked(content, header[24] <= 8, [name, "received 16 bits a sample; accepted: 8"])
    return tf.io.decode_png(_of_fair_size(content, name, height, width), channels=0)


def _jpeg(content: "tf.Tensor", name: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    height, width, channels = tf.unstack(tf.image.extract_jpeg_shape(content, tf.int32))
    content = _checked(content, channels < 4, [name, "received CMYK; accepted: grey and RGB"])
    content = _of_fair_size(content, name, tf.cast(height, tf.int64), tf.cast(width, tf.int64))
    # What Pillow has libjpeg do; TensorFlow's own choice is faster, and off by up to 10 of 255.
    return tf.io.decode_jpeg(content, channels=0, dct_method="INTEGER_ACCURATE")


def _of_fair_size(content: "tf.Tensor", name: "tf.Tensor", height: "tf.Tensor", width: "tf.Tensor") -> "tf.Tensor":
    """The content, unless it has too many pixels, or more than so few bytes can hold; to be looked at before decoding.

    The limits are those of `zoo.pictures.whole`.
    """
    import tensorflow as tf

    sides = tf.strings.join([tf.strings.as_string(height), " x ", tf.strings.as_string(width), " pixels"])
    # No side of more than 2^32, so the product is none beyond 2^64; in float64, since int64 has no room for that.
    pixels = tf.cast(height, tf.float64) * tf.cast(width, tf.float64)
    content = _checked(content, pixels <= MOST_PIXELS, [name, "received ", sides, f"; accepted: up to {MOST_PIXELS:,}"])
    most = 8 * DENSEST * tf.cast(tf.strings.length(content, unit="BYTE"), tf.float64)
    return _checked(content, pixels <= most, [name, "broken or truncated: no file of this size holds ", sides])


def _to_channels(pixels: "tf.Tensor", channels: int, name: "tf.Tensor") -> "tf.Tensor":
    """Without alpha, and brought to 1 or 3 channels, as `zoo.pictures.fitting.to_channels` does it."""
    import tensorflow as tf

    count = tf.shape(pixels)[2]
    if channels == 3:
        return tf.cond(count < 3, lambda: tf.repeat(pixels[..., :1], 3, axis=-1), lambda: pixels[..., :3])
    first = pixels[..., :1]
    is_grey = (count < 3) | tf.reduce_all(pixels[..., : tf.minimum(count, 3)] == first)
    return _checked(first, is_grey, [name, "received 3 channels in colour; accepted: grey"])


def _fitted(pixels: "tf.Tensor", form: FileForm) -> "tf.Tensor":
    """Cropped or padded to the size about the centre: (H, W, C) -> (h, w, C)."""
    import tensorflow as tf

    inside = tf.constant(True)
    for axis, wanted in enumerate(form.size):
        side = tf.shape(pixels)[axis]
        extra = side - wanted
        # Halves are rounded towards zero: of an odd number of rows more are cut off, or added, at the end.
        places = tf.range(wanted) + tf.where(extra >= 0, extra // 2, -(-extra // 2))
        is_there = (places >= 0) & (places < side)
        inside &= tf.reshape(is_there, (-1, 1) if axis == 0 else (1, -1))
        # Mirrored as often as it takes, the outermost pixel not repeated.
        period = tf.maximum(2 * (side - 1), 1)
        turned = places % period
        mirrored = tf.where(side > 1, tf.minimum(turned, period - turned), 0)
        pixels = tf.gather(pixels, mirrored, axis=axis)
    if form.fill != "reflect":
        pixels = tf.where(inside[..., None], pixels, tf.constant(form.fill, tf.uint8))
    return tf.ensure_shape(pixels, (*form.size, form.channels))


def _checked(value: "tf.Tensor", condition: "tf.Tensor", text: list) -> "tf.Tensor":
    """A value, for whose use a condition has to be true; else the graph ends with an error of this text."""
    import tensorflow as tf

    with tf.control_dependencies([tf.debugging.Assert(condition, [tf.strings.join(text)])]):
        return tf.identity(value)
