"""Training steps a second on a CPU: ours beside PyTorch, on the same architecture, precision and batch.

    pip install -e '.[benchmarks]'
    python benchmarks/training.py [--models NAME...] [--batch 128] [--steps 6] [--rounds 5] [--threads 2]

Every case is a process that stays, ready with its compiled step; one at a time works, in turn, several rounds, so that
what else the machine does meets all of them. The table gives images a second, the processor time of an image, and the
ratio to PyTorch's eager bfloat16 within each round: the median, the least and largest in brackets. PyTorch trains in
channels_last. On a machine that is not idle, --threads 1 compares best: neither side then waits for its other threads,
and the processor time shows what an idle machine would take.

The last lines report what reading a batch and augmenting it take of our step.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import turns
from record import add_option, report, spread

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REFERENCE = "PyTorch bfloat16, eager"
CASES = (
    "ours float32, Keras's normalisation",
    "ours float32",
    "ours bfloat16, Keras's normalisation",
    "ours bfloat16",
    "PyTorch float32, eager",
    REFERENCE,
    "PyTorch bfloat16, eager, autocast",
    "PyTorch bfloat16, compiled",
)


def our_step(name: str, case: str, batch: int, threads: int) -> Callable[[], object]:
    """One training step of a shipped config's recipe on a constant batch, without augmentation."""
    import tensorflow as tf

    import zoo
    from zoo.config import load_config
    from zoo.training import precision, start
    from zoo.training.recipe import trainer

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    start(0, True)
    if "Keras's" in case:
        precision._fusible = lambda layer: False
    config = load_config(name, ["train.augment={}"])
    copy = precision.training_copy(zoo.build(config.model), case.split()[1].rstrip(","))
    learner = trainer(copy, config.train, config.model.preprocess.mean, 1000)
    images, labels = constant_batch(batch)
    return lambda: learner.train_on_batch(images, labels)


def their_step(name: str, case: str, batch: int, threads: int) -> Callable[[], object]:
    """The same step in PyTorch; its architecture is written down below, its tables are those of the config."""
    import torch
    from torch import nn

    import zoo
    from zoo.config import load_config

    class Bottleneck(nn.Module):
        """Pre-activated, the shortcut after the first activation where it projects."""

        def __init__(self, channels, width, filters, stride):
            super().__init__()
            self.pre, self.conv1 = activated(channels), nn.Conv2d(channels, width, 1, bias=False)
            self.norm1, self.conv2 = activated(width), nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.norm2, self.conv3 = activated(width), nn.Conv2d(width, filters, 1, bias=False)
            project = channels != filters or stride != 1
            self.shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False) if project else None

        def forward(self, x):
            pre = self.pre(x)
            y = self.conv3(self.norm2(self.conv2(self.norm1(self.conv1(pre)))))
            return y + (self.shortcut(pre) if self.shortcut else x)

    def activated(channels):
        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def resnet(config):
        channels = config.stem.filters
        parts = [nn.Conv2d(3, channels, config.stem.kernel, 1, config.stem.kernel // 2, bias=False)]
        for row in config.stages:
            for index in range(row.blocks):
                parts.append(Bottleneck(channels, row.width, row.filters, 1 if index else row.stride))
                channels = row.filters
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, config.num_classes)]
        return nn.Sequential(*parts, activated(channels), *head)

    def nin(config):
        channels, parts = 3, []
        for row in config.mlpconvs:
            for index, filters in enumerate(row.filters):
                kernel = 1 if index else row.kernel
                parts += [nn.Conv2d(channels, filters, kernel, 1, kernel // 2, bias=False), activated(filters)]
                channels = filters
            if row.pool:
                kind = nn.MaxPool2d if row.pool.kind == "max" else nn.AvgPool2d
                parts += [kind(row.pool.size, row.pool.stride, ceil_mode=True), nn.Dropout(row.dropout)]
        head = [nn.Conv2d(channels, config.num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*parts, *head)

    torch.set_num_threads(threads)
    config = load_config(name)
    row = config.train.optimizer
    net = (resnet if config.model.family == "resnet" else nin)(config.model).to(memory_format=torch.channels_last)
    wanted = sum(int(weight.shape.num_elements()) for weight in (w.value for w in zoo.build(name).trainable_weights))
    if (received := sum(weight.numel() for weight in net.parameters())) != wanted:
        raise RuntimeError(f"{name}: the PyTorch net has {received} parameters, ours has {wanted}")
    low, autocast = "bfloat16" in case, "autocast" in case
    kind = torch.bfloat16 if low and not autocast else torch.float32
    net = net.to(kind)
    forward = torch.compile(net) if "compiled" in case else net
    optimizer = torch.optim.SGD(
        net.parameters(), row.learning_rate, row.momentum, weight_decay=row.weight_decay, nesterov=row.nesterov
    )
    images, labels = (torch.from_numpy(each) for each in constant_batch(batch))
    images = ((images - 127) / 64).permute(0, 3, 1, 2).to(kind).contiguous(memory_format=torch.channels_last)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = forward(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def constant_batch(batch: int):
    """(batch, 32, 32, 3) raw images and (batch, 10) one-hot labels, float32."""
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3)).astype(np.float32)
    return images, np.eye(10, dtype=np.float32)[np.arange(batch) % 10]


def work(pipe, name: str, case: str, batch: int, threads: int, steps: int) -> None:
    """A case's process: makes its step, then at every message measures `steps` of them: (wall, processor) seconds."""
    make = our_step if case.startswith("ours") else their_step
    try:
        step = make(name, case, batch, threads)
        for _ in range(3):
            step()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")
        return
    pipe.send(None)
    while pipe.recv():
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        pipe.send(((time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps))


def compare(name: str, batch: int, threads: int, steps: int, rounds: int, record: Path | None) -> float:
    """Print the table of one model; the processor time of our bfloat16 step, in seconds."""
    workers = {}
    for case in CASES:
        pipe, process = turns.start(work, name, case, batch, threads, steps)
        if problem := pipe.recv():
            print(f"{case}: not run ({problem})")
            process.join()
        else:
            workers[case] = pipe, process
    times: dict[str, list[tuple[float, float]]] = turns.measured(workers, rounds)
    print(f"\n{name}, batch {batch}, {threads} threads, {rounds} rounds of {steps} steps\n")
    table = []
    for case, rows in times.items():
        row = {f"`{name}`": case, "images/s": spread([batch / wall for wall, _ in rows])}
        row["processor ms an image"] = spread([1e3 * cpu / batch for _, cpu in rows])
        for index, title in enumerate((f"against {REFERENCE}", "the same, processor time")):
            pairs = zip(rows, times[REFERENCE], strict=True)
            row[title] = spread([base[index] / own[index] for own, base in pairs])
        table.append(row)
    report(table, record and record.with_stem(f"{record.stem}_{name}"), name, rounds)
    return statistics.median(cpu for _, cpu in times["ours bfloat16"])


def input_share(pipe, name: str, batch: int, threads: int) -> None:
    """Send the processor time, in seconds, of making one batch and of augmenting it."""
    import numpy as np
    import tensorflow as tf

    from zoo.config import load_config
    from zoo.data import Split
    from zoo.training import start
    from zoo.training.augmentation import ShiftAndFlip
    from zoo.training.batches import training_batches
    from zoo.training.feeding import fed

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    start(0, True)
    config = load_config(name)
    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    batches = training_batches(Split(images, np.arange(50_000) % 10), 10, batch, 0)
    arrived = iter(fed(batches))
    layer = ShiftAndFlip(config.train.augment, config.model.preprocess.mean)
    augment = tf.function(lambda images: layer(images, training=True))
    example = next(arrived)[0]
    augment(example)
    begin = time.process_time()
    for _ in range(100):
        next(arrived)
    reading = (time.process_time() - begin) / 100
    begin = time.process_time()
    for _ in range(100):
        augment(example)
    pipe.send((reading, (time.process_time() - begin) / 100))


def main() -> None:
    """Measure every model, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=("resnet29_cifar10", "nin_cifar10_bn"))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_option(parser)
    options = parser.parse_args()
    for name in options.models:
        step = compare(name, options.batch, options.threads, options.steps, options.rounds, options.record)
        pipe, process = turns.start(input_share, name, options.batch, options.threads)
        reading, augmenting = pipe.recv()
        process.join()
        whole = step + reading + augmenting
        print(
            f"\nof our bfloat16 step with its input ({1e3 * whole:.0f} ms of processor time): reading a batch "
            f"{reading / whole:.1%} ({1e3 * reading:.2f} ms), augmenting it {augmenting / whole:.1%} "
            f"({1e3 * augmenting:.2f} ms)"
        )


if __name__ == "__main__":
    main()
