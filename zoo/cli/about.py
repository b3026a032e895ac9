"""What a package for others tells of a model beyond its card: results, data and papers, as far as they are known."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import quoted, refuse
from zoo.exporting.bioimageio_description import About


def about_of(model: Path, authors: Sequence[str], licence: str | None) -> About:
    """What is known of a catalogue name with shipped weights, or of a finished run; of a file alone, what was given.

    Args:
        model: as a command takes it.
        authors: names, as given.
        licence: that of the weights, as given; None where none is stated.

    Raises:
        InputError: where the licence is no identifier of SPDX.
    """
    from zoo import catalogue
    from zoo.config import load_config
    from zoo.shipped import is_shipped

    if licence is not None:
        licence = _identifier(licence)
    if is_shipped(model) and not model.exists():
        family, results = catalogue.resolve(str(model)).family, _of_shipped(str(model))
    elif (model / "evaluation.json").is_file():
        family, results = load_config(model / "config.yaml").model.family, _of_run(model, licence)
    else:
        return About(tuple(authors), licence)
    return About(tuple(authors), licence, _papers(family), results)


def _identifier(licence: str) -> str:
    """A licence's identifier as SPDX writes it."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        known = str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        known = ""
    if not re.fullmatch("[A-Za-z0-9.+-]+", known):
        refuse("--license", quoted(licence), "an SPDX identifier, such as MIT, Apache-2.0 or CC-BY-4.0")
    return known


def _papers(family: str) -> tuple[tuple[str, str], ...]:
    """The papers that a family's module names in its first line, each with its DOI."""
    from zoo.models.families import FAMILIES

    if family not in FAMILIES:
        return ()
    line = (sys.modules[FAMILIES[family].__module__].__doc__ or "").partition("\n")[0]
    return tuple((line, f"10.48550/arXiv.{number}") for number in re.findall(r"arXiv:(\d{4}\.\d{4,5})", line))


def _of_shipped(name: str) -> str:
    from zoo.shipped import index

    row = index().models[name]
    data = index().data[row.data]
    found = "".join(f", F1 of {each} {value:.3f}" for each, value in row.f1.items())
    return (
        f"## Results\n\nOn {row.n:,} test images: accuracy {row.accuracy:.2%}, expected calibration error "
        f"{row.expected_calibration_error:.2%}{found} ({row.date}). Trained by `{row.command()}`; {row.protocol}.\n\n"
        f"## Data\n\n{data.title}, {data.url}. Licence of the data: {data.licence}."
    )


def _of_run(run: Path, licence: str | None) -> str:
    """The parts of the run's README for a model hub that are about the run and not about its files."""
    from zoo.hub_readme import FinishedRun, readme_text

    text = readme_text(FinishedRun.read(run), licence)
    return text[text.index("## Results") : text.index("## Limits")].strip()
