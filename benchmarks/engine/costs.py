"""The floor: what the network must compute and move on given voxels, at the rates that this machine reaches."""

import time
from collections.abc import Callable
from statistics import median

import torch
from networks import mapped
from torch import Tensor

from lground.models.res16unet import Res16UNet

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def allow_tf32(dtype: str) -> None:
    """Whether torch may round float32 products to tf32: for "tf32" only."""
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of `call` after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append((time.perf_counter() - start) * 1e3)
    return median(times[1:])


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def ceilings(device: torch.device, dtypes: list[str]) -> dict[str, float]:
    """Measured rates: `copy` in bytes per second (read and written), each dtype's matrix product in FLOP/s."""
    cuda = device.type == "cuda"
    rates = {"copy": _copy_rate(1 << 31 if cuda else 1 << 27, device)}
    size = 8192 if cuda else 1024
    for name in dtypes:
        allow_tf32(name)
        a, b = torch.randn(2, size, size, device=device).to(DTYPES[name])
        rates[name] = 2 * size**3 / milliseconds(lambda a=a, b=b: a @ b, device, 9) * 1e3
    return rates


def _copy_rate(size: int, device: torch.device) -> float:
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / milliseconds(lambda: target.copy_(source), device, 9) * 1e3


def layers(net: Res16UNet, coordinates: Tensor) -> list[tuple[int, int, int, int, int, int]]:
    """Of every convolution: rows in, rows out, offsets, pairs, channels in, channels out, from the real maps."""
    found, known = [], {}
    for conv, rows_in, rows_out, kernel_map in mapped(net, coordinates):
        if kernel_map is None:
            offsets, pairs = 1, rows_in
        else:
            offsets = len(kernel_map)
            if id(kernel_map) not in known:
                known[id(kernel_map)] = sum(map(len, kernel_map.inputs))
            pairs = known[id(kernel_map)]
        found.append((rows_in, rows_out, offsets, pairs, *conv.kernel.shape[-2:]))
    return found


def floor(costs: list[tuple], rates: dict[str, float], dtype: str) -> dict[str, float]:
    """`ms`, `gflop` and `mb` of one inference: each layer takes as long as its products or its bytes do.

    A layer reads its input and its weights once, one int32 per pair, and writes its output once.
    """
    seconds = flop = moved = 0.0
    for rows_in, rows_out, offsets, pairs, channels_in, channels_out in costs:
        work = 2.0 * pairs * channels_in * channels_out
        numbers = rows_in * channels_in + rows_out * channels_out + offsets * channels_in * channels_out
        size = BYTES[dtype] * numbers + (4 * pairs if offsets > 1 else 0)
        flop, moved = flop + work, moved + size
        seconds += max(work / rates[dtype], size / rates["copy"])
    return {"ms": seconds * 1e3, "gflop": flop / 1e9, "mb": moved / 1e6}
