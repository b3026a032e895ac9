"""The one writer: who may replace what, links and devices, what killed writers left, and makers in files."""

import json
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from zoo import files
from zoo.errors import InputError
from zoo.files import Output, check_equal, check_output, replacing, sweep, write_json, writing
from zoo.made_by import MadeBy, key_of, maker_of, sign
from zoo.signals import stop_signals

MAKER = MadeBy("zoo try", {"model": "12ab", "options": {"tile": 3, "name": "a--b > c"}})
OTHER = MadeBy("zoo try", {"model": "99", "options": {}})


def png(path):
    Image.new("RGB", (5, 4), (1, 2, 3)).save(path, format="png")


def npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.arange(3))


def keras_like(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


def tiff(path):
    import tifffile

    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), bigtiff=True)


def onnx_file(path):
    onnx = pytest.importorskip("onnx")
    path.write_bytes(onnx.ModelProto(ir_version=8, producer_name="test").SerializeToString())


def folder(path):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"graph")


FORMATS = {
    "a.png": png,
    "a.npz": npz,
    "a.keras": keras_like,
    "a.tif": tiff,
    "a.onnx": onnx_file,
    "a.json": lambda path: path.write_text('{"b": [1, 2]}'),
    "gate": lambda path: path.write_text('{"b": [1, 2]}'),
    "a.html": lambda path: path.write_text("<!doctype html><p>é</p>"),
    "a.xml": lambda path: path.write_text("<net><layer/></net>"),
    "a.tflite": lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100)),
    "saved": folder,
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_says_what_made_it_and_is_what_it_was(name, tmp_path):
    path = tmp_path / name
    FORMATS[name](path)
    assert maker_of(path) is None
    sign(path, MAKER)
    assert maker_of(path) == MAKER
    if name.endswith(".png"):
        image = Image.open(path)
        image.load()
        assert image.getpixel((0, 0)) == (1, 2, 3) and "zoo try" in image.text["made_by"]
    if name.endswith(".npz"):
        assert np.load(path)["a"].tolist() == [0, 1, 2]
    if name.endswith(".keras"):
        assert zipfile.ZipFile(path).read("config.json") == b"{}"
    if name.endswith(".tif"):
        import tifffile

        assert tifffile.imread(path).shape == (16, 16)
    if name.endswith(".onnx"):
        import onnx

        model = onnx.load(path)
        assert model.producer_name == "test" and model.metadata_props[0].key == "made_by"
    if name.endswith(".xml"):
        from xml.etree import ElementTree

        assert ElementTree.parse(path).getroot().tag == "net"
    if name in ("a.json", "gate"):
        assert json.loads(path.read_text())["b"] == [1, 2]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{]", b"PK\3\4", b"\x89PNG", b"II*\0", b"<", b"[1]", b"top,left\n", b"\xff" * 99]
)
def test_what_is_no_record_names_no_maker(content, tmp_path):
    for name in ("a.bin", "a.onnx"):
        (tmp_path / name).write_bytes(content)
        assert maker_of(tmp_path / name) is None


def test_the_same_command_replaces_what_it_made_and_nothing_else(tmp_path):
    path = tmp_path / "answer.json"
    with writing([Output(path)], MAKER):
        write_json(path, {"n": 1}, MAKER)
    with writing([Output(path)], MAKER):
        write_json(path, {"n": 2}, MAKER)
    assert json.loads(path.read_text())["n"] == 2
    with pytest.raises(InputError, match="answer.json.*another model.*--overwrite"), writing([Output(path)], OTHER):
        pass
    with pytest.raises(InputError, match="made by `zoo try`"), writing([Output(path)], MadeBy("zoo else", {})):
        pass
    with writing([Output(path)], OTHER, overwrite=True):
        write_json(path, {"n": 3}, OTHER)
    path.write_text('{"n": "a stranger\'s"}')
    with pytest.raises(InputError, match="not made by this command"), writing([Output(path)], OTHER):
        pass
    assert "stranger" in path.read_text() and [each.name for each in tmp_path.iterdir()] == ["answer.json"]


@pytest.mark.parametrize("how", ["same", "symbolic link", "hard link", "inside", "around", "dots"])
def test_an_input_is_never_written_over_even_with_leave_to_overwrite(how, tmp_path):
    source, given = tmp_path / "source.zarr", tmp_path / "source.zarr"
    if how in ("inside", "around"):
        source.mkdir()
        (source / "zarr.json").write_text("{}")
    else:
        source.write_text("precious")
    if how == "symbolic link":
        given = tmp_path / "link"
        given.symlink_to(source)
    if how == "hard link":
        given = tmp_path / "hard"
        os.link(source, given)
    given = source / "scores.npy" if how == "inside" else tmp_path if how == "around" else given
    given = tmp_path / "x" / ".." / "source.zarr" if how == "dots" else given
    output = Output(given, folder=how == "around")
    with pytest.raises(InputError, match="is read by this command"), writing([output], MAKER, [source], overwrite=True):
        pass


def test_a_file_beside_another_is_replaced_with_it_only_as_it_was_made(tmp_path):
    xml, weights = tmp_path / "net.xml", tmp_path / "net.bin"
    outputs = [Output(xml), Output(weights, owner=xml)]

    def write():
        with writing(outputs, MAKER):
            with replacing(weights) as temporary:
                temporary.write_bytes(b"weights")
            beside = MadeBy(MAKER.command, MAKER.inputs, {"net.bin": key_of(weights)})
            with replacing(xml, beside) as temporary:
                temporary.write_text("<net/>")

    write()
    write()
    weights.write_bytes(b"of another net")
    with pytest.raises(InputError, match=r"net\.bin"):
        write()
    xml.unlink()
    with pytest.raises(InputError, match=r"net\.bin"):
        write()
    assert weights.read_bytes() == b"of another net"


def test_a_list_without_a_maker_is_replaced_by_its_equal_alone(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("top,left\n1,2\n")
    with writing([Output(path, equal=True)], MAKER):
        check_equal(path, "top,left\n1,2\n")
        with pytest.raises(InputError, match="--overwrite"):
            check_equal(path, "top,left\n1,3\n")
        check_equal(path, "top,left\n1,3\n", overwrite=True)


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real.json", tmp_path / "link.json"
    link.symlink_to(target)
    write_json(link, {"n": 1})
    write_json(link, {"n": 2})
    assert link.is_symlink() and json.loads(target.read_text()) == {"n": 2}
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    with pytest.raises((InputError, OSError), match=r"loop\.json"):
        write_json(loop, {})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.json", "loop.json", "there"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_refused_and_stays(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    path = tmp_path / "sink"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind("sink")
        server.close()
    else:
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except OSError:
            pytest.skip("a device file cannot be made here")
    mode = path.stat().st_mode
    for call in (check_output, lambda path: write_json(path, {})):
        with pytest.raises(InputError, match=f"sink.*{kind}"):
            call(path)
    assert path.stat().st_mode == mode


def test_an_error_leaves_nothing_and_names_the_path_asked_for(tmp_path):
    path = tmp_path / "new" / "deep" / "a.json"
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"No space.*a\.json"), replacing(path) as temporary:
        raise OSError(28, "No space left on device", str(temporary))
    assert not list(tmp_path.iterdir())
    for place in ("/proc/none/a.json", "/proc/a.json"):
        with pytest.raises((InputError, OSError), match=r"/proc/.*a\.json"):
            write_json(place, {})


def test_names_of_any_length_and_letters(tmp_path):
    with pytest.raises((InputError, OSError)) as raised:
        write_json(tmp_path / ("n" * 300), {})
    assert len(str(raised.value)) < 500
    for name in ("[1]*?.json", "ä ö.json", "-x.json", ".hidden.json"):
        write_json(tmp_path / name, {"n": 1})
        write_json(tmp_path / name, {"n": 2})
    assert len(list(tmp_path.iterdir())) == 4


def hold(path, ready, done):
    with writing([Output(path)], MAKER):
        ready.set()
        done.wait(30)


def test_two_at_once_and_what_a_killed_one_left(tmp_path):
    path = tmp_path / "net.keras"
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, ready, done))
    process.start()
    assert ready.wait(60)
    with pytest.raises(InputError, match=r"net\.keras.*another process"), writing([Output(path)], MAKER):
        pass
    process.kill()
    process.join()
    (tmp_path / ".123.zoo-net.keras").write_text("half")
    (tmp_path / ".124.zoo-net.keras-all").mkdir()
    (tmp_path / ".125.zoo-other.keras").write_text("another's")
    with writing([Output(path)], MAKER), replacing(path) as temporary:
        keras_like(temporary)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".125.zoo-other.keras", "net.keras"]
    sweep(tmp_path, r"other\.keras")
    assert [each.name for each in tmp_path.iterdir()] == ["net.keras"]
    for name in (".2024-net.keras", ".2024-backup-net.keras", ".12.zoo-net.keras.bak", ".poetry.lock"):
        (tmp_path / name).write_text("a user's")
    with writing([Output(path)], MAKER, overwrite=True), replacing(tmp_path / "x-net.keras") as temporary:
        keras_like(temporary)
        with writing([Output(tmp_path / "net")], MAKER):
            pass
        assert temporary.exists()
    assert len([each for each in tmp_path.iterdir() if each.name.startswith(".")]) == 4


def test_a_folder_takes_the_place_of_one(tmp_path):
    path = tmp_path / "saved"
    for content in ("one", "two"):
        with replacing(path, MAKER) as temporary:
            folder(temporary)
            (temporary / "name").write_text(content)
    assert (path / "name").read_text() == "two" and maker_of(path) == MAKER
    assert [each.name for each in tmp_path.iterdir()] == ["saved"]
    with pytest.raises(InputError, match="is a folder"), replacing(path) as temporary:
        temporary.write_text("a file")


def test_a_folder_that_was_set_aside_is_put_back(tmp_path, monkeypatch):
    """The process ends, or is interrupted, between the two renames."""
    path, replace, calls = tmp_path / "saved", os.replace, []
    with replacing(path) as temporary:
        folder(temporary)

    class End(BaseException):
        pass

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise End
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", second_fails)
        with pytest.raises(End), replacing(path) as temporary:
            folder(temporary)
    assert (path / "saved_model.pb").exists()
    aside = tmp_path / ".99.zoo-old-saved"
    path.rename(aside)
    with writing([Output(path, folder=True)], MAKER, overwrite=True):
        assert (path / "saved_model.pb").exists() and not aside.exists()


def test_a_file_of_parts_is_never_beside_the_parts_of_another(tmp_path, monkeypatch):
    path = tmp_path / "net.xml"
    path.write_text("old")
    (tmp_path / "net.bin").write_text("old")
    rename = files.rename

    def interrupted(source, target):
        rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), files.replacing_all(path) as working:
        (working / "net.xml").write_text("new")
        (working / "net.bin").write_text("new")
    assert not path.exists()


def test_a_key_changes_with_content_and_with_any_file_of_a_folder(tmp_path):
    file = tmp_path / "a"
    file.write_text("1")
    first = key_of(file)
    file.write_text("2")
    assert key_of(file) != first
    (tmp_path / "b").write_text("2")
    assert key_of(tmp_path / "b") == key_of(file)
    before = key_of(tmp_path)
    os.utime(file, ns=(1, 1))
    assert key_of(tmp_path) != before


STOPPED = """
import os, signal, sys, time
from zoo.cli import main
from zoo.cli.start import zoo

@zoo.command("wait")
def wait():
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(30)

zoo.list_commands = lambda context: []
main(["wait"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_termination_and_a_closed_terminal_end_like_ctrl_c(number):
    done = subprocess.run([sys.executable, "-c", STOPPED, str(int(number))], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and done.stderr.strip() == "zoo: interrupted", done.stderr


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signals() and signal.SIGTERM in stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
