"""Networks by name."""

from lground.models.res16unet import Res16UNet
from lground.models.variants import find_variant


def build(
    name: str,
    in_channels: int = 3,
    out_channels: int = 200,
    stem_kernel_size: int = 3,
    bn_momentum: float = 0.02,
    representation_only: bool = False,
    anchor_channels: int = 512,
) -> Res16UNet:
    """Build a network by its published name, with fresh weights.

    Args:
        name: "Res16UNet34C", "Res16UNet34D", ...; "insseg_Res16UNet34C", ... have the offsets head of
            instance segmentation. `VARIANTS` lists them.
        in_channels: features per voxel.
        out_channels: classes.
        stem_kernel_size: kernel of the first convolution.
        bn_momentum: momentum of the batch norms outside residual blocks.
        representation_only: the pretraining network, without classifier.
        anchor_channels: width of the text anchors, for the networks that project them.

    Raises:
        InputError: no network has that name (the nearest is named).
    """
    return Res16UNet(
        find_variant(name),
        in_channels,
        out_channels,
        stem_kernel_size,
        bn_momentum,
        representation_only,
        anchor_channels,
    )
