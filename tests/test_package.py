"""The wheel: what an installation into an empty directory brings."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as its wheel unpacks it, away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("bottleneck_zoo-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_configs_and_catalogue_travel_in_the_wheel(installed):
    shipped = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert {path.name for path in (installed / "zoo" / "configs").glob("*.yaml")} == shipped
    assert (installed / "zoo" / "catalogue.yaml").is_file()
    here, there = (sorted((root / "zoo" / "pretrained").iterdir()) for root in (ROOT, installed))
    assert [(path.name, path.read_bytes()) for path in there] == [(path.name, path.read_bytes()) for path in here]
    assert not (installed / "tests").exists() and not list(installed.rglob("*.npz"))


@pytest.mark.extended
def test_it_trains_from_an_empty_directory(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "zoo", "train", "nin_digits", "train.epochs=1", "canvas=null", "--workdir", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "evaluation.json").is_file()
    where = "import zoo.config; print(zoo.config.find_config('nin_digits'))"
    command = [sys.executable, "-c", where]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(installed)
