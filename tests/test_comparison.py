import json
import math

import keras
import numpy as np
import pytest
from conftest import command, randomize

import zoo
from zoo.comparison import compare, paired_interval
from zoo.config import load_config

pytestmark = pytest.mark.extended


@pytest.mark.parametrize("confidence", [0.95, 0.995])
@pytest.mark.parametrize("p_up, p_down", [(0.01, 0.01), (0.05, 0.02), (0.2, 0.2), (0.3, 0.05), (0.0, 0.1), (0.6, 0.1)])
def test_the_interval_covers_the_truth_as_often_as_it_says(p_up, p_down, confidence):
    """The probability of every outcome of 40 pairs, summed where the interval holds the true difference."""
    n, covered = 40, 0.0
    for up in range(n + 1):
        for down in range(n + 1 - up):
            ways = math.factorial(n) // (math.factorial(up) * math.factorial(down) * math.factorial(n - up - down))
            low, high = paired_interval(up, down, n, confidence)
            if low <= p_up - p_down <= high:
                covered += ways * p_up**up * p_down**down * (1 - p_up - p_down) ** (n - up - down)
    assert covered >= confidence - 0.02


def test_the_interval_is_the_bootstraps_on_many_images():
    gained, lost, n = 60, 110, 2000
    outcomes = np.repeat([1, -1, 0], [gained, lost, n - gained - lost])
    generator = np.random.default_rng(0)
    means = [generator.choice(outcomes, n).mean() for _ in range(4000)]
    wanted = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(paired_interval(gained, lost, n, 0.95), wanted, atol=1.5e-3)


def answers(old, new, labels, tolerance=0.01, names=("cat", "dog", "eel")):
    old, new = (np.array([each == "1" for each in text]) for text in (old, new))
    return compare(old, new, np.array(labels), names, tolerance)


def test_counts_classes_and_the_exact_test_by_hand():
    result = answers("1110001111", "1101000000", [0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    assert (result.overall.n, result.overall.gained, result.overall.lost) == (10, 1, 5)
    assert result.overall.old == 0.7 and result.overall.new == 0.3 and result.overall.difference == -0.4
    assert (result.classes["cat"].gained, result.classes["cat"].lost, result.classes["cat"].n) == (0, 1, 3)
    assert result.classes["eel"] is None and "eel" in result.table()
    assert result.p_value == pytest.approx(2 * (1 + 6) / 2**6)
    assert result.to_dict()["classes"]["dog"]["lost"] == 4
    assert answers("1", "1", [0]).p_value == 1


def test_the_gate_falls_with_the_accuracy_beyond_the_tolerance_and_not_at_it():
    labels = [0] * 50 + [1] * 50
    old, new = "1" * 100, "1" * 98 + "00"
    assert answers(old, new, labels, 0.02).regressions == ()
    assert answers(old, new, labels, 0.019).regressions == ("all images -2.00%",)
    assert answers(new, old, labels, 0).regressions == ()


def test_a_class_that_falls_is_a_regression_though_the_others_make_up_for_it():
    labels = [0] * 100 + [1] * 300
    old = "1" * 100 + "1" * 250 + "0" * 50
    noise = "0" * 2 + "1" * 98 + "1" * 300
    assert answers(old, noise, labels).regressions == ()
    worse = "0" * 20 + "1" * 80 + "1" * 300
    assert answers(old, worse, labels).regressions == ("cat -20.00%",)
    assert answers(old, worse, labels, tolerance=0.25).regressions == ()


OVERRIDES = ["data.name=npz", "train.epochs=1", "train.batch_size=20", "canvas.count=4", "model.num_classes=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on data whose training images change while the test images stay, and the folder that holds them."""
    folder = tmp_path_factory.mktemp("compare")
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (40, 8, 8)).astype(np.uint8),
        "y_train": np.arange(40) % 3,
        "x_test": generator.integers(0, 256, (30, 8, 8)).astype(np.uint8),
        "y_test": np.arange(30) % 3,
        "class_names": np.array(["cat", "dog", "eel"]),
    }

    def train(name, *more, **changes):
        np.savez(folder / f"{name}.npz", **(arrays | changes))
        overrides = [*OVERRIDES, f"data.dir={folder / f'{name}.npz'}", *more]
        zoo.run(load_config("nin_digits", overrides), folder / name)

    train("old")
    train("new", "model.image_size=[12, 8]", x_train=255 - arrays["x_train"])
    train("other", x_test=255 - arrays["x_test"])
    train("names", class_names=np.array(["cat", "dog", "fox"]))
    train("order", class_names=np.array(["dog", "cat", "eel"]))
    return folder


def test_a_run_is_compared_with_the_one_before_at_each_models_own_size(capsys, runs, tmp_path):
    code, out, err = command(capsys, "evaluate", runs / "new", "--against", runs / "old", "-o", tmp_path / "gate.json")
    report = json.loads((tmp_path / "gate.json").read_text())
    for which in ("old", "new"):
        evaluation = json.loads((runs / which / "evaluation.json").read_text())
        assert report["overall"][which] == pytest.approx(evaluation["accuracy"])
        for name, accuracy in evaluation["per_class_accuracy"].items():
            assert report["classes"][name][which] == pytest.approx(accuracy)
    assert report["overall"]["n"] == 30 and code == bool(report["regressions"]), err
    assert {"cat", "dog", "eel", "all"} <= {line.split()[0] for line in out.splitlines()}
    before, after = (json.loads((runs / name / "environment.json").read_text()) for name in ("old", "new"))
    assert before["data_fingerprint"] != after["data_fingerprint"]


def test_a_model_file_that_answers_always_the_same_is_a_regression(capsys, runs, tmp_path):
    """Against itself nothing changes; a model of constant scores has the accuracy of one class."""
    code, out, _ = command(
        capsys, "evaluate", runs / "old", "--against", runs / "old" / "model.keras", "--tolerance", 0
    )
    assert code == 0 and "regressions beyond 0.00%: none" in out
    model = randomize(zoo.load(runs / "old"))
    head = model.layers[-1] if model.layers[-1].weights else next(x for x in model.layers[::-1] if x.weights)
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    zoo.save(model, tmp_path / "broken.keras")
    code, out, _ = command(capsys, "evaluate", tmp_path / "broken.keras", "--against", runs / "old", "--tolerance", 0)
    old = json.loads((runs / "old" / "evaluation.json").read_text())["accuracy"]
    assert code == (old > 1 / 3) and "33.33%" in out
    keras.backend.clear_session()


@pytest.mark.parametrize(
    ("new", "old", "text"),
    [
        ("other", "old", "were made for different test images"),
        ("names", "old", "only the new model has 'fox'"),
        ("old", "names", "only the new model has 'eel'"),
        ("order", "old", "classes: another order: class 0 is 'dog' in the new model and 'cat' in the old one"),
        ("old/model.keras", "new/model.keras", "accepted: at least one run directory"),
        ("old", "new/model.keras", "takes images of (12, 8, 1), but the test images are (8, 8, 1)"),
        ("old", "gone", "no such file"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(capsys, runs, new, old, text):
    code, out, err = command(capsys, "evaluate", runs / new, "--against", runs / old)
    assert code == 2 and text in err and err.count("\n") == 1 and not out, err


def test_test_images_that_changed_since_are_refused(capsys, runs):
    path = runs / "other.npz"
    content = path.read_bytes()
    path.write_bytes((runs / "old.npz").read_bytes())
    code, _, err = command(capsys, "evaluate", runs / "other", "--against", runs / "other" / "model.keras")
    path.write_bytes(content)
    assert code == 2 and "the test images have changed since this run" in err


def test_a_run_without_a_record_of_its_test_set_and_a_tolerance_without_a_comparison(capsys, runs, tmp_path):
    for name in ("config.yaml", "model.keras"):
        (tmp_path / name).write_bytes((runs / "old" / name).read_bytes())
    code, _, err = command(capsys, "evaluate", runs / "old", "--against", tmp_path)
    assert code == 2 and "names no test set; accepted in place of this run: its model.keras" in err
    code, _, err = command(capsys, "evaluate", runs / "old", "--tolerance", 0.1)
    assert code == 2 and "--tolerance has no effect without --against" in err
