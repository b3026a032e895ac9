"""A finished run as a folder for a model hub: README.md with the hub's metadata, model, config and checksums."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

from zoo import model_files
from zoo.config import Config
from zoo.errors import InputError, quoted, refuse
from zoo.files import Output, replacing_all, writing
from zoo.hub_readme import FinishedRun, readme_text
from zoo.made_by import MadeBy, key_of, sign
from zoo.settings import own_settings
from zoo.shipped import checksum

README = "README.md"
# What lies beside it, the checksums last.
_BESIDE = ("model.keras", "config.yaml", "SHA256SUMS")
# A licence as the hub's metadata have it: an identifier such as apache-2.0 or cc-by-4.0.
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@own_settings()
def write_hub_folder(run: Path, output: Path, licence: str | None = None, overwrite: bool = False) -> list[Path]:
    """Write a folder that can be uploaded as it is; `zoo.load` takes it, as it does a run directory.

    Args:
        run: the directory of a finished run.
        output: the folder: a new or empty one, or that of the same command on the same run. Hidden files in it, such as
            those of a version control, stay as they are.
        licence: that of the weights, by the hub's identifier; None says in the README that none is stated.
        overwrite: write into any other folder too, where files of other names stay.

    Raises:
        InputError: where the run is not finished, the licence is no identifier, or the folder holds something else.
    """
    finished = FinishedRun.read(run)
    if licence is not None and not _LICENCE.fullmatch(licence):
        refuse("--license", quoted(licence), "an identifier of the hub, such as apache-2.0, mit or cc-by-4.0")
    read = model_files.files_of(run)
    made_by = MadeBy("zoo card", {"run": [key_of(file) for file in read], "license": licence})
    readme = output / README
    outputs = [Output(readme), *(Output(output / name, owner=readme) for name in _BESIDE)]
    with writing(outputs, made_by, read, overwrite):
        _check_folder(output, overwrite)
        with replacing_all(readme) as folder:
            shutil.copyfile(run / "model.keras", folder / "model.keras")
            (folder / "config.yaml").write_text(without_places(finished.config).to_yaml(), encoding="utf-8")
            (folder / README).write_text(readme_text(finished, licence), encoding="utf-8")
            sums = [f"{checksum(folder / name)}  {name}\n" for name in _BESIDE[:-1]]
            (folder / _BESIDE[-1]).write_text("".join(sums), encoding="utf-8")
            beside = {name: key_of(folder / name) for name in _BESIDE}
            sign(folder / README, replace(made_by, beside=beside))
    return [output / name for name in (README, *_BESIDE)]


def _check_folder(output: Path, overwrite: bool) -> None:
    """Check that nothing but what this command writes, and hidden files, lies in a folder."""
    if overwrite or not output.is_dir():
        return
    others = sorted(each.name for each in output.iterdir() if each.name not in (README, *_BESIDE))
    if foreign := [name for name in others if not name.startswith(".")]:
        there = f"holds {foreign[0]!r}, which is not of this command"
        raise InputError(f"folder {str(output)!r}: {there}; accepted: a new or empty folder, or --overwrite")


def without_places(config: Config) -> Config:
    """A config in which files and folders of this machine are their names alone."""
    own = {key: Path(value.name) for key, value in config.data if isinstance(value, Path)}
    weights = config.train.weights
    train = {} if weights is None else {"weights": Path(weights).name}
    return config.model_copy(
        update={"data": config.data.model_copy(update=own), "train": config.train.model_copy(update=train)}
    )
