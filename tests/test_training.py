import itertools

import keras
import numpy as np
import pytest
from conftest import noise

import zoo
from zoo import data
from zoo.config import load_config
from zoo.config.recipe import Augment
from zoo.data import Split
from zoo.errors import InputError
from zoo.training import checkpoint, loop
from zoo.training.augmentation import ShiftAndFlip
from zoo.training.batches import EvaluationBatches, training_batches
from zoo.training.checkpoint import Progress
from zoo.training.feeding import fed
from zoo.training.recipe import learning_rates, optimizer, trainer


@pytest.fixture
def split():
    images = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1)
    return Split(images, np.arange(50, dtype=np.int32) % 10)


def first(batches, count):
    return [next(batches) for _ in range(count)]


def test_an_epoch_sees_every_image_at_most_once_and_the_next_in_another_order(split):
    batches = first(training_batches(split, 10, 8, seed=0), 12)
    epochs = [np.concatenate([images.ravel() for images, _ in part]) for part in (batches[:6], batches[6:])]
    assert all(len(set(epoch)) == 48 for epoch in epochs)
    assert not np.array_equal(*epochs)
    for images, labels in batches:
        np.testing.assert_array_equal(labels.argmax(1), images.ravel() % 10)


@pytest.mark.parametrize("step", [0, 1, 5, 6, 7, 13])
def test_batches_begin_anywhere_as_if_they_had_come_from_the_start(split, step):
    wanted = first(training_batches(split, 10, 8, seed=3), step + 3)[step:]
    given = first(training_batches(split, 10, 8, seed=3, first_step=step), 3)
    for (a, b), (c, d) in zip(wanted, given, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_evaluation_batches_cover_the_split_in_order(split):
    batches = EvaluationBatches(split, 10, 16)
    images = np.concatenate([batches[index][0].ravel() for index in range(len(batches))])
    np.testing.assert_array_equal(images, np.arange(50))


def test_bytes_travel_as_bytes_and_what_is_tinted_is_not_cut_to_them(split):
    images = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3)).astype(np.uint8)
    real, whole = Split(images.astype(np.float32), np.arange(8)), Split(images, np.arange(8))
    for augment in (
        Augment(),
        Augment(flip=True, alternate=True),
        Augment(turns=True),
        Augment(brightness=0.3, colour=0.1),
    ):
        given, wanted = (next(training_batches(each, 8, 4, 1, augment=augment))[0] for each in (whole, real))
        np.testing.assert_array_equal(given, wanted)
        assert wanted.dtype == np.float32
        assert given.dtype == (np.float32 if augment.turns or augment.brightness else np.uint8)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data is what TensorFlow's fit takes")
def test_fit_is_given_sets_that_do_not_tune_themselves(tmp_path, monkeypatch):
    config = load_config("nin_digits", ["train.epochs=2", "train.batch_size=300", "data.validation=300"])
    given, fit = [], keras.Model.fit

    def watched(self, x, **options):
        given.extend([x, options["validation_data"]])
        return fit(self, x, **options)

    monkeypatch.setattr(keras.Model, "fit", watched)
    logs = loop.train(zoo.build(config.model), data.load(config), config, tmp_path)
    assert len(logs) == 2 and len(given) == 2
    assert [each.options().autotune.enabled for each in given] == [False, False]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data is what TensorFlow's fit takes")
def test_what_fit_is_given_are_the_batches(split):
    for made, count in (
        (lambda: training_batches(split, 10, 16, seed=0), -1),
        (lambda: EvaluationBatches(split, 10, 16), 4),
    ):
        with_tensorflow = fed(made())
        assert int(with_tensorflow.cardinality()) == count
        for _ in range(1 if count < 0 else 2):  # a set can be gone through again
            given, wanted = (list(itertools.islice(each, 7)) for each in (with_tensorflow, made()))
            assert len(given) == len(wanted) == (7 if count < 0 else count)
            for a, b in zip(given, wanted, strict=True):
                assert [x.dtype for x in map(np.asarray, a)] == [x.dtype for x in b]
                assert all(map(np.array_equal, map(np.asarray, a), b))


def test_warm_up_and_cosine():
    config = load_config("nin_digits", ["train.epochs=10", "train.warmup=0.2"]).train
    schedule = optimizer(config, zoo.build("nin_digits"), steps_per_epoch=10)._learning_rate
    top = config.optimizer.learning_rate
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(rates[1:], [top * (0.5 + 0.5 / 20), top, top / 2, 0], rtol=1e-3, atol=1e-9)
    assert 0 < rates[0] < rates[1]
    without = load_config("nin_digits", ["train.warmup=0"]).train
    assert float(optimizer(without, zoo.build("nin_digits"), 10)._learning_rate(0)) == pytest.approx(top)


def test_no_callback_waits_for_the_end_of_a_step():
    """Keras reads every step's numbers, and a GPU waits for it, if any callback has a method for a batch's end."""
    for name in ("on_batch_end", "on_train_batch_end"):
        assert getattr(loop._Keeper, name) is getattr(keras.callbacks.Callback, name)


def test_milestones_are_the_papers_steps():
    """He et al. 2015, section 4.2: 0.01 for 400 steps, 0.1, then 0.01 and 0.001 from steps 32,000 and 48,000 on."""
    config = load_config("resnet164_v2_cifar10").train
    assert config.epochs * (50_000 // config.batch_size) == 63_960
    rates = learning_rates(config, 64_000)
    wanted = {0: 0.01, 399: 0.01, 400: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 63_999: 0.001}
    assert {step: pytest.approx(float(rates(step))) for step in wanted} == wanted


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_momentum_of_sgd(nesterov):
    """Sutskever et al. 2013, section 2: the step after the gradients 1 and 0, at a rate of 0.1."""
    sgd = f"{{name: sgd, learning_rate: 0.1, momentum: 0.5, nesterov: {str(nesterov).lower()}}}"
    config = load_config("nin_digits", [f"train.optimizer={sgd}", "train.warmup=0"]).train
    made, weight = optimizer(config, zoo.build("nin_digits"), 1000), keras.Variable([0.0])
    made.build([weight])
    made.apply([np.ones(1, np.float32)], [weight])
    first = -0.15 if nesterov else -0.1
    assert np.asarray(weight) == pytest.approx(first, rel=1e-3)
    made.apply([np.zeros(1, np.float32)], [weight])
    assert np.asarray(weight) == pytest.approx(first - (0.025 if nesterov else 0.05), rel=1e-3)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_spares_biases_and_normalisations(name):
    config = load_config(
        "nin_digits",
        [f"train.optimizer={{name: {name}, learning_rate: 0.1, weight_decay: 0.5}}", "train.warmup=0"],
    ).train
    model = zoo.build("nin_digits")
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    made = optimizer(config, model, 10)
    made.build(model.trainable_variables)
    made.apply([np.zeros(weight.shape, np.float32) for weight in model.trainable_weights], model.trainable_variables)
    for weight in model.trainable_weights:
        value = np.asarray(weight)
        assert (value == 1).all() if value.ndim < 2 else (value < 1).all(), weight.path


def test_the_saved_model_has_no_augmentation():
    config = load_config("nin_digits")
    model = zoo.build(config.model)
    training_model = trainer(model, config.train, (0.0,), 10)
    assert any(isinstance(layer, ShiftAndFlip) for layer in training_model.layers)
    assert not any(isinstance(layer, ShiftAndFlip) for layer in model.layers)
    assert {id(weight) for weight in model.weights} == {id(weight) for weight in training_model.weights}


def small_trainer(seed=0, overrides=()):
    keras.utils.set_random_seed(seed)
    config = load_config("nin_digits", overrides)
    made = trainer(zoo.build(config.model), config.train, (0.0,), 10)
    loop._build_state(made)
    return made


def test_a_checkpoint_brings_back_every_variable(tmp_path):
    source, other = small_trainer(0), small_trainer(1)
    source.train_on_batch(noise(4, 8, 8, 1), np.eye(10, dtype=np.float32)[:4])
    checkpoint.save(tmp_path, source, Progress(1, [{"epoch": 1, "loss": 0.5}]))
    progress, metrics = checkpoint.restore(tmp_path, other)
    checkpoint.restore_metrics(other, metrics)
    assert progress == Progress(1, [{"epoch": 1, "loss": 0.5}])
    state = [*source.variables, *source.optimizer.variables]
    again = [*other.variables, *other.optimizer.variables]
    assert any("seed_generator" in variable.path for variable in state)
    for a, b in zip(state, again, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    made = small_trainer()
    assert checkpoint.restore(tmp_path, made) is None
    for step in (1, 2, 3):
        newest = checkpoint.save(tmp_path, made, Progress(step))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000002.npz", "step-000000003.npz"]
    content = newest.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:-2000] + bytes(2000)):
        newest.write_bytes(damaged)
        with pytest.warns(UserWarning, match="step-000000003.npz is damaged"):
            progress, _ = checkpoint.restore(tmp_path, made)
        assert progress.step == 2


def test_frozen_layers_keep_weights_and_statistics():
    config = load_config("nin_digits", ["train.freeze=mlpconv1"])
    model = zoo.build(config.model)
    training_model = trainer(model, config.train, (0.0,), 10)
    before = {weight.path: np.array(weight) for weight in model.weights}
    for _ in range(3):
        training_model.train_on_batch(noise(8, 8, 8, 1), np.eye(10, dtype=np.float32)[:8])
    for weight in model.weights:
        same = np.array_equal(np.asarray(weight), before[weight.path])
        assert same == weight.path.startswith("mlpconv1"), weight.path


@pytest.mark.parametrize("pattern", ["stage1", ".*"])
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(pattern):
    config = load_config("nin_digits", [f"train.freeze={pattern}"])
    with pytest.raises(InputError, match="train.freeze: .*names begin with mlpconv1, mlpconv2, head"):
        trainer(zoo.build(config.model), config.train, (0.0,), 10)


@pytest.mark.extended
def test_auxiliary_heads_add_their_discounted_losses_in_training_only():
    config = load_config("inception_cifar10", ["model.auxiliary=[3b, 4b]"])
    model = zoo.build(config.model)
    assert [tuple(output.shape) for output in model.outputs] == [(None, 10)] * 3
    training_model = trainer(model, config.train, (0.0,), 10)
    generator = np.random.default_rng(0)
    outputs = [generator.normal(size=(4, 10)).astype(np.float32) for _ in range(3)]
    labels = np.eye(10, dtype=np.float32)[[3, 1, 4, 1]]
    smooth = labels * 0.9 + 0.01

    def entropy(logits):
        return -(smooth * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1).mean()

    losses = [
        float(training_model.compute_loss(None, labels, {"logits": outputs}, training=training))
        for training in (True, False)
    ]
    wanted = [entropy(outputs[0]) + 0.3 * (entropy(outputs[1]) + entropy(outputs[2])), entropy(outputs[0])]
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    before = np.array(model.get_layer("aux2_logits").kernel)
    training_model.run_eagerly = True  # one step takes less than to compile it
    training_model.train_on_batch(noise(4, 32, 32, 3), labels)
    assert not np.array_equal(before, np.asarray(model.get_layer("aux2_logits").kernel))


PLAIN = ["model.normalization=none", "train.augment={}", "train.warmup=0", "train.label_smoothing=0"]


def stepped(images, labels, batch, *overrides):
    """The weights of a net without normalisation after an epoch of batches in order."""
    keras.utils.set_random_seed(0)
    sgd = "train.optimizer={name: sgd, learning_rate: 0.05, weight_decay: 0.1}"
    recipe = [*PLAIN, sgd, "train.milestones=[0.99]", "train.epochs=1", f"train.batch_size={batch}"]
    config = load_config("nin_digits", [*recipe, *overrides])
    model = zoo.build(config.model)
    made = trainer(model, config.train, (0.0,), len(images) // batch)
    for start in range(0, len(images), batch):
        made.train_on_batch(images[start : start + batch], labels[start : start + batch])
    return [np.asarray(weight) for weight in model.trainable_weights]


@pytest.mark.extended
def test_accumulated_batches_make_the_update_of_one_large_batch():
    images, labels = noise(32, 8, 8, 1), np.eye(10, dtype=np.float32)[np.arange(32) % 10]
    whole = stepped(images, labels, 16)
    parts = stepped(images, labels, 4, "train.accumulate=4")
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_accumulation_leaves_the_schedule_over_the_epochs_as_it_is():
    config = load_config("nin_digits", ["train.epochs=10", "train.accumulate=4", "train.warmup=0"]).train
    made = optimizer(config, zoo.build("nin_digits"), steps_per_epoch=20)
    top = config.optimizer.learning_rate
    for batches, wanted in ((0, top), (3, top), (100, top / 2), (200, 0)):
        made._iterations.assign(batches)
        assert float(made.learning_rate) == pytest.approx(wanted, rel=1e-3, abs=1e-9)


def test_the_average_follows_the_weights_by_its_momentum():
    config = load_config("nin_digits", [*PLAIN, "train.ema=0.75"]).train
    model = zoo.build("nin_digits", normalization="none")
    made = trainer(model, config, (0.0,), 10)
    made.optimizer.build(made.trainable_variables)
    images, labels = noise(8, 8, 8, 1), np.eye(10, dtype=np.float32)[np.arange(8)]
    average = None
    for _ in range(4):
        made.train_on_batch(images, labels)
        now = np.array(model.layers[2].kernel)
        average = now if average is None else 0.75 * average + 0.25 * now
    made.optimizer.finalize_variable_values(made.trainable_variables)
    np.testing.assert_allclose(np.asarray(model.layers[2].kernel), average, rtol=1e-5, atol=1e-7)
    assert np.abs(average - now).max() > 1e-4


def trained(folder, *overrides):
    """The model, the data and the history of a short training on digits."""
    config = load_config("nin_digits", ["train.epochs=4", "data.validation=0.3", *overrides])
    keras.utils.set_random_seed(0)
    dataset = data.load(config)
    model = zoo.build(config.model)
    return model, dataset, loop.train(model, dataset, config, folder)


def validation_loss(model, dataset):
    logits = model.predict(dataset.validation.images, verbose=0)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_p[np.arange(len(logits)), dataset.validation.labels].mean()


@pytest.mark.parametrize(
    "overrides", [[], ["train.ema=0.9"], ["train.patience=2"], ["train.patience=2", "train.ema=0.9"]]
)
@pytest.mark.extended
def test_the_model_that_is_kept_is_the_one_that_was_validated(tmp_path, overrides):
    overrides = ["train.optimizer={name: sgd, learning_rate: 0.3}", "train.warmup=0", *overrides]
    model, dataset, history = trained(tmp_path, *overrides)
    losses = [row["val_loss"] for row in history]
    wanted = min(losses) if "train.patience=2" in overrides else losses[-1]
    assert validation_loss(model, dataset) == pytest.approx(wanted, rel=1e-4)
    restored, _ = checkpoint.restore(tmp_path / "checkpoints", small_trainer(overrides=overrides))
    assert bool(restored.best) == ("train.patience=2" in overrides)


@pytest.mark.extended
def test_training_ends_after_its_patience_and_again_asked_at_once(tmp_path):
    """At a rate of nothing the validation loss stays as it is: the first epoch is the best of all."""
    still = ["train.optimizer={name: sgd, learning_rate: 1.0e-30}", "train.patience=2", "train.epochs=9", *PLAIN]
    _, _, history = trained(tmp_path, *still)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    _, _, again = trained(tmp_path, *still)
    assert again == history
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()} == before


def test_a_checkpoint_of_another_shape_is_passed_over(tmp_path):
    """It can be read, and is not this training's: an array is missing, of another shape, or its progress is none."""
    import json

    from zoo.training import checkpoint

    trainer = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    trainer.compile("sgd", "mse")
    trainer.optimizer.build(trainer.trainable_variables)
    checkpoint.save(tmp_path, trainer, checkpoint.Progress(4, [{"loss": 1.0}]))
    whole = dict(np.load(tmp_path / "step-000000004.npz"))
    spoiled = [
        {**whole, "model/0": np.zeros((3, 5), np.float32)},
        {name: array for name, array in whole.items() if name != "model/1"},
        {**whole, "about": np.array(json.dumps({"history": []}))},
        {**whole, "about": np.array("[]")},
    ]
    for step, arrays in enumerate(spoiled, 5):
        np.savez(tmp_path / f"step-{step:09d}.npz", **arrays)
        with pytest.warns(UserWarning, match="damaged and passed over"):
            progress, _ = checkpoint.restore(tmp_path, trainer)
        assert progress.step == 4 and progress.history == [{"loss": 1.0}]
        (tmp_path / f"step-{step:09d}.npz").unlink()


@pytest.mark.parametrize(
    ("step", "place"),
    [(0, "epoch 1 of 3, step 0 of 4"), (5, "epoch 2 of 3, step 1 of 4"), (12, "epoch 3 of 3, step 4 of 4")],
)
def test_the_place_of_a_training_is_never_behind_its_last_epoch(step, place):
    keeper = loop._Keeper.__new__(loop._Keeper)
    keeper.progress, keeper.steps, keeper.epochs = Progress(step=step), 4, 3
    assert keeper.place() == place
    row = {"epoch": step // 4, "accuracy": 0.5, "val_loss": 1.25, "learning_rate": 0.1}
    keeper.progress.history.append(row)
    assert keeper.place() == f"{place} (epoch {step // 4}: accuracy 0.5000, val_loss 1.2500)"
