"""The bottleneck zoo: build, train, convert and scan small convolutional classifiers.

The public names load what they need when they are first used, so that `import zoo` is quick and needs no backend.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_HOMES = {
    "answer": "zoo.scanning.answers",
    "RoIPooling": "zoo.scanning.roi",
    "Choice": "zoo.pictures",
    "build": "zoo.build",
    "convolutionalize": "zoo.dense.convert",
    "describe": "zoo.describe",
    "evaluate": "zoo.evaluate",
    "export": "zoo.export",
    "geometry": "zoo.dense.geometry",
    "list_models": "zoo.catalogue",
    "load": "zoo.saving",
    "load_config": "zoo.config",
    "run": "zoo.run",
    "save": "zoo.saving",
    "scan": "zoo.scanning.scan",
    "score_boxes": "zoo.scanning.regions",
    "verify": "zoo.dense.verify",
}
__all__ = list(_HOMES)


class _Package(ModuleType):
    """A package whose public functions win over the modules of the same name (`zoo.build` is the function).

    Python binds a module to its package when it is first imported, and would hide the function behind it.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'zoo' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package
