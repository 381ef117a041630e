"""Batch norm whose statistics are those of all processes, on CPUs (torch's own needs GPUs)."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of what they all do with it."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class CpuSyncBatchNorm(nn.BatchNorm1d):
    """`nn.SyncBatchNorm` of rows (N, C) for processes that talk through gloo; every process must have a pass."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        ones = torch.ones_like(wide[:, :1])
        sums = _Sum.apply(torch.cat([wide.sum(0), ones.sum(0)]))  # differentiable, (C + 1,)
        count = sums[-1]
        mean = sums[:-1] / count
        variance = _Sum.apply((wide - mean).square().sum(0)) / count  # centred first: no cancellation
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        y = (wide - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return y.to(x.dtype)


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Give every batch norm in `module` the statistics of all processes; names and values stay."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm1d:
                norm = CpuSyncBatchNorm(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                norm.train(child.training).requires_grad_(child.weight.requires_grad)
                setattr(parent, name, norm)
    return module
