"""What the processes of torch.distributed hold, brought together."""

from typing import TypeVar

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks, on every one; [value] when there is one.

    Every process must call it. The value is pickled between the processes of one run.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
