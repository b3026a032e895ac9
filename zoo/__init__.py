"""The bottleneck zoo: build, train, convert and scan small convolutional classifiers.

The public names load what they need when they are first used, so that `import zoo` is quick and needs no backend.
"""

import importlib
import os
from typing import Any

# TensorFlow, which reads it when it is loaded, leaves oneDNN off where a processor has no AVX-512. With it training is
# twice as fast there, and models with their channels first run at all (docs/speed.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_HOMES = {
    "answer": "zoo.scanning.answers",
    "RoIPooling": "zoo.engines.roi",
    "Choice": "zoo.pictures",
    "Network": "zoo.network.network",
    "build": "zoo.builder",
    "class_activation": "zoo.activation_maps",
    "convolutionalize": "zoo.convert.conversion",
    "describe": "zoo.layer_table",
    "evaluate": "zoo.evaluation",
    "export": "zoo.exporting.writing",
    "geometry": "zoo.network.network",
    "list_models": "zoo.catalogue",
    "load": "zoo.model_files",
    "load_config": "zoo.config",
    "register_layer": "zoo.network.rules",
    "run": "zoo.experiment",
    "save": "zoo.model_files",
    "scan": "zoo.large_images",
    "score_boxes": "zoo.large_images",
    "verify": "zoo.convert.verification",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
