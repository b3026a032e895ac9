"""What this package is installed as: all of it, or what scans by exported files without Keras."""

from importlib.metadata import PackageNotFoundError, version

# Where both are, they hold the same files.
DISTRIBUTIONS = ("bottleneck-zoo", "bottleneck-zoo-scan")


def distribution() -> tuple[str, str]:
    """The name of the distribution that is installed, and its version; "unknown" of a copy that is not installed."""
    for name in DISTRIBUTIONS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return DISTRIBUTIONS[0], "unknown"


def with_extra(extra: str) -> str:
    """The command that installs what an extra brings."""
    return f"pip install '{distribution()[0]}[{extra}]'"
