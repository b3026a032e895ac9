"""State dicts of nets written in PyTorch under torchvision's names: the same logits. Needs torch, which is no extra."""

import numpy as np
import pytest
from conftest import noise

import zoo
from zoo.scores import relative_error

torch = pytest.importorskip("torch")
nn = torch.nn


class Bottleneck(nn.Module):
    """Torchvision's: stride in the 3x3, which groups divide."""

    def __init__(self, inputs, width, outputs, stride, groups):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    def __init__(self, groups=1, width_per_group=64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            width, outputs = groups * width_per_group * 2**stage, 256 * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            rows = []
            for stride in strides:
                rows.append(Bottleneck(inputs, width, outputs, stride, groups))
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*rows))
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class Unit(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, inputs, one, reduce3, three, reduce5, five, project):
        super().__init__()
        self.branch1 = Unit(inputs, one, 1)
        self.branch2 = nn.Sequential(Unit(inputs, reduce3, 1), Unit(reduce3, three, 3))
        self.branch3 = nn.Sequential(Unit(inputs, reduce5, 1), Unit(reduce5, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Unit(inputs, project, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    ROWS = {
        "3a": (192, 64, 96, 128, 16, 32, 32),
        "3b": (256, 128, 128, 192, 32, 96, 64),
        "4a": (480, 192, 96, 208, 16, 48, 64),
        "4b": (512, 160, 112, 224, 24, 64, 64),
        "4c": (512, 128, 128, 256, 24, 64, 64),
        "4d": (512, 112, 144, 288, 32, 64, 64),
        "4e": (528, 256, 160, 320, 32, 128, 128),
        "5a": (832, 256, 160, 320, 32, 128, 128),
        "5b": (832, 384, 192, 384, 48, 128, 128),
    }

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = Unit(3, 64, 7, 2), Unit(64, 64, 1), Unit(64, 192, 3)
        for name, row in self.ROWS.items():
            setattr(self, f"inception{name}", Inception(*row))
        self.fc = nn.Linear(1024, 1000)

    def forward(self, x):
        pool = nn.functional.max_pool2d
        x = pool(self.conv1(x), 3, 2, ceil_mode=True)
        x = pool(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        for name in self.ROWS:
            x = getattr(self, f"inception{name}")(x)
            if name in ("3b", "4e"):
                x = pool(x, 3 if name == "3b" else 2, 2, ceil_mode=True)
        return self.fc(x.mean((2, 3)))


NETS = {
    "resnet50_v1_5": ResNet50,
    "resnext50_32x4d": lambda: ResNet50(groups=32, width_per_group=4),
    "googlenet": GoogLeNet,
}


@pytest.mark.parametrize("name", NETS)
def test_a_state_dict_gives_the_same_logits_at_three_sizes(name):
    theirs = NETS[name]().eval()
    generator = torch.Generator().manual_seed(0)
    for key, value in theirs.state_dict().items():
        if value.ndim == 1:
            low = 0.5 if key.endswith(("running_var", "weight")) else -0.3
            value.copy_(low + torch.rand(value.shape, generator=generator))
        elif value.ndim:
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for size in ((224, 224), (257, 203), (160, 191)):
        images = noise(1, *size, 3)
        prepared = ((images / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
        with torch.no_grad():
            wanted = theirs(torch.from_numpy(prepared)).numpy()
        ours = zoo.build(name, weights=state, image_size=size)
        assert relative_error(np.asarray(ours(images)), wanted) <= 1e-4
