"""The loop: Keras's `fit`, from wherever the last checkpoint left off."""

import csv
import importlib.util
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import keras

from zoo.config import Config
from zoo.config.recipe import TrainConfig
from zoo.data import Dataset
from zoo.errors import ADVICE, Diverged, InputError, Interrupted, refuse
from zoo.files import replacing
from zoo.progress import at_work, is_told
from zoo.signals import stop_signals
from zoo.training import checkpoint
from zoo.training.checkpoint import Progress
from zoo.training.crops import CropTraining
from zoo.training.dense import DenseTraining
from zoo.training.distribution import ALONE, Job
from zoo.training.feeding import fed
from zoo.training.initial import begin_as_identity, whiten
from zoo.training.precision import assign

# Steps after which the loss is looked at, beside those that are saved.
_CHECKED_EVERY = 50
# A loss in nats that no classifier has which learned anything: its scores are larger than that.
_HOPELESS = 1e6


def train(
    model: keras.Model, dataset: Dataset, config: Config, folder: Path, job: Job = ALONE
) -> list[dict[str, float]]:
    """Train `model` in place, or go on from the newest checkpoint in `folder`.

    Writes `checkpoints/`, `history.csv` and, where TensorFlow and TensorBoard are there, `tensorboard/` to `folder`;
    of several processes, which all call this, the first one alone does.

    `model` ends with the last weights or their average (`train.ema`), of the last epoch or of the one with the lowest
    validation loss (`train.patience`).

    Returns:
        The logs of every epoch: loss, accuracy, learning_rate and, with a validation split, val_loss, val_accuracy.

    Raises:
        InputError: where recipe and data do not go together; where the loss, of the training or of the validation,
            becomes NaN or infinite, or is absurd at the end.
        Diverged: in the second case, where there is a checkpoint, at which the model is then.
        Interrupted: after Ctrl-C or a termination signal, once the step at hand is done and saved.
    """
    recipe = config.train
    if not recipe.weights:
        whiten(model, dataset.train, config.model.preprocess, config.seed)
    if recipe.initial:
        begin_as_identity(model, config.seed)
    course = DenseTraining(model, dataset, config) if recipe.dense else CropTraining(model, dataset, config, job)
    steps, learner, trainer = course.steps, course.learner, course.trainer
    if recipe.accumulate > recipe.epochs * steps:
        accepted = f"at most {recipe.epochs * steps}, the number of batches of the training"
        refuse("train.accumulate", recipe.accumulate, accepted)
    _build_state(trainer)
    folder = Path(folder)
    if job.first:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    progress, metrics = checkpoint.restore(folder / "checkpoints", trainer, job) or (Progress(), [])
    if progress.step and job.first:
        print(f"resuming from step {progress.step}", flush=True)

    metrics = metrics if progress.step % steps else []
    keeper = _Keeper(folder, learner, progress, metrics, recipe, job, steps)
    averaging = [keras.callbacks.SwapEMAWeights()] if recipe.ema else []
    with _deferred_signals(keeper), _given_back(learner, model), _back_where_it_was(folder, trainer, job):
        while progress.step < recipe.epochs * steps and not job.any(keeper.has_stalled()):
            epoch, done = divmod(progress.step, steps)
            with redirect_stdout(sys.stderr), at_work("training", keeper.place, draws=True):
                trainer.fit(
                    fed(course.batches(progress.step)),
                    # An epoch that was cut is finished on its own, since all of one `fit`'s epochs have equal length.
                    initial_epoch=epoch,
                    epochs=epoch + 1 if done else recipe.epochs,
                    steps_per_epoch=steps - done,
                    shuffle=False,
                    validation_data=course.validation and fed(course.validation),
                    # The keeper sees validated weights before they are swapped back.
                    callbacks=[*(_tensorboard(folder) if job.first else ()), keeper, *averaging],
                    verbose=_verbosity() if job.first else 0,
                )
            if averaging:
                # `fit` ended by writing the average over the weights that training goes on with.
                checkpoint.restore(folder / "checkpoints", trainer, job)
        trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
        if recipe.patience:
            _assign_best(learner, progress, job)
    return progress.history


def _verbosity() -> int:
    """How Keras tells of the epochs: by a bar on a terminal, a line each elsewhere, not at all where we do."""
    return 1 if sys.stderr.isatty() else 0 if is_told() else 2


def _assign_best(learner: keras.Model, progress: Progress, job: Job) -> None:
    """Give `learner` the best weights, which only the first process is sure to have."""
    best = progress.best or [keras.ops.convert_to_numpy(weight) for weight in learner.weights]
    for weight, value in zip(learner.weights, job.from_first(best), strict=True):
        weight.assign(value)


def _build_state(trainer: keras.Model) -> None:
    """Create the optimizer's and the metrics' variables, which Keras would make at the first step."""
    trainer.optimizer.build(trainer.trainable_variables)
    blank = keras.tree.map_structure(lambda each: keras.ops.zeros([side or 1 for side in each.shape]), trainer.output)
    trainer.compute_metrics(x=None, y=keras.tree.flatten(blank["logits"])[0], y_pred=blank)
    trainer.reset_metrics()


class _Keeper(keras.callbacks.Callback):
    """Counts steps, saves checkpoints and history, and stops at a diverged loss or a signal.

    An epoch's last step is saved with the epoch's row of history, after validation, or not at all.
    """

    def __init__(
        self,
        folder: Path,
        learner: keras.Model,
        progress: Progress,
        metrics: list,
        recipe: TrainConfig,
        job: Job,
        steps: int,
    ):
        super().__init__()
        self.folder, self.learner, self.progress, self.metrics, self.job = folder, learner, progress, metrics, job
        self.every, self.patience, self.epochs = recipe.checkpoint_every_steps, recipe.patience, recipe.epochs
        self.steps = steps
        self.stop_asked = False

    def place(self) -> str:
        """How far the training has come, in words, and what the last epoch reached."""
        epoch, step = divmod(self.progress.step, self.steps)
        if epoch == self.epochs:
            epoch, step = epoch - 1, self.steps
        place = f"epoch {epoch + 1} of {self.epochs}, step {step} of {self.steps}"
        if not self.progress.history:
            return place
        last = self.progress.history[-1]
        reached = [f"{key} {value:.4f}" for key, value in last.items() if key not in ("epoch", "learning_rate")]
        return f"{place} (epoch {last['epoch']:.0f}: {', '.join(reached)})"

    def has_stalled(self) -> bool:
        """Whether as many epochs as the recipe's patience have passed since the lowest validation loss."""
        if self.patience is None or not self.job.first:
            return False
        losses = [row["val_loss"] for row in self.progress.history]
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= self.patience

    def on_epoch_begin(self, epoch, logs=None):
        if self.metrics:
            checkpoint.restore_metrics(self.model, self.metrics)
            self.metrics = []

    def on_train_batch_begin(self, batch, logs=None):
        # Not at the end of the step before: a callback there makes Keras wait for every step's numbers, and a GPU idle.
        if batch == 0:
            return
        self._count()
        step, stop = self.progress.step, self.job.any(self.stop_asked)
        save = stop or self.every and step % self.every == 0
        if save or step % _CHECKED_EVERY == 0:
            self._check("loss", float(self.model.metrics[0].result()))
        if save:
            self._save()
        self._stop(stop)

    def on_test_end(self, logs=None):
        # Only what was validated is kept, averaged where the recipe averages.
        if self.patience and all(logs["loss"] < row["val_loss"] for row in self.progress.history):
            self.progress.best = [keras.ops.convert_to_numpy(weight) for weight in self.learner.weights]

    def on_epoch_end(self, epoch, logs=None):
        self._count()
        # Before anything of this epoch is saved. Running averages of a normalisation may blow up while the batches' own
        # statistics do not. Where the best epoch's weights are kept, a bad last one takes nothing of them.
        largest = _HOPELESS if epoch + 1 == self.epochs and not self.patience else math.inf
        for key, name in (("loss", "loss"), ("val_loss", "validation loss")):
            if key in logs:
                self._check(name, float(logs[key]), largest)
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, **{key: float(value) for key, value in logs.items()}, "learning_rate": rate}
        self.progress.history.append(row)
        self._save()
        if self.job.first:
            with (
                replacing(self.folder / "history.csv") as temporary,
                temporary.open("w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.DictWriter(file, fieldnames=list(self.progress.history[0]))
                writer.writeheader()
                writer.writerows(self.progress.history)
        self.model.stop_training = self.job.any(self.has_stalled())
        self._stop(self.job.any(self.stop_asked))

    def _count(self) -> None:
        self.progress.step += 1

    def _check(self, what: str, loss: float, largest: float = math.inf) -> None:
        """Check that the mean loss of the epoch so far is a number; one that is none makes it none to the epoch's end.

        Raises:
            Diverged: where it is none, or larger than `largest`.
        """
        if not math.isfinite(loss) or loss > largest:
            epoch, step = len(self.progress.history) + 1, self.progress.step
            raise Diverged(f"training diverged in epoch {epoch}: the {what} is {loss:.4g} by step {step}")

    def _stop(self, stop: bool) -> None:
        if stop:
            raise Interrupted(f"interrupted at step {self.progress.step}; the same command continues from there")

    def _save(self) -> None:
        if self.job.first:
            checkpoint.save(self.folder / "checkpoints", self.model, self.progress)


@contextmanager
def _given_back(learner: keras.Model, model: keras.Model) -> Iterator[None]:
    """What was learned goes to `model`, interrupted or not."""
    try:
        yield
    finally:
        assign(model, learner)


@contextmanager
def _back_where_it_was(folder: Path, trainer: keras.Model, job: Job) -> Iterator[None]:
    """After a diverged loss, put the trainer back to the newest checkpoint, and report what is left and what to try."""
    try:
        yield
    except Diverged as error:
        restored = checkpoint.restore(folder / "checkpoints", trainer, job)
        if restored is None:
            # There is no model to keep.
            raise InputError(f"{error}, before the first checkpoint; {ADVICE}") from None
        kept = f"{folder} keeps the checkpoint and model.keras of step {restored[0].step}"
        raise Diverged(f"{error}; {kept}; {ADVICE}") from None


@contextmanager
def _deferred_signals(keeper: _Keeper) -> Iterator[None]:
    """Let Ctrl-C, termination and a closed terminal wait for the end of the step; a second one stops at once."""

    def ask(number, frame):
        if keeper.stop_asked:
            raise KeyboardInterrupt
        keeper.stop_asked = True
        print("\nstopping after this step; once more to stop at once", flush=True)

    try:
        before = {number: signal.signal(number, ask) for number in stop_signals()}
    except ValueError:  # not in the main thread, where Python takes no handlers
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tensorboard") is None:
        return []
    return [_TensorBoard(folder / "tensorboard", write_graph=False)]


class _TensorBoard(keras.callbacks.TensorBoard):
    """TensorBoard's log, on disk before the checkpoint of the same epoch is, so that no kill can leave a gap in it."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        for writer in self._writers.values():
            writer.flush()
