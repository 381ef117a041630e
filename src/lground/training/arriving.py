"""Numbers on their way from the device."""

import torch
from torch import Tensor


class Arriving:
    """A tensor that is copied to the host as soon as it is computed, while the device goes on with what comes after.

    Reading it sleeps until it is there: the usual wait would spin, on a core that could load scenes.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.there = tensor, None
        if tensor.is_cuda:
            self.tensor = tensor.to("cpu", non_blocking=True)
            self.there = torch.cuda.Event(blocking=True)
            self.there.record()

    def tolist(self) -> list:
        if self.there is not None:
            self.there.synchronize()
        return self.tensor.tolist()
