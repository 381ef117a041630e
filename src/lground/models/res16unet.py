"""Res16UNet: a sparse residual U-Net of strides 1, 2, 4, 8, 16 (Choy et al., "4D Spatio-Temporal ConvNets",
CVPR 2019), as language-grounded pretraining uses it (Rozenberszki et al., ECCV 2022).

Module names, their order and the parameter shapes are those of the published checkpoints.
"""

from itertools import pairwise

from torch import Tensor, nn

from lground.errors import InputError
from lground.models import inference
from lground.models.variants import ENCODER_PLANES, Variant
from lground.sparse import (
    BatchNorm,
    InstanceNorm,
    ReLU,
    SparseConv3d,
    SparseConvTranspose3d,
    SparseTensor,
    cat,
    conv_norm,
)
from lground.sparse.engine import uncompiled
from lground.sparse.narrow import narrowed

STEM_CHANNELS = 32
# (convolution, norm, blocks) of each stage; the name says p<stride of the input>s<stride of the layer>.
ENCODER = (
    ("conv1p1s2", "bn1", "block1"),
    ("conv2p2s2", "bn2", "block2"),
    ("conv3p4s2", "bn3", "block3"),
    ("conv4p8s2", "bn4", "block4"),
)
DECODER = (
    ("convtr4p16s2", "bntr4", "block5"),
    ("convtr5p8s2", "bntr5", "block6"),
    ("convtr6p4s2", "bntr6", "block7"),
    ("convtr7p2s2", "bntr7", "block8"),
)


class BasicBlock(nn.Module):
    """conv3 - norm - ReLU - conv3 - norm - (+ shortcut) - ReLU; the shortcut of a new width is 1x1 - norm."""

    def __init__(self, in_channels: int, channels: int, bn_momentum: float, final_relu: bool = True):
        super().__init__()
        # The norms inside blocks keep torch's momentum, 0.1: the original did not pass `bn_momentum` on.
        self.conv1 = SparseConv3d(in_channels, channels, 3)
        self.norm1 = BatchNorm(channels)
        self.conv2 = SparseConv3d(channels, channels, 3)
        self.norm2 = BatchNorm(channels)
        if in_channels != channels:
            self.downsample = _Shortcut(
                SparseConv3d(in_channels, channels, 1), BatchNorm(channels, momentum=bn_momentum)
            )
        else:
            self.downsample = None
        self.final_relu = final_relu

    def forward(self, x: SparseTensor) -> SparseTensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_norm(self.conv1, self.norm1, x)
        return conv_norm(self.conv2, self.norm2, y, add=shortcut, relu=self.final_relu)


class _Shortcut(nn.Sequential):
    def forward(self, x: SparseTensor) -> SparseTensor:
        return conv_norm(*self, x, relu=False)


class Res16UNet(nn.Module):
    """The network of every variant.

    Args:
        variant: layers, channels and heads.
        in_channels: features per voxel (3: red, green, blue in [-0.5, 0.5]).
        out_channels: classes.
        stem_kernel_size: kernel of the first convolution (3 in the published weights).
        bn_momentum: momentum of the norms outside residual blocks.
        representation_only: build no classifier; forward returns the features alone.
        anchor_channels: width of the text anchors, where the variant projects them (512: CLIP's).

    Attributes:
        feature_channels: width of the features that forward returns.
    """

    def __init__(
        self,
        variant: Variant,
        in_channels: int = 3,
        out_channels: int = 200,
        stem_kernel_size: int = 3,
        bn_momentum: float = 0.02,
        representation_only: bool = False,
        anchor_channels: int = 512,
    ):
        super().__init__()
        self.feature_channels = width = variant.decoder_planes[-1]
        self.conv0p1s1 = SparseConv3d(in_channels, STEM_CHANNELS, stem_kernel_size)
        self.bn0 = BatchNorm(STEM_CHANNELS, momentum=bn_momentum)
        channels, skips = STEM_CHANNELS, []
        for (conv, norm, blocks), planes, depth in zip(
            ENCODER, ENCODER_PLANES, variant.layers[:4], strict=True
        ):
            skips.append(channels)
            self.add_module(conv, SparseConv3d(channels, channels, 2, stride=2))
            self.add_module(norm, BatchNorm(channels, momentum=bn_momentum))
            self.add_module(blocks, _blocks(channels, planes, depth, bn_momentum))
            channels = planes
        for (conv, norm, blocks), planes, depth in zip(
            DECODER, variant.decoder_planes, variant.layers[4:], strict=True
        ):
            self.add_module(conv, SparseConvTranspose3d(channels, planes, 2, stride=2))
            self.add_module(norm, BatchNorm(planes, momentum=bn_momentum))
            self.add_module(blocks, _blocks(planes + skips.pop(), planes, depth, bn_momentum))
            channels = planes
        self.block8[-1].final_relu = variant.final_relu
        self.final = None if representation_only else _head(variant.head, width, out_channels)
        self.projection_layer = nn.Conv1d(anchor_channels, width, 1) if variant.projection else None
        if variant.offsets:
            self.offsets_pre = SparseConv3d(width, width, 1, bias=True)
            self.bntr_offset = BatchNorm(width, momentum=bn_momentum)
            self.offsets = SparseConv3d(width, 3, 1, bias=True)
        else:
            self.offsets = None
        self._convolutions = [
            m for m in self.modules() if isinstance(m, SparseConv3d | SparseConvTranspose3d)
        ]

    @uncompiled
    def forward(self, x: SparseTensor, anchors: Tensor | None = None) -> SparseTensor | tuple:
        """Describe every voxel.

        Args:
            x: stride 1, (N, in_channels).
            anchors: (C, d) text anchors, for the variant that learns to project them.

        Returns:
            `logits, features`: (N, out_channels) and (N, feature_channels), rows as in `x`. Instance
            variants return `offsets, logits, features`, offsets (N, 3) in metres. A representation-only
            network returns `features`. With `anchors`, their projection (C, feature_channels) comes last.
        """
        features = inference.features(self, x)
        if features is None:
            with narrowed([conv.kernel for conv in self._convolutions], x.features.device):
                features = self._features(x)
        else:
            features = x.with_features(features)
        outputs = (features,) if self.final is None else (self.final(features), features)
        if self.offsets is not None:
            outputs = (self.offsets(conv_norm(self.offsets_pre, self.bntr_offset, features)), *outputs)
        if anchors is not None:
            outputs = (*outputs, self.project(anchors))
        return outputs if len(outputs) > 1 else features

    def _features(self, x: SparseTensor) -> SparseTensor:
        x = conv_norm(self.conv0p1s1, self.bn0, x)
        skips = []
        for conv, norm, blocks in ENCODER:
            skips.append(x)
            x = self._stage(conv, norm, x)
            x = self.get_submodule(blocks)(x)
        for conv, norm, blocks in DECODER:
            x = cat(self._stage(conv, norm, x), skips.pop())
            x = self.get_submodule(blocks)(x)
        return x

    def _stage(self, conv: str, norm: str, x: SparseTensor) -> SparseTensor:
        return conv_norm(self.get_submodule(conv), self.get_submodule(norm), x)

    def project(self, anchors: Tensor) -> Tensor:
        """Bring text anchors (C, d) to the width of the features, (C, feature_channels), as learned."""
        if self.projection_layer is None:
            raise InputError("this network has no projection of anchors: Res16UNet34CR_Proj has one")
        return self.projection_layer(anchors[:, :, None])[:, :, 0]


def _blocks(in_channels: int, channels: int, depth: int, bn_momentum: float) -> nn.Sequential:
    widths = [in_channels] + [channels] * depth
    return nn.Sequential(*(BasicBlock(a, b, bn_momentum) for a, b in pairwise(widths)))


def _head(kind: str, width: int, classes: int) -> nn.Module:
    def pointwise(channels: int) -> SparseConv3d:
        return SparseConv3d(width, channels, 1, bias=True)

    if kind == "linear":
        return pointwise(classes)
    step = [pointwise(width), pointwise(width), InstanceNorm(width), ReLU()]
    if kind == "two_step":
        return nn.Sequential(*step, pointwise(classes))
    block = [_blocks(width, width, 1, 0.1), InstanceNorm(width), ReLU()]
    return nn.Sequential(*block, *step, pointwise(classes))
