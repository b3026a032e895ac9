"""An earlier name of `zoo.card` and `zoo.model_files`, for scripts that import it."""

from zoo.card import PIXEL_TYPES, Card, attach, card
from zoo.model_files import file_of, files_of, load, save

__all__ = ["PIXEL_TYPES", "Card", "attach", "card", "file_of", "files_of", "load", "save"]
