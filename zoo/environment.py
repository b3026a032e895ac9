"""What a run records about where it ran: versions, hardware, data."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
from typing import Any

import keras

from zoo import processor
from zoo.data import Dataset

_PACKAGES = ("bottleneck-zoo", "keras", "tensorflow", "jax", "numpy")


def describe_environment(dataset: Dataset) -> dict[str, Any]:
    """Backend, versions, processor, devices and the fingerprints of the data."""
    return {
        "backend": keras.backend.backend(),
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor.model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": _devices(),
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "test_fingerprint": dataset.test_fingerprint,
    }


def versions() -> dict[str, str]:
    """The versions of the packages that compute, of those that are installed."""
    there = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            there[name] = importlib.metadata.version(name)
    return there


def timestamp() -> str:
    """The time, to the second, with its zone (ISO 8601)."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def machine(environment: dict[str, Any]) -> str:
    """Where a run was, in words: what `describe_environment` said of it; a device is told where it is no processor."""
    devices = [device for device in environment["devices"] if not device.startswith("cpu")]
    return ", ".join([f"{environment['cores']} cores of {environment['processor']}", *devices])


def _devices() -> list[str]:
    """What the backend computes on, with the accelerators' models."""
    if keras.backend.backend() == "jax":
        import jax

        return [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
    if keras.backend.backend() == "tensorflow":
        return keras.distribution.list_devices()
    # Of the others Keras has no list.
    return [str(keras.ops.zeros(1).device)]
