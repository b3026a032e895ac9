"""Keras's layers by their names, for the architectures: Keras is loaded when the first one is made.

So a schema and its layers stand in one file, and reading a config, which takes the schema alone, loads no backend.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import keras

Tensor: TypeAlias = "keras.KerasTensor"


def __getattr__(name: str) -> Any:
    # Python itself asks every module that something is imported from for names such as __path__.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import keras

    return getattr(keras.layers, name)
