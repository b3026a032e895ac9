"""Data-parallel training with the JAX backend: all devices of a host, or of several hosts, as one.

Each process feeds its share of every global batch; the first one alone reads checkpoints and writes. What it reads, all
others receive, so that hosts need no common file system.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from zoo.errors import InputError, Interrupted, quoted, refuse

_VARIABLES = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
# JAX would wait for 100 seconds before it takes a silent process for dead, and 300 for the last one at the end.
_TIMEOUT = 30
_LOST = ("ABORTED: ", "CANCELLED: ", "DEADLINE_EXCEEDED: ", "INTERNAL: ", "UNAVAILABLE: ", "UNKNOWN: ")


@dataclass(frozen=True)
class Job:
    """The processes that train together, `process` being this one; `devices` are those of all of them."""

    process: int = 0
    processes: int = 1
    devices: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the run directory."""
        return self.process == 0

    def share(self, start: int, stop: int) -> slice:
        """This process's part of a global batch from `start` to `stop`; the parts are equal."""
        size = (stop - start) // self.processes
        return slice(start + self.process * size, start + (self.process + 1) * size)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all have to ask."""
        if self.processes == 1:
            return flag
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.array(flag)).any())

    def from_first(self, values: Any) -> Any:
        """The first process's numbers or arrays, in any nesting; the others give some of the same shapes and types."""
        if self.processes == 1:
            return values
        from jax.experimental import multihost_utils

        return multihost_utils.broadcast_one_to_all(values, is_source=self.first)

    def check(self, key: str, count: int) -> None:
        """Check that batches of `count` images fall into equal parts.

        Raises:
            InputError: beginning with `key`, where they do not.
        """
        if count % self.devices:
            refuse(key, f"{count} images", f"a multiple of {self.devices}, the devices of train.distribute")


ALONE = Job()


@contextlib.contextmanager
def joined(distribute: str | None) -> Iterator[Job]:
    """Join the processes that the environment names, and place all variables and batches on all their devices.

    With KERAS_DISTRIBUTION_JOB_ADDRESSES (host:port of process 0, or a comma-separated list that begins with it),
    KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID; without them this process's devices alone.

    Raises:
        InputError: for another backend, or variables that cannot be used.
    """
    if distribute is None:
        yield ALONE
        return
    if keras.backend.backend() != "jax":
        refuse(
            "train.distribute",
            f"{distribute!r} on the {keras.backend.backend()} backend",
            "KERAS_BACKEND=jax in the environment",
        )
    import jax

    address, processes, process = environment()
    if processes > 1:
        # As keras.distribution.initialize, which takes no time limits.
        jax.distributed.initialize(
            address, processes, process, heartbeat_timeout_seconds=_TIMEOUT, shutdown_timeout_seconds=_TIMEOUT
        )
    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))
    try:
        yield Job(process, processes, len(devices))
    except (InputError, Interrupted):
        # All processes come here together.
        raise
    except BaseException as error:
        if processes > 1:
            _leave(process, processes, error)
        raise
    finally:
        keras.distribution.set_distribution(None)
        if processes > 1:
            jax.distributed.shutdown()


def _leave(process: int, processes: int, error: BaseException) -> None:
    """End this process at once: JAX's own shutdown waits for the others, who wait for this one, and then aborts."""
    # A collective that fails raises a JaxRuntimeError or a ValueError; both begin with the status.
    lost = str(error).startswith(_LOST)
    if not lost and not isinstance(error, OSError):
        traceback.print_exception(error)
    cause = " ".join(str(error).split()) or type(error).__name__
    print(
        f"zoo: process {process} of {processes}: the job has ended{', another process was lost' if lost else ''} "
        f"({cause}); started again, it goes on from its last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(1)


def environment() -> tuple[str | None, int, int]:
    """The address of process 0, the number of processes, and this one's number."""
    names = [f"KERAS_DISTRIBUTION_{name}" for name in _VARIABLES]
    values = [os.environ.get(name, "") for name in names]
    if not any(values):
        return None, 1, 0
    for name, value in zip(names, values, strict=True):
        if not value:
            raise InputError(f"{name}: is not set; accepted: all of {', '.join(names)}, or none")
    address, *numbers = values
    for name, value in zip(names[1:], numbers, strict=True):
        if not value.isdigit():
            refuse(name, quoted(value), "a whole number")
    processes, process = map(int, numbers)
    if process >= processes:
        refuse(names[2], process, f"0 to {processes - 1} for {processes} processes")
    address = address.split(",")[0].strip()
    if not address.rpartition(":")[2].isdigit():
        refuse(names[0], quoted(address), "host:port of process 0")
    return address, processes, process
