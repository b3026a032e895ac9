"""Many images scanned by many processes, on one machine or a cluster of them, through Ray Data."""

import contextlib
import importlib.util
import io
import logging
import os
import pickle
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InputError, Interrupted, quoted, refuse
from zoo.installed import with_extra
from zoo.progress import silent_stderr, track

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

# Called with an image and the folder of its results; what it prints is kept.
ScanImage = Callable[[Path, Path], None]
# Called once in each worker with the model's path; what it returns scans one image after the other there.
Prepare = Callable[[Path], ScanImage]
# How many processes may end while they are at work on an image, before it is given up.
_MOST_KILLED = 4
# Bytes of shared memory for a local cluster: paths and lines of text are all that goes between its processes.
_SHARED = 2**27
# Seconds that a cluster may take to answer.
_PATIENCE = 10


@dataclass(frozen=True)
class Scanned:
    """One image of many: `text`, what its scan printed, and `error`, the reason where it could not be scanned."""

    image: Path
    text: str
    error: InputError | None = None


def scan_many(
    model: str | Path,
    tasks: Sequence[tuple[Path, Path]],
    prepare: Prepare,
    workers: int,
    gpus: bool = False,
    variables: Mapping[str, str] | None = None,
    progress: bool = False,
) -> list[Scanned]:
    """Call `prepare(model)(image, folder)` for every (image, folder) of `tasks`, in processes that prepare once each.

    The processes are those of a local Ray cluster that ends with the call; of the cluster that the environment variable
    RAY_ADDRESS names; or of the one that `ray.init` has connected to. Its machines need this package, and the files
    under the same paths. An image whose process is killed is begun anew, by a scan that goes on where it was if it
    streams to disk as `zoo.scan` does. The scores are those of one process with as many threads, bit for bit.

    Args:
        model: a .keras or .h5 file, or a run directory.
        tasks: images, and the folder of each one's results, which are made absolute paths.
        prepare: a function that pickle knows by name, or a `functools.partial` of one.
        workers: how many processes; each has its share of the processor cores, or a GPU.
        gpus: give every process a GPU of its own; else none is used.
        variables: environment variables of the processes, such as KERAS_BACKEND.
        progress: show a bar over the images, on a terminal.

    Returns:
        What became of each image, in the order of `tasks`.

    Raises:
        InputError: where Ray is not installed, fewer than one worker is asked for or more than the cluster has room
            for, or no cluster answers.
        OSError: that of the first image whose results could not be written; results that are there are kept, as below.
        Interrupted: after Ctrl-C.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        refuse("workers", quoted(workers), "a whole number of processes, at least 1")
    if importlib.util.find_spec("ray") is None:
        raise InputError(f"workers: several processes need ray; {with_extra('ray')}")
    workers, done = min(workers, len(tasks)), {}
    try:
        # Ray prints there that a process has ended, and more.
        with contextlib.redirect_stdout(io.StringIO()), _cluster(workers, gpus, variables or {}) as environment:
            rows = _run(Path(model).absolute(), tasks, prepare, workers, gpus, environment)
            for row in track(rows, "scanning", len(tasks)) if progress else rows:
                error = pickle.loads(row["error"])
                if isinstance(error, OSError):
                    raise error
                done[row["index"]] = Scanned(tasks[row["index"]][0], row["text"], error)
    except KeyboardInterrupt:
        kept = f"{len(done)} of {len(tasks)} images are done, and the same command goes on from there"
        raise Interrupted(f"interrupted; {kept}") from None
    return [done[index] for index in range(len(tasks))]


class _Attempts:
    """A process that counts how often each image has been begun; Ray itself would begin it anew for ever."""

    def __init__(self):
        self._begun: Counter[int] = Counter()

    def killed(self, index: int) -> int:
        """Count another attempt, and give the number of those before it."""
        self._begun[index] += 1
        return self._begun[index] - 1


class _Worker:
    """A process that keeps the model, and scans one image after the other."""

    def __init__(self, model: Path, prepare: Prepare, environment: dict[str, str], attempts: "ActorHandle"):
        os.environ.update(environment)
        self._attempts = attempts
        # Which loads the model, with what computes: after its threads are set.
        self._scan_image = prepare(model)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Scan the row's image; what is the user's to mend comes back as a row, and leaves the others alone."""
        import ray

        printed, error = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            try:
                counted: ObjectRef[int] = self._attempts.killed.remote(row["index"])
                if (killed := ray.get(counted)) >= _MOST_KILLED:
                    raise InputError(f"its process was killed {killed} times, for lack of memory perhaps")
                self._scan_image(Path(row["image"]), Path(row["folder"]))
            except (InputError, OSError) as caught:
                error = caught
        return {"index": row["index"], "text": printed.getvalue(), "error": pickle.dumps(error)}


def _run(
    model: Path,
    tasks: Sequence[tuple[Path, Path]],
    prepare: Prepare,
    workers: int,
    gpus: bool,
    environment: dict[str, str],
) -> Iterable[dict[str, Any]]:
    """The workers' rows, as they come; every image is a block of its own, which is what Ray begins anew."""
    import ray
    from ray.data import ActorPoolStrategy, from_items

    paths = [
        {"index": index, "image": str(image.absolute()), "folder": str(folder.absolute())}
        for index, (image, folder) in enumerate(tasks)
    ]
    rows = from_items(paths, override_num_blocks=len(paths)).map(
        _Worker,  # type: ignore[arg-type]  # Ray takes classes, for processes that last; its types say functions alone
        fn_constructor_args=(model, prepare, environment, ray.remote(num_cpus=0)(_Attempts).remote()),
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=1 if gpus else None,
    )
    rows.context.enable_progress_bars = False
    # One image may take hours.
    rows.context.execution_no_progress_timeout_s = -1
    return rows.iter_rows()


@contextlib.contextmanager
def _cluster(workers: int, gpus: bool, variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Connect to a Ray cluster, or start one on this machine, and say which environment its workers need."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data

    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL)
    ours, address = not ray.is_initialized(), os.environ.get("RAY_ADDRESS")
    if ours and address:
        _connect(address)
    elif ours:
        with silent_stderr():
            # One processor, as Ray counts them, stays free of workers: Ray Data's own tasks wait for ever without it.
            ray.init(
                "local",
                num_cpus=workers + 1,
                include_dashboard=False,
                object_store_memory=_SHARED,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    try:
        there = ray.cluster_resources()
        cpus, devices = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        if gpus and workers > devices:
            refuse("workers", f"{workers}, a GPU each", f"up to {devices}, the GPUs that Ray sees")
        if workers >= cpus:
            refuse("workers", workers, f"up to {cpus - 1}, one fewer than the Ray cluster's processors")
        cores = (os.cpu_count() or 1) if ours and not address else cpus
        yield {**_environment(max(cores // workers, 1), gpus), **variables}
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str) -> None:
    """Connect to the cluster that RAY_ADDRESS names; Ray itself waits for minutes for one that is not there."""
    import ray

    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        if host:
            socket.create_connection((host, int(port)), _PATIENCE).close()
        with silent_stderr():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError):
        accepted = "a Ray cluster that answers, and takes this machine's token (RAY_AUTH_MODE) if it asks for one"
        refuse("RAY_ADDRESS", quoted(address), accepted)


def _environment(threads: int, gpus: bool) -> dict[str, str]:
    """The environment variables of a worker that computes on a number of threads."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")}
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return {"TF_NUM_INTEROP_THREADS": "1", **limits, **hidden}
