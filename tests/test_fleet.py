import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import SCAN_FILES, command
from PIL import Image

import zoo as package
from zoo.errors import InputError
from zoo.scanning.fleet import _environment, scan_many

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra `ray`")
NAMES = "abcdef"


@pytest.fixture
def folder(tmp_path):
    """Six images, and a broken one."""
    (tmp_path / "images").mkdir()
    for index, name in enumerate(NAMES):
        pixels = np.random.default_rng(index).integers(0, 256, (66, 60), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "broken.png").write_text("no image")
    return tmp_path / "images"


def start(*arguments):
    """Run `zoo scan` with two workers in processes of its own."""
    foreign = ("RAY_ADDRESS", "TF_CPP_MIN_LOG_LEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    return subprocess.Popen(
        [sys.executable, "-m", "zoo", "scan", *map(str, arguments), "--workers", "2"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def worker_half_done(command, output):
    """Wait for a finished image and a half-done one: the latter's worker, which is suspended, and its folder's name."""
    while command.poll() is None:
        for journal in output.glob("*/scores.npy.journal"):
            lock = str(journal.with_name(".scores.npy.lock"))
            try:
                if len(journal.read_text().splitlines()) < 10 or not list(output.glob("*/geometry.json")):
                    continue
                for process in psutil.Process(command.pid).children(recursive=True):
                    if any(file.path == lock for file in process.open_files()):
                        process.suspend()
                        if not journal.with_name("geometry.json").exists():
                            return process, journal.parent.name
                        process.resume()
            except (OSError, psutil.Error):
                continue
        time.sleep(0.02)
    raise AssertionError(f"no image was seen half done: {command.communicate()}")


def stamps(output):
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.glob("*/geometry.json")}


def check_results(model_file, folder, output):
    model = package.load(model_file)
    assert sorted(path.name for path in output.iterdir()) == [*NAMES, "uncertainty.csv", "uncertainty.json"]
    for name in NAMES:
        assert sorted(path.name for path in (output / name).iterdir()) == SCAN_FILES
        wanted = package.scan(model, folder / f"{name}.png", tile=6).scores
        with np.load(output / name / "scores.npz") as saved:
            np.testing.assert_allclose(saved["scores"], wanted, rtol=1e-5, atol=1e-5)


def without_progress(errors):
    """The lines but those that tell how far a command is, which end with the seconds."""
    return [line for line in errors.splitlines() if not re.search(r", \d+ s$", line)]


@needs_ray
@pytest.mark.extended
def test_nothing_is_lost_or_double_when_a_worker_is_killed(model_file, folder, tmp_path):
    output = tmp_path / "out"
    command = start(model_file, folder, "-o", output, "--tile", 6)
    worker, name = worker_half_done(command, output)
    finished = stamps(output)
    worker.kill()
    out, err = command.communicate()
    first, last = without_progress(err)
    assert command.returncode == 2 and "broken.png: unknown format" in first
    assert last == "zoo: 1 of 7 images could not be scanned; the lines above say why"
    assert name not in {path.parent.name for path in finished} and finished
    assert {path: stamp for path, stamp in stamps(output).items() if path in finished} == finished
    for each in NAMES:
        assert out.count(f"{folder / each}.png:") == 1 and out.count(f"wrote {output / each / 'scores.npz'}") == 1
    # Beside those of each image the line about crops, and the list of all by their uncertainty.
    assert out.count("\n") == 4 * len(NAMES) + 1 + (2 + len(NAMES))
    check_results(model_file, folder, output)


@pytest.mark.slow
@needs_ray
def test_an_interrupt_ends_the_workers_and_one_process_goes_on(capsys, model_file, folder, tmp_path):
    output = tmp_path / "out"
    started = start(model_file, folder, "-o", output, "--tile", 6)
    worker, _ = worker_half_done(started, output)
    worker.resume()
    processes = psutil.Process(started.pid).children(recursive=True)
    os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate()
    assert started.returncode == 130 and out == "" and len(without_progress(err)) == 1, err
    assert "of 7 images are done, and the same command goes on from there" in err
    psutil.wait_procs(processes, timeout=10)
    assert not any(process.is_running() for process in processes)
    finished = stamps(output)
    (folder / "broken.png").unlink()
    code, out, _ = command(capsys, "scan", model_file, folder, "-o", output, "--tile", 6)
    assert code == 0 and out.count("is there already") == len(finished) > 0
    assert {path: stamp for path, stamp in stamps(output).items() if path in finished} == finished
    check_results(model_file, folder, output)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_a_bad_number_of_workers_is_refused(model_file, tmp_path, workers):
    with pytest.raises(InputError, match=f"workers: received {workers}; accepted: a whole number of processes"):
        scan_many(model_file, [(tmp_path / "a.png", tmp_path / "a")], print, workers)


def test_without_ray_the_way_to_install_it_is_told(capsys, monkeypatch, model_file, folder, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = command(capsys, "scan", model_file, folder, "-o", tmp_path / "out", "--workers", 2)
    assert code == 2 and err == "zoo: workers: several processes need ray; pip install 'bottleneck-zoo[ray]'\n"


@needs_ray
def test_a_cluster_that_does_not_answer_is_told(capsys, monkeypatch, model_file, folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    code, _, err = command(capsys, "scan", model_file, folder, "-o", tmp_path / "out", "--workers", 2)
    assert code == 2 and err.startswith(f"zoo: RAY_ADDRESS: received '{address}'; accepted: a Ray cluster")


def test_one_image_is_not_shared_out(capsys, model_file, folder, tmp_path):
    code, _, err = command(capsys, "scan", model_file, folder / "a.png", "-o", tmp_path / "out", "--workers", 2)
    assert code == 2 and "--workers: received 2 for one image; accepted: several images, or a folder" in err
    code, _, err = command(capsys, "scan", model_file, folder, "-o", tmp_path / "out", "--gpus")
    assert code == 2 and "--gpus has no effect without --workers" in err
    assert not Path(tmp_path / "out").exists()


def test_a_worker_has_its_share_of_the_threads_and_no_gpu_unless_asked():
    environment = _environment(3, gpus=False)
    assert environment["TF_NUM_INTRAOP_THREADS"] == environment["NPROC"] == environment["OMP_NUM_THREADS"] == "3"
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1" and "CUDA_VISIBLE_DEVICES" not in _environment(3, gpus=True)
