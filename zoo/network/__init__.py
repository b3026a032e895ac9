"""A Keras model as a graph of moves: what its layers do to positions, and the geometry of its grid.

`Network.of(model)` is made once and handed on. The moves, programs and geometries are pure Python and NumPy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.network.network import Network as Network


def __getattr__(name: str) -> Any:
    if name != "Network":  # which needs Keras, unlike the moves
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zoo.network.network import Network

    return Network
