"""What is measured: the network on one engine, called as a user of that engine calls it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from costs import DTYPES, allow_tf32
from networks import PeerNetwork
from peers import PEERS, Peer, installed
from torch import Tensor, nn

import lground
from lground import sparse
from lground.models.res16unet import Res16UNet
from lground.sparse import SparseTensor

OWN = ("lground", "lground-half", "plain")  # as it comes; with weights cast to 16 bits; without Triton


class Subject:
    """A network on an engine.

    Args:
        engine: one of `OWN` or of `peers.PEERS`.
        device: where it runs.
        full_tuning: let peers that tune their kernels try all their candidates.
    """

    def __init__(self, engine: str, device: torch.device, full_tuning: bool = False):
        self.engine, self.device = engine, device
        self.peer: Peer | None = PEERS[engine](full_tuning) if engine in PEERS else None
        self.shape, self.scenes = (64, 64, 64), 1

    def room(self, coordinates: list[Tensor], scenes: int) -> None:
        """Tell peers that need it the box that holds all coordinates, and the number of scenes in a batch."""
        sides = torch.stack([c[:, 1:].amax(0) for c in coordinates]).amax(0).tolist()
        self.shape, self.scenes = tuple((side // 64 + 1) * 64 for side in sides), scenes

    def load(self, net: Res16UNet, dtype: str, training: bool) -> None:
        """Take this network, already on the device, for work in "fp32", "tf32", "bf16" or "fp16".

        Peers and "lground-half" infer with weights of that dtype, their fastest way; else autocast does it.
        """
        allow_tf32(dtype)
        if self.peer:
            self.peer.allow_tf32(dtype == "tf32")
            net = PeerNetwork(net, self.peer).to(self.device)
        narrow = DTYPES[dtype] != torch.float32
        self.casts = narrow and not training and (self.peer is not None or self.engine == "lground-half")
        self.net: nn.Module = net.to(DTYPES[dtype]) if self.casts else net
        self.net.train(training)
        self.dtype = DTYPES[dtype]
        self.autocasts = narrow and not self.casts

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype) if self.autocasts else nullcontext()

    def fresh(self, coordinates: Tensor, features: Tensor) -> tuple[Tensor, object]:
        """Logits (N, classes) of (N, 4) coordinates never seen, and a tensor that knows their maps."""
        features = features.to(self.dtype) if self.casts else features
        with self.autocast():
            if self.peer is None:
                x = SparseTensor(features, coordinates)
                return self.net(x)[-2].features, x
            x = self.peer.tensor(coordinates, features, self.shape, self.scenes)
            out, last = self.net(x)
            return out, self.peer.with_maps_of(x, last)

    def again(self, x) -> Tensor:
        """Logits on voxels whose maps are known."""
        with self.autocast():
            out = self.net(x)
        return out[0] if self.peer else out[-2].features

    def plainly(self) -> AbstractContextManager:
        """Switches the Triton kernels off for the plain twin."""
        return plain() if self.engine == "plain" else nullcontext()

    @property
    def version(self) -> str:
        """Of the engine, as installed."""
        return installed()[self.engine] if self.peer else lground.__version__


def plain() -> AbstractContextManager:
    """Plain PyTorch on every device."""
    return getattr(sparse, "plain", nullcontext)()
