"""Signals that ask a process to stop: Ctrl-C, termination, a closed terminal. They all end work in the same way."""

import contextlib
import signal
from collections.abc import Iterator


def stop_signals() -> list[int]:
    """The signals to listen to; one that the process was started to ignore, as by nohup, stays ignored."""
    known = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [number for number in known if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def all_like_ctrl_c() -> Iterator[None]:
    """Make termination and a closed terminal raise a KeyboardInterrupt, as Ctrl-C does."""
    default = [number for number in stop_signals() if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in default:
            signal.signal(number, signal.default_int_handler)
    except ValueError:  # not in the main thread, where Python takes no handlers
        default = []
    try:
        yield
    finally:
        for number in default:
            signal.signal(number, signal.SIG_DFL)
