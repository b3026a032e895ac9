"""What every command shares: the group, a quiet start-up, run directories, exit codes."""

import contextlib
import importlib.util
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from zoo.cli.command import Command, version_option
from zoo.errors import Differs, InputError, Interrupted, os_text, printable, quoted, refuse, shortened
from zoo.progress import at_work, note, silent_stderr
from zoo.signals import all_like_ctrl_c, stop_signals

_BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
# The order of the work, which is the one of the help.
_ORDER = (
    "list",
    "describe",
    "train",
    "evaluate",
    "predict",
    "convert",
    "tile",
    "scan",
    "regions",
    "export",
    "card",
    "plot",
)


class _Group(click.Group):
    """Commands in the order of the work, not of the alphabet."""

    command_class = Command

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)


@click.group(
    cls=_Group,
    params=[version_option()],
    epilog="Example: zoo train nin_digits --workdir runs/digits",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def zoo() -> None:
    """Bottleneck architectures: build from a config, train, convert the head, slide it over large images.

    MODEL is a .keras or .h5 file, a run directory, or a name from `zoo list --pretrained`; of scan and predict also an
    .onnx or .xml file of `zoo export`. CONFIG is a .yaml file or a name from `zoo list`.

    Results go to the standard output, with --json as JSON and nothing else; progress and errors go to the standard
    error stream, where a line each few seconds tells how far the work has come if it is no terminal. Exit codes: 0
    done, 2 the input is wrong (one line says what), 1 anything else.

    \b
    Tab completion, of names too, by a line in ~/.bashrc:
        eval "$(_ZOO_COMPLETE=bash_source zoo)"
    In ~/.zshrc the same with zsh_source; in fish:
        _ZOO_COMPLETE=fish_source zoo | source
    """  # noqa: D301 - click's mark of lines that stay


def config_of(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The CONFIG and the overrides among arguments, which stand in any order."""
    config = next((each for each in arguments if "=" not in each or Path(each).is_file()), None)
    if config is None:
        raise click.MissingParameter(param_type="argument", param_hint="'CONFIG'")
    overrides = list(arguments)
    overrides.remove(config)
    return config, overrides


def run_config(run: Path, overrides: Sequence[str] = ()):
    """The config of a run directory, with some values in place of its own."""
    from zoo.config import load_config

    if not (run / "config.yaml").is_file():
        raise InputError(f"run directory {str(run)!r}: has no config.yaml; accepted: a directory that `zoo train` made")
    return load_config(run / "config.yaml", overrides)


def training_config(model: Path, overrides: Sequence[str] = ()):
    """The config that a model was trained by, that of a run directory or of shipped weights, with some other values."""
    from zoo.config import load_config
    from zoo.shipped import index

    if (row := index().models.get(str(model))) is None or (model / "config.yaml").is_file():
        return run_config(model, overrides)
    return load_config(row.config, [*row.overrides, f"seed={row.seed}", *overrides])


def say_notes(image: Path, notes: Sequence[str]) -> None:
    """Print what was noted while a picture was read."""
    for each in notes:
        note(f"note: {image} {each}")


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Import what takes long: without TensorFlow's start-up log, ready for Ctrl-C, on a backend that is there."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend and (backend not in _BACKENDS or importlib.util.find_spec(backend) is None):
        there = ", ".join(name for name in _BACKENDS if importlib.util.find_spec(name))
        refuse("KERAS_BACKEND", quoted(backend), f"{there}, which are installed here")
    with at_work("starting"), _interruptible(), _hidden_log():
        yield
        # Keras reads and writes models with TensorFlow at hand where it is installed, under any backend.
        if "keras" in sys.modules and importlib.util.find_spec("tensorflow"):
            importlib.import_module("tensorflow")


def start_for(model: Path) -> None:
    """Import what loads the model in a file, as `quiet_start` does; for an exported file nothing."""
    from zoo.exported.network import has_engine

    if not has_engine(model):
        with quiet_start():
            importlib.import_module("zoo.model_files")
            importlib.import_module("zoo.engines.factory")


def backend_variables() -> dict[str, str]:
    """The environment variables with which another process computes with the same backend; none without Keras."""
    keras = sys.modules.get("keras")
    return {} if keras is None else {"KERAS_BACKEND": keras.backend.backend()}


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and its like end the process at once, while nothing is at work that could be left half done.

    An exception in the middle of TensorFlow's start-up comes out as an ImportError, or as a crash.
    """
    numbers = [each for each in stop_signals() if signal.getsignal(each) is signal.default_int_handler]
    shown, name = os.dup(2), click.get_current_context().find_root().info_name

    def stop(number: int, frame: object) -> None:
        os.write(shown, f"\n{name}: interrupted\n".encode())
        os._exit(130)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
        os.close(shown)


@contextlib.contextmanager
def _hidden_log() -> Iterator[None]:
    """Hide what TensorFlow's C++ code writes about this machine, from its start-up on, whatever log level is set.

    What it writes while it is imported heeds no level; a process that ends for a fault of TensorFlow still says so.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with silent_stderr():
        yield


def _how_to_install() -> str:
    if importlib.util.find_spec("keras") is None:
        return "pip install bottleneck-zoo, or of `zoo scan` and `zoo predict` a model in .onnx or .xml"
    return "an installation with it"


def main(arguments: Sequence[str] | None = None, command: click.Command = zoo, name: str = "zoo") -> None:
    """Run `command` and exit: 0 done, 2 the user's input is wrong (one line on stderr), 130 interrupted, 1 else."""
    for which, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, which) is None:
            # It was closed, and a file of ours would have its number else.
            setattr(sys, which, open(os.devnull, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In an ASCII locale a name is printed with escapes, instead of ending the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        with all_like_ctrl_c():
            sys.exit(command.main(args=arguments, prog_name=name, standalone_mode=False))
    except InputError as error:
        code, text = 2, str(error)
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        where = "" if path == name else f"{path}: "
        code, text = 2, f"{where}{error.format_message().rstrip('.')}; see --help"
    except ModuleNotFoundError as error:
        missing = (error.name or "zoo").partition(".")[0]
        if missing == "zoo":
            raise
        code, text = 2, f"needs {missing}, which is not installed here; accepted: {_how_to_install()}"
    except Interrupted as error:
        code, text = 130, str(error)
    except Differs as error:
        code, text = 1, str(error)
    except (click.Abort, KeyboardInterrupt):
        code, text = 130, "interrupted"
    except OSError as error:
        if error.filename is None and not error.strerror:
            raise
        code, text = 1, os_text(error)
    click.echo(f"{name}: {shortened(printable(' '.join(text.split())))}", err=True)
    sys.exit(code)
