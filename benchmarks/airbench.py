"""airbench94 on a CPU: what `zoo train fast_cifar10` is to be set beside, in one sitting on the same machine.

    pip install -e '.[benchmarks]'
    python benchmarks/airbench.py [--seeds 0 1 2] [--epochs 9.9] [--threads 2] [--record FILE]

Rewritten for PyTorch's bfloat16 in channels_last from the paper (Jordan 2024, arXiv:2404.00498, section 3 and its
listings). The table gives test accuracy on the images as they are and over six views, minutes of training (reading,
augmenting and evaluating are part of them but for the evaluation at the end), TFLOP/s, and the minutes after which an
epoch's end was at 90 %.
"""

import argparse
import math
import time

import numpy as np
import tensorflow_datasets as tfds
import torch
from record import add_option, deviation, report
from torch import nn
from torch.nn import functional

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH = 1024
# Rates and decay are for 1,024 images; divided by this they are those of PyTorch's Nesterov momentum on summed losses.
MOMENTUM = 0.85
KILOSTEP = 1024 * (1 + 1 / (1 - MOMENTUM))
RATE, DECAY, BIAS_SCALER, SMOOTHING = 11.5, 0.0153, 64, 0.2
WHITEN_BIAS_EPOCHS = 3


class Conv(nn.Conv2d):
    """3x3, padded, without bias; the first filters hand their inputs on at first (section 3.3)."""

    def __init__(self, inputs: int, outputs: int):
        """Draw the others as PyTorch does."""
        super().__init__(inputs, outputs, 3, padding="same", bias=False)
        nn.init.dirac_(self.weight.data[:inputs])


def norm(channels: int) -> nn.BatchNorm2d:
    """Without a trained scale; the running statistics keep 0.6 a batch."""
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


def group(inputs: int, outputs: int) -> list[nn.Module]:
    """Two convolutions, the first one pooled before its normalisation."""
    first = [Conv(inputs, outputs), nn.MaxPool2d(2), norm(outputs), nn.GELU()]
    return [*first, Conv(outputs, outputs), norm(outputs), nn.GELU()]


class Net(nn.Module):
    """The net of section 3.1, its first layer whitening 2x2 patches of `images` (section 3.2)."""

    def __init__(self, images: torch.Tensor):
        """Take normalised images (n, 3, 32, 32)."""
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).transpose(1, 3).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / torch.sqrt(values + 5e-4)).T.reshape(-1, 3, 2, 2)
        self.whiten.weight.data = torch.cat((filters, -filters))
        self.whiten.weight.requires_grad = False
        self.whiten.bias.data.zero_()
        self.groups = nn.Sequential(nn.GELU(), *group(24, 64), *group(64, 256), *group(256, 256), nn.MaxPool2d(3))
        self.head = nn.Linear(256, 10, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.head(self.groups(self.whiten(images)).flatten(1)).float() / 9


def multiply_adds(net: Net) -> int:
    """Of one image's forward pass, convolutions and the head."""
    total, hooks = 0, []

    def count(layer, _, output):
        nonlocal total
        total += layer.weight.numel() * math.prod(output.shape[2:])

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            hooks.append(layer.register_forward_hook(count))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return total


def augmented(padded: torch.Tensor, is_flipped: torch.Tensor) -> torch.Tensor:
    """Images (n, 36, 36, 3) shifted by up to two pixels, and mirrored where said: (n, 3, 32, 32), channels last."""
    count = len(padded)
    rows, columns = (torch.randint(5, (count, 1)) + torch.arange(32) for _ in range(2))
    columns = torch.where(is_flipped[:, None], columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracies(net: Net, images: torch.Tensor, labels: torch.Tensor, views: bool) -> list[float]:
    """In %, plain and, where asked, over six views (section 3.5)."""
    net.eval()
    right = torch.zeros(2)
    for x, y in zip(images.split(1000), labels.split(1000), strict=True):
        plain = net(x)
        right[0] += (plain.argmax(1) == y).sum()
        if views:
            padded = functional.pad(x, (1,) * 4, "reflect")
            corners = (padded[:, :, :32, :32], padded[:, :, 2:, 2:])
            shifted = sum(net(each) + net(each.flip(3)) for each in corners)
            right[1] += ((2 * (plain + net(x.flip(3))) + shifted).argmax(1) == y).sum()
    net.train()
    return [round(100 * float(each) / len(labels), 2) for each in right[: 1 + views]]


def learn(data: dict[str, torch.Tensor], seed: int, epochs: float) -> dict[str, float]:
    """One training, and what it reached."""
    torch.manual_seed(seed)
    begin = time.perf_counter()
    images, labels = data["train"], data["train_labels"]
    net = Net(images[:5000]).to(memory_format=torch.channels_last)
    operations = 6 * multiply_adds(net)
    net.train()
    steps = math.ceil(len(images) // BATCH * epochs)
    rate, decay = RATE / KILOSTEP, DECAY * BATCH / KILOSTEP
    fast = [each.bias for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    rest = [each for each in net.parameters() if each.requires_grad and all(each is not other for other in fast)]
    sections = [
        {"params": fast, "lr": rate * BIAS_SCALER, "weight_decay": decay / (rate * BIAS_SCALER)},
        {"params": rest, "lr": rate, "weight_decay": decay / rate},
    ]
    optimizer = torch.optim.SGD(sections, momentum=MOMENTUM, nesterov=True)
    rises = int(0.23 * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: 0.2 + 0.8 * step / rises if step < rises else 1 - 0.93 * (step - rises) / (steps - rises),
    )
    numbers = [each for each in net.state_dict().values() if each.is_floating_point()]
    slow = [each.clone() for each in numbers]
    padded = functional.pad(images, (2,) * 4, "reflect").permute(0, 2, 3, 1).contiguous()
    is_flipped = torch.rand(len(images)) < 0.5
    step, epoch, reached = 0, 0, math.nan
    while step < steps:
        net.whiten.bias.requires_grad = epoch < WHITEN_BIAS_EPOCHS
        inputs = augmented(padded, is_flipped ^ (epoch % 2 == 1))
        for chosen in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH)[: steps - step]:
            x = inputs[chosen].contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(net(x), labels[chosen], label_smoothing=SMOOTHING, reduction="sum")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            # Lookahead (section 3.4): the weights go back to their average every five steps, and at the end.
            if step % 5 == 0 or step == steps:
                keep = 0.95**5 * (step / steps) ** 3 if step < steps else 1.0
                with torch.no_grad():
                    torch._foreach_lerp_(slow, numbers, 1 - keep)
                    torch._foreach_copy_(numbers, slow)
        epoch += 1
        (plain,) = accuracies(net, data["test"], data["test_labels"], views=False)
        minutes = (time.perf_counter() - begin) / 60
        print(
            f"seed {seed}, epoch {epoch}: {plain:.2f} % after {minutes:.1f} minutes, loss {loss / BATCH:.3f}",
            flush=True,
        )
        if plain >= 90 and math.isnan(reached):
            reached = minutes
    plain, views = accuracies(net, data["test"], data["test_labels"], views=True)
    rate = operations * steps * BATCH / minutes / 60e12
    return {"plain": plain, "views": views, "minutes": minutes, "rate": rate, "reached": reached}


def main() -> None:
    """Train once a seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=float, default=9.9)
    parser.add_argument("--threads", type=int, default=2)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = {}
    for part in ("train", "test"):
        arrays = tfds.as_numpy(tfds.load("cifar10", split=part, batch_size=-1))
        pixels = (arrays["image"].astype(np.float32) / 255 - MEAN) / STD
        data[part] = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
        data[f"{part}_labels"] = torch.from_numpy(arrays["label"])
    results = [learn(data, seed, options.epochs) for seed in options.seeds]
    mean = {key: deviation([each[key] for each in results], digits=4) for key in results[0]}
    row = {
        "net": "airbench94, PyTorch bfloat16",
        "test accuracy, %": mean["plain"],
        "over six views, %": mean["views"],
        "minutes": mean["minutes"],
        "TFLOP/s": mean["rate"],
        "minutes to 90 %": mean["reached"],
    }
    report([row], options.record, "airbench94", len(data["test"]), tuple(options.seeds))


if __name__ == "__main__":
    main()
