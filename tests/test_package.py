"""The wheels: what an installation into an empty directory brings, and one into an environment without TensorFlow."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import noise

import zoo
from zoo.scores import relative_error

ROOT = Path(__file__).resolve().parents[1]
SLIM = ROOT / "packaging" / "scan"


def built(project, folder):
    """The wheel of a project, built into a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as its wheel unpacks it, away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(built(ROOT, folder)) as archive:
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


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_scans_alone_needs_a_part_of_what_all_of_it_needs():
    full, slim = project(ROOT), project(SLIM)
    assert set(slim["dependencies"]) < set(full["dependencies"])
    assert not [each for each in slim["dependencies"] if each.startswith(("tensorflow", "keras"))]
    for name, brought in slim["optional-dependencies"].items():
        assert set(brought) <= set(full["optional-dependencies"][name])
    for key in ("requires-python", "license", "scripts"):
        assert slim[key] == full[key]


@pytest.mark.extended
@pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is None, reason="without ONNX")
def test_it_scans_in_an_environment_without_tensorflow(tmp_path):
    """The slim wheel in a fresh environment, with ONNX Runtime: the scores are Keras's."""
    wheel, environment = built(SLIM, tmp_path), tmp_path / "environment"
    assert wheel.name.startswith(f"bottleneck_zoo_scan-{project(ROOT)['version']}-")
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(programs / "python"), "-m", "pip"]
    asked = [*pip, "download", "-q", "--no-deps", "-d", str(tmp_path / "asked"), "click>=8.2"]
    if subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("no package index is reachable")
    subprocess.run([*pip, "install", "-q", f"{wheel}[onnx]"], check=True, capture_output=True)

    def run(*arguments, code=0):
        """Run `zoo ...` of that environment, away from the checkout."""
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        line = [str(programs / "zoo"), *map(str, arguments)]
        done = subprocess.run(line, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stdout if code == 0 else done.stderr

    fcn, image = zoo.convolutionalize(zoo.build("nin_mnist_valid", weights="pretrained")), noise(90, 120)
    zoo.export(fcn, tmp_path / "fcn.onnx", format="onnx")
    zoo.save(fcn, tmp_path / "fcn.keras")
    np.save(tmp_path / "image.npy", image.astype(np.uint8))
    assert run("--version").split()[1] == project(ROOT)["version"]
    run("scan", "fcn.onnx", "image.npy", "-o", "scanned")
    with np.load(tmp_path / "scanned" / "scores.npz") as given:
        assert relative_error(given["scores"], zoo.scan(fcn, image).scores) <= 1e-4
    zoo.export(zoo.build("nin_mnist_valid", weights="pretrained"), tmp_path / "classifier.onnx", format="onnx")
    assert "image.npy: " in run("predict", "classifier.onnx", "image.npy")
    run("scan", "fcn.onnx", "image.npy", "-o", "zarr", "--format", "zarr")
    for arguments in (
        ("scan", "fcn.keras", "image.npy", "-o", "other"),
        ("train", "nin_digits"),
        ("describe", "nin_digits"),
    ):
        assert "needs keras, which is not installed here; accepted: pip install bottleneck-zoo" in run(
            *arguments, code=2
        )
    said = run("scan", "fcn.xml", "image.npy", "-o", "other", code=2)
    assert "format 'openvino': needs openvino; pip install 'bottleneck-zoo-scan[openvino]'" in said
    assert not (tmp_path / "other").exists() and not (tmp_path / "runs").exists()
    installed = subprocess.run([*pip, "list", "--format", "freeze"], capture_output=True, text=True, check=True).stdout
    assert "tensorflow" not in installed and "keras" not in installed
    # Of which docs/scan_without_keras.md says how many there are.
    files = (each for each in (environment / "lib").rglob("*") if each.is_file() and each.suffix != ".pyc")
    assert sum(each.stat().st_size for each in files) < 550e6
