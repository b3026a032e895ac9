"""What goes wrong in Keras's exporters: a disk that is full, or a layer that a format has no words for."""

import contextlib
import errno
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from zoo.exporting.format import CannotHold
from zoo.progress import silent_stderr

# Errors of TensorFlow that are about a graph; its others are about files.
_OF_GRAPHS = ("InvalidArgumentError", "UnimplementedError", "NotFoundError", "InternalError")


@contextlib.contextmanager
def converting(path: Path) -> Iterator[None]:
    """Run a converter: quietly, with its errors as `CannotHold`, and TensorFlow's errors of files as OSError.

    Raises:
        OSError: naming `path`, where it cannot be written.
        CannotHold: for any other error of the converter.
    """
    try:
        with warnings.catch_warnings(), silent_stderr():
            # tf2onnx asks NumPy 2 for names that are gone, and goes on without them; tf.lite is to be LiteRT's own.
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        is_of_tensorflow = tensorflow is not None and isinstance(error, tensorflow.errors.OpError)
        if is_of_tensorflow and type(error).__name__ not in _OF_GRAPHS:
            raise OSError(
                errno.EIO, f"TensorFlow cannot write it ({getattr(error, 'message', '')})", str(path)
            ) from error
        raise CannotHold(str(error).strip() or type(error).__name__) from error
