"""Decoders of other libraries: kept quiet, strict and harmless, and their errors as one line."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from zoo.errors import InputError

# The most pixels of a PNG, JPEG or BMP file, which are read whole: where Pillow refuses one as a decompression bomb.
MOST_PIXELS = 2 * 89_478_485

# Characters of a refusal, which may quote what a file says.
_LONGEST = 500

_lock, _entered, _undo = threading.Lock(), 0, ExitStack()


@contextmanager
def decoders() -> Iterator[None]:
    """Keep decoders' warnings and logs from the user, and their caller's settings from the decoders.

    All of these are the process's: the first to enter sets them, the last to leave puts them back.
    """
    global _entered
    with _lock:
        if not _entered:
            _set_up(_undo)
        _entered += 1
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if not _entered:
                _undo.close()


def _set_up(undo: ExitStack) -> None:
    from PIL import Image, ImageFile

    log = logging.getLogger("tifffile")
    undo.callback(log.setLevel, log.level)
    log.setLevel(logging.CRITICAL)
    undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    # Sizes are checked by ours, and half a picture is none.
    for place, setting, ours in ((Image, "MAX_IMAGE_PIXELS", None), (ImageFile, "LOAD_TRUNCATED_IMAGES", False)):
        undo.callback(setattr, place, setting, getattr(place, setting))
        setattr(place, setting, ours)


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Decoders raise what they like on broken content; the user gets one line that begins with `name`."""
    try:
        yield
    except InputError as error:
        text = " ".join(str(error).split())
        if text == str(error) and len(text) <= _LONGEST:
            raise
        raise InputError(text[:_LONGEST]) from None
    except Exception as error:
        cause = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise InputError(f"{name}: broken or truncated ({cause})") from None
