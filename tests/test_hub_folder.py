"""A run as a folder for a model hub: its metadata and figures are those of the run's files, and it is a model."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import command, noise
from finished_runs import change_report, finished_run

import zoo
from zoo.card import Card, attach, card
from zoo.config import load_config
from zoo.errors import InputError
from zoo.hub_folder import without_places, write_hub_folder
from zoo.hub_readme import FinishedRun, metadata, readme_text
from zoo.network.network import Network

FILES = ["README.md", "SHA256SUMS", "config.yaml", "model.keras"]
FROZEN = Path(__file__).with_name("frozen") / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run; not to be changed."""
    return finished_run(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The folder of the run; not to be changed."""
    folder = tmp_path_factory.mktemp("hub") / "digits"
    write_hub_folder(run, folder, licence="apache-2.0")
    return folder


@pytest.fixture(scope="module")
def finished(run):
    """What the run's files say."""
    return FinishedRun.read(run)


def report_of(folder):
    return json.loads((folder / "evaluation.json").read_text())


def changed(finished, report=(), **about):
    """A run whose report, or whose model's card, says something else."""
    model = zoo.load(FROZEN)
    attach(model, Card.model_validate({**card(finished.network.model).model_dump(), **about}))
    network = Network.of(model) if about else finished.network
    return dataclasses.replace(finished, report={**finished.report, **dict(report)}, network=network)


def test_the_folder_holds_what_a_hub_takes_and_loads_as_a_model(capsys, run, written, tmp_path):
    assert sorted(path.name for path in written.iterdir()) == FILES
    sums = dict(reversed(line.split("  ")) for line in (written / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((written / name).read_bytes()).hexdigest() for name in FILES[2:]}
    assert load_config(written / "config.yaml") == load_config(run / "config.yaml")
    model, images = zoo.load(written), noise(2, 8, 8, 1)
    np.testing.assert_array_equal(np.asarray(model(images)), np.asarray(zoo.load(run)(images)))
    assert card(model).class_names == tuple("0123456789")
    np.save(tmp_path / "image.npy", noise(1, 20, 20, 1)[0].astype(np.uint8))
    code, out, err = command(capsys, "scan", written, tmp_path / "image.npy", "-o", tmp_path / "scanned", "--no-check")
    assert code == 0 and "7 x 7 cells" in out, err


def test_the_metadata_are_the_runs_own_results(run, written):
    report = report_of(run)
    head = yaml.safe_load((written / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["library_name"] == "keras" and head["datasets"] == ["digits"]
    (index,) = head["model-index"]
    (result,) = index["results"]
    assert index["name"] == "nin_digits" and result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    keys = ["accuracy", "loss", "expected_calibration_error"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == {key: report[key] for key in keys}
    assert head["metrics"] == keys


def test_the_hubs_own_reader_finds_the_results_again(run, written):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    found = hub.ModelCard.load(written / "README.md")
    results = {each.metric_type: each for each in found.data.eval_results}
    report = report_of(run)
    assert {key: each.metric_value for key, each in results.items()} == {key: report[key] for key in results}
    assert len(results) == 3 and results["accuracy"].dataset_name == "digits" and found.data.library_name == "keras"
    assert found.data.license == "apache-2.0" and found.data.model_name == "nin_digits"


def test_people_read_the_same_figures_and_what_was_not_said_is_not_invented(run, finished, written):
    text, report = (written / "README.md").read_text(encoding="utf-8"), report_of(run)
    assert f"On 360 test images: accuracy {report['accuracy']:.2%}, cross-entropy {report['loss']:.4f} nats" in text
    assert f"expected calibration error {report['expected_calibration_error']:.2%} (15 bins" in text
    rows = re.findall(r"^\| (\d) \| (\d+) \| ([\d.]+%) \|$", text, re.MULTILINE)
    assert {name: share for name, _, share in rows} == {
        name: f"{share:.2%}" for name, share in report["per_class_accuracy"].items()
    }
    assert sum(int(count) for _, count, _ in rows) == 360
    for words in (
        "| seed | 0 |",
        "| time | 3 minutes |",
        "CC BY 4.0",
        report["test_fingerprint"],
        "The weights: apache-2.0.",
    ):
        assert words in text
    older = {key: value for key, value in report.items() if key != "expected_calibration_error"}
    before = dataclasses.replace(finished, report=older, environment={**finished.environment, "began": None})
    text = readme_text(before, None)
    assert "calibration error not measured" in text and "| time | not recorded |" in text
    assert "No licence of the weights is stated." in text
    assert "license" not in metadata(before, None) and len(metadata(before, None)["metrics"]) == 2


def test_limits_are_those_of_the_model(finished):
    text = readme_text(finished, None)
    assert "A scan gives an answer every 2 × 2 pixels" in text and "its map is not its crops' answers" in text
    canvas = {"n": 100, "agreement": 0.97}
    assert "100 pasted test images" in readme_text(changed(finished, {"canvas": canvas}), None)
    model = attach(zoo.build("nin_digits", padding="valid"), finished.network.card)
    assert "each grid cell of a scan is exactly the answer" in readme_text(
        dataclasses.replace(finished, network=Network.of(model)), None
    )
    pyramid = attach(zoo.build("nin_digits", head={"kind": "pyramid", "levels": [1, 2]}), finished.network.card)
    assert "It cannot be slid" in readme_text(dataclasses.replace(finished, network=Network.of(pyramid)), None)
    assert "0.5 µm a pixel; one that states no pixel size is refused" in readme_text(
        changed(finished, pixel_size=0.5), None
    )
    assert "scaled by 0.25 first, 2 µm a pixel" in readme_text(changed(finished, scale=0.25, pixel_size=2.0), None)
    assert "The class 3 stands for nothing" in readme_text(changed(finished, background="3"), None)


def test_objects_and_counts_of_whole_images(finished):
    scores = {"precision": 0.75, "recall": 1.0, "f1": 0.857, "average_precision": None, "n": 1234}
    intervals = {"precision": (0.7, 0.8), "recall": None, "f1": (0.8, 0.9), "average_precision": None}
    reliability = {"before": {"expected_calibration_error": 0.2}, "after": {"expected_calibration_error": 0.015}}
    dense = {
        "n_images": 66,
        "classes": {"a|b": {**scores, "intervals": intervals}, "none": {**scores, "f1": None, "intervals": intervals}},
    }
    calibration = {"temperature": 1.1, "of": "grid cells", "n": 500, "n_test": 2000, **reliability}
    found = changed(finished, {"dense": dense, "calibration": calibration})
    text = readme_text(found, None)
    assert r"| a\|b | 1,234 | 0.750 (0.700 to 0.800) | 1.000 | 0.857 (0.800 to 0.900) | none |" in text
    assert (
        "calibrated on 500 grid cells of the validation part, by the temperature 1.100" in text
        and "20.00% before, 1.50% after, on 2,000" in text
    )
    results = metadata(found, None)["model-index"][0]["results"]
    assert [each["task"]["type"] for each in results] == ["image-classification", "object-detection"]
    assert results[1]["metrics"] == [{"type": "f1", "value": 0.857, "name": "F1 of a|b"}]
    counts = {"nuclei": {"mean_absolute_error": 2.25, "bias": -0.5}}
    report = {"dense": {"n_images": 68, "counts": counts}, **dict.fromkeys(("protocol", "weights"), "x")}
    report |= {
        key: finished.report[key] for key in ("seed", "epochs", "precision", "data_fingerprint", "test_fingerprint")
    }
    counter = dataclasses.replace(changed(finished, target="count"), report=report)
    assert "| nuclei | 2.25 | -0.50 |" in readme_text(counter, None) and "accuracy" not in readme_text(counter, None)
    assert metadata(counter, None)["pipeline_tag"] == "object-detection"


def test_names_of_classes_are_shown_letter_by_letter(finished):
    names = tuple(f"{mark}x" for mark in r"\`*_{}[]<>()#+!|~&")[:10]
    text = readme_text(changed(finished, class_names=names), None)
    assert ", ".join("\\" + name for name in names) in text


def test_no_place_of_this_machine_is_in_the_folder(run, tmp_path):
    config = load_config(run / "config.yaml").model_dump(mode="json")
    config["data"] |= {"name": "image_folder", "dir": "/secret/photos"}
    config["train"] |= {"weights": "/secret/before.keras"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    mine = load_config(tmp_path / "mine.yaml")
    shown = without_places(mine)
    assert "secret" not in shown.to_yaml() and str(shown.data.dir) == "photos" and shown.train.weights == "before.keras"
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "config.yaml").write_text(mine.to_yaml())
    change_report(copy, faults=[{"kind": "copy", "text": "3 images are copies", "count": 3, "names": ["secret.png"]}])
    write_hub_folder(copy, tmp_path / "folder")
    text = (tmp_path / "folder" / "README.md").read_text()
    assert "photos, the user's own" in text and "3 images are copies" in text and "datasets" not in text
    published = dataclasses.replace(
        FinishedRun.read(run), config=load_config("nin_mnist_bn", ["data.name=fashion_mnist"])
    )
    assert "`fashion_mnist` of tensorflow-datasets" in readme_text(published, None)
    for name in ("README.md", "config.yaml"):
        assert "secret" not in (tmp_path / "folder" / name).read_text()


def test_only_a_folder_of_this_command_is_written_again(run, tmp_path):
    folder = tmp_path / "folder"
    (folder / ".git").mkdir(parents=True)
    write_hub_folder(run, folder)
    first = (folder / "README.md").read_bytes()
    write_hub_folder(run, folder)
    assert (folder / "README.md").read_bytes() == first and (folder / ".git").is_dir()
    with pytest.raises(InputError, match="made from another license; accepted: another path, or --overwrite"):
        write_hub_folder(run, folder, licence="mit")
    (folder / "config.yaml").write_text("mine: true")
    with pytest.raises(InputError, match="config.yaml': is there already, and was not made by this command"):
        write_hub_folder(run, folder)
    (folder / "notes.txt").touch()
    write_hub_folder(run, folder, overwrite=True)
    assert (folder / "notes.txt").exists() and "mine" not in (folder / "config.yaml").read_text()
    with pytest.raises(InputError, match="holds 'notes.txt', which is not of this command"):
        write_hub_folder(run, folder)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"licence": "my own"}, "--license: received 'my own'; accepted: an identifier of the hub"),
        ({"run": Path("nowhere")}, "run directory 'nowhere': not finished"),
        ({"output": FROZEN}, "holds 'checkpoints', which is not of this command|is there already"),
    ],
)
def test_refusals_leave_nothing(run, tmp_path, options, text):
    with pytest.raises(InputError, match=text):
        write_hub_folder(**{"run": run, "output": tmp_path / "folder", **options})
    assert not [*tmp_path.iterdir()]


def test_a_run_of_version_1_becomes_a_folder(capsys, tmp_path):
    code, out, err = command(capsys, "card", FROZEN, "-o", tmp_path / "folder")
    assert code == 0 and out.count("wrote ") == 4, err
    assert "accuracy 10.00%" in (tmp_path / "folder" / "README.md").read_text()
