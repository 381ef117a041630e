"""The named networks, as data: blocks and channels of each stage, and what follows the last block."""

import difflib
from dataclasses import dataclass

from lground.errors import InputError

ENCODER_PLANES = (32, 64, 128, 256)


@dataclass(frozen=True)
class Variant:
    """One named network.

    Attributes:
        layers: residual blocks of the four encoder and four decoder stages.
        decoder_planes: channels of the four decoder stages; the last is the width of the features.
        final_relu: whether the last block ends in a ReLU; if not, features are signed like text embeddings.
        head: "linear" (one 1x1 convolution), or the deeper "two_step" and "block" classifiers.
        offsets: whether a second head predicts the offset of each voxel to the centre of its object.
        projection: whether a learned map brings text anchors to the width of the features.
    """

    layers: tuple[int, ...]
    decoder_planes: tuple[int, int, int, int]
    final_relu: bool = True
    head: str = "linear"
    offsets: bool = False
    projection: bool = False


L14 = (1,) * 8
L14_DECODER2 = (1, 1, 1, 1, 2, 2, 2, 2)
L14_ENCODER2 = (2, 2, 2, 2, 1, 1, 1, 1)
L18 = (2,) * 8
L34 = (2, 3, 4, 6, 2, 2, 2, 2)

A14, A34, B = (128, 128, 96, 96), (256, 128, 64, 64), (128, 128, 128, 128)
C34, D, CLIP = (256, 128, 96, 96), (384, 384, 384, 384), (256, 256, 256, 512)
WIDE = (256, 256, 256, 256)

_BACKBONES = {
    "Res16UNet14": Variant(L14, WIDE),
    "Res16UNet14A": Variant(L14, A14),
    "Res16UNet14A2": Variant(L14_DECODER2, A14),
    "Res16UNet14B": Variant(L14, B),
    "Res16UNet14B2": Variant(L14_DECODER2, B),
    "Res16UNet14B3": Variant(L14_ENCODER2, B),
    "Res16UNet14C": Variant(L14, (192, 192, 128, 128)),
    "Res16UNet14D": Variant(L14, D),
    "Res16UNet18": Variant(L18, WIDE),
    "Res16UNet18A": Variant(L18, A14),
    "Res16UNet18B": Variant(L18, B),
    "Res16UNet18D": Variant(L18, D),
    "Res16UNet34": Variant(L34, WIDE),
    "Res16UNet34A": Variant(L34, A34),
    "Res16UNet34B": Variant(L34, (256, 128, 64, 32)),
    "Res16UNet34C": Variant(L34, C34),
}

# The offsets head exists for every plain backbone and for the wide decoder, there with its last ReLU kept.
_INSTANCE = {**_BACKBONES, "Res16UNet34D": Variant(L34, CLIP)}

VARIANTS: dict[str, Variant] = {
    **_BACKBONES,
    # Small, for quick pretraining on a CPU; not of the original.
    "Res16UNet14AR": Variant(L14, A14, final_relu=False),
    "Res16UNet14AR_Proj": Variant(L14, A14, final_relu=False, projection=True),
    "Res16UNet34C100": Variant(L34, (256, 128, 128, 100)),
    "Res16UNet34C200": Variant(L34, (256, 128, 96, 200)),
    "Res16UNet34CR": Variant(L34, C34, final_relu=False),
    "Res16UNet34CR_Proj": Variant(L34, C34, final_relu=False, projection=True),
    "Res16UNet34C_P": Variant(L34, C34),
    "Res16UNet34D": Variant(L34, CLIP, final_relu=False),
    # For anchors of other widths than 512; not of the original.
    "Res16UNet34D_Proj": Variant(L34, CLIP, final_relu=False, projection=True),
    "Res16UNet34DPaired": Variant(L34, CLIP, final_relu=False),
    "Res16UNet34Dv2": Variant(L34, CLIP, final_relu=False, head="two_step"),
    "Res16UNet34Dv3": Variant(L34, CLIP, final_relu=False, head="block"),
    "Res16UNet34GloVe": Variant(L34, (256, 128, 128, 100), final_relu=False),
    # Keeps the projection of pretraining, so that what it finds can be named by any word; not of the original.
    "insseg_Res16UNet14AR_Proj": Variant(L14, A14, final_relu=False, offsets=True, projection=True),
    **{f"insseg_{name}": Variant(v.layers, v.decoder_planes, offsets=True) for name, v in _INSTANCE.items()},
}

# Named in the original, but their definition cannot run: the classifier expects a quarter of its channels.
_CANNOT_RUN = ("Res16UNet50", "Res16UNet101")


def find_variant(name: str) -> Variant:
    """The variant of that name. Raises InputError naming the nearest known one."""
    if name in VARIANTS:
        return VARIANTS[name]
    if name.removeprefix("insseg_") in _CANNOT_RUN:
        raise InputError(
            f"{name} cannot run as it was published (its classifier does not fit its blocks): use a 34 one"
        )
    by_lower_case = {known.lower(): known for known in VARIANTS}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.0)[0]
    raise InputError(f"no network is called {name!r}; the nearest is {by_lower_case[nearest]!r}")
