"""Network in Network (Lin, Chen, Yan 2013, arXiv:1312.4400): mlpconv layers, down to the last feature map."""

from zoo.config.models import NINConfig
from zoo.models.blocks import Tensor, mlpconv


def feature_map(x: Tensor, config: NINConfig) -> Tensor:
    """The mlpconv layers in order: (B, H, W, C) -> (B, H', W', filters of the last).

    Deviations from the released Caffe definition: the last 1x1 layer, to the classes, is the head's and has no ReLU,
    so that the outputs are logits; a padded average pooling counts the added zeros.
    """
    for index, row in enumerate(config.mlpconvs, start=1):
        x = mlpconv(x, row, f"mlpconv{index}", padding=config.padding, normalization=config.normalization)
    return x
