"""Res16UNet in inference on CUDA: every layer one kernel, the whole network two CUDA graphs.

Batch norm, ReLU and shortcuts are epilogues of the convolutions, and skips are written where the decoder reads
them. The number of voxels stays on the device: a graph of some capacity serves every scene that fits, with no
word from the host between the coordinates and the features. The first graph builds the maps; while the second
computes, the host reads what the first found (duplicates, a level that needs more room) and acts on it.

Changed weights are noticed, in place or replaced, by fused optimisers, too; only what is written through
`parameter.data` is not.
"""

from __future__ import annotations

import itertools
import weakref
from operator import is_
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from lground.models.trunk import LEVELS, Trunk, has_kernels
from lground.sparse.engine import PyramidCoordinates, takes_over, within_int32
from lground.sparse.tensor import SparseTensor

if TYPE_CHECKING:
    from lground.sparse.kernels.pyramid import Pyramid

GRAPHS = 8  # kept per network; scenes of other sizes replace the one unused for longest
MAX_VOXELS = 4_000_000
ROWS = 1.0, 0.32, 0.085, 0.021, 0.005  # of each level per voxel, as surfaces have them
ROOM = 1.0, 0.4, 0.13, 0.045, 0.018  # for them
MAP_BYTES = 264  # per row of any level, while maps are built; their tables lie elsewhere


def features(network: nn.Module, x: SparseTensor) -> Tensor | None:
    """(N, d) features of the voxels of `x`, or None where the layers have to be run one by one.

    That is: with gradients, in training mode, off CUDA, with hooks on layers, in double precision, and where no
    change of the weights would show because they were made in inference mode.
    """
    if torch.is_grad_enabled() or network.training or not _as_given(x):
        return None
    if x.features.device.type != "cuda" or not takes_over(x.features.device) or len(x) > MAX_VOXELS:
        return None
    from lground.sparse.kernels.autograd import TYPES, compute_type, precision

    dtype = compute_type(x.features, network.conv0p1s1.kernel)
    if dtype not in TYPES or network.conv0p1s1.kernel.is_inference():
        return None
    key = dtype, precision(dtype), x.features.device
    plans = _PLANS.setdefault(network, {})
    for _ in range(2):
        plan = plans.get(key) or plans.setdefault(key, Plans(network, *key))
        with torch.inference_mode(False), torch.no_grad():  # buffers made in inference mode serve only there
            result = plan(x)
        if result is not STALE:
            return result
        plans.pop(key, None)
    return None


def _as_given(x: SparseTensor) -> bool:
    """Whether `x` lies on voxels as a user gave them."""
    return isinstance(x.coordinate_map, PyramidCoordinates) and not x.coordinate_map.level


_PLANS: weakref.WeakKeyDictionary[nn.Module, dict] = weakref.WeakKeyDictionary()
STALE = object()  # the answer of plans whose network has changed


def _tell(optimizer: Optimizer, *_) -> None:
    """Fused optimisers write weights without raising their version, which `_Watch` looks at."""
    fused = [group["params"] for group in optimizer.param_groups if group.get("fused")]
    torch.autograd.graph.increment_version(itertools.chain(*fused))


register_optimizer_step_post_hook(_tell)


class _Watch:
    """Whether a network is still what it was: its weights, and nobody listening to its layers."""

    def __init__(self, network: nn.Module):
        self.modules = list(network.modules())[1:]
        # Not the network itself, which would live as long as its plans, but what it and its modules consist of.
        self.places = [d for m in network.modules() for d in (m._modules, m._parameters, m._buffers)]
        self.held = self._held()
        self.weights = [thing for thing in self.held if isinstance(thing, Tensor)]
        self.seen = self._look()

    def _held(self) -> list[nn.Module | Tensor | None]:
        return [thing for place in self.places for thing in place.values()]

    def _look(self) -> list[int]:
        return [w._version for w in self.weights] + [w.data_ptr() for w in self.weights]

    def unchanged(self) -> bool:
        held = self._held()
        same = len(held) == len(self.held) and all(map(is_, held, self.held))
        return same and self._look() == self.seen

    def listened_to(self) -> bool:
        return any(m._forward_hooks or m._forward_pre_hooks for m in self.modules)


class Plans:
    """The graphs of one network and type, by capacity; the smallest that fits serves a scene."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, precision: str, device: torch.device):
        self.watch = _Watch(network)
        self.trunk = Trunk(network, dtype, precision) if has_kernels(network) else None
        self.graphs: dict[tuple, _Graph] = {}
        self.room = list(ROOM)  # grows where a scene needs more
        self.shared = _shared(device)
        with self.shared.lock:
            self.shared.plans.add(self)

    def __call__(self, x: SparseTensor) -> Tensor | object | None:
        """Features of the voxels; STALE if the network has changed; None if layers have to be run one by one."""
        if self.trunk is None or x.features.shape[1] != self.trunk.in_channels:
            return None if self.watch.unchanged() else STALE
        from lground.sparse.kernels.maps import OVERFLOW

        coordinates = within_int32(x.coordinate_map.scenes.given)
        with self.shared.lock:
            while True:
                graph = self._graph(x.features)
                result = graph.start(coordinates, x.features)
                if not self.watch.unchanged():  # looked at while the device is busy
                    return STALE
                if self.watch.listened_to():
                    return None
                status, rows = graph.found()
                if not status:
                    return result
                if status != OVERFLOW.value:
                    return None  # layer by layer, the plain path says what is wrong, or copes with it
                self.room = [max(old, 1.2 * n / len(x)) for old, n in zip(self.room, rows, strict=True)]
                self.graphs.clear()

    def _graph(self, features: Tensor) -> _Graph:
        step = 1 << max(10, len(features).bit_length() - 5)  # at most a sixteenth is left empty
        capacity = -(-len(features) // step) * step
        key = capacity, features.shape[1], features.dtype
        if key not in self.graphs and len(self.graphs) == GRAPHS:
            del self.graphs[next(iter(self.graphs))]
        self.graphs[key] = self.graphs.pop(key, None) or _Graph(self.trunk, capacity, self.room, features)
        return self.graphs[key]


class _Graph:
    """Two captured graphs of one capacity: maps, and layers.

    Their intermediate results lie in one pool that all graphs of a device share, for only one runs at a time.
    """

    def __init__(self, trunk: Trunk, capacity: int, room: list[float], like: Tensor):
        from lground.sparse.kernels.shapes import PROGRAMS
        from lground.sparse.kernels.tiles import TILE_ROWS

        self.trunk, device = trunk, like.device
        self.caps = [-(-min(capacity, int(capacity * r) + 1) // TILE_ROWS) * TILE_ROWS for r in room]
        # Shapes of programs, and with them the order of sums, follow the capacity alone: not what came before.
        self.rows = [int(capacity * r) for r in ROWS]
        self.coordinates = torch.zeros(self.caps[0], 4, dtype=torch.int32, device=device)
        self.features = like.new_zeros(self.caps[0], like.shape[1])
        self.number = torch.zeros(1, dtype=torch.int32, device=device)
        self.state = torch.zeros(8, dtype=torch.int32, pin_memory=True)
        self.arrivals = torch.zeros(PROGRAMS, dtype=torch.int32, device=device)
        self.shared, self.mapped = _shared(device), torch.cuda.Event()
        size = trunk.size(self.caps, self.rows, device) * trunk.dtype.itemsize
        table = 27 * sum(self.caps) * torch.int32.itemsize
        memory = self.shared.space(max(size, table))
        self.space = memory[:size].view(trunk.dtype)
        self.table = memory[:table].view(torch.int32)  # read before results of layers are written
        self.out: Tensor | None = None  # a part of it
        self.graphs: list[torch.cuda.CUDAGraph] = []

    def start(self, coordinates: Tensor, features: Tensor) -> Tensor:
        """Set the device to work; features (N, d), of no use unless the maps turn out well."""
        stream = torch.cuda.current_stream(features.device)
        stream.wait_event(self.shared.done)
        self.coordinates[: len(coordinates)].copy_(coordinates)
        self.features[: len(features)].copy_(features)
        self.number.fill_(len(features))
        if not self.graphs:
            self._capture()
        maps, layers = self.graphs
        maps.replay()
        self.mapped.record(stream)
        layers.replay()
        result = self.out[: len(features)].clone()
        self.shared.done.record(stream)
        return result

    def found(self) -> tuple[int, list[int]]:
        """Status bits of the maps and the number of rows of each level, as soon as the maps are built."""
        self.mapped.synchronize()
        *rows, status = self.state[: LEVELS + 1].tolist()
        return status, rows

    def _build(self) -> Pyramid:
        from lground.sparse.kernels.pyramid import Pyramid

        pyramid = Pyramid.build(self.coordinates, self.number, self.caps, table=self.table)
        self.state.copy_(pyramid.n, non_blocking=True)
        pyramid.slim()
        return pyramid

    def _run(self, pyramid: Pyramid) -> Tensor:
        return self.trunk(pyramid, self.features, self.arrivals, self.space, self.rows)

    def _capture(self) -> None:
        from lground.sparse.kernels.launch import compiling

        stream = self.shared.stream
        stream.wait_stream(torch.cuda.current_stream(self.features.device))
        with torch.cuda.stream(stream):
            with compiling():
                self._run(self._build())
            self._run(self._build())  # so that libraries set themselves up
            stream.synchronize()
            torch.cuda.empty_cache()  # what that took is not what the graphs will take
            # Other threads may go on using the device meanwhile, as those that load data do.
            options = {"pool": self.shared.pool, "stream": stream, "capture_error_mode": "thread_local"}
            maps, layers = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(maps, **options):
                # One piece of memory to cut all others from; pieces one by one would take half as much again.
                size = _rounded(MAP_BYTES * sum(self.caps))
                torch.empty(size, dtype=torch.uint8, device=self.features.device)
                pyramid = self._build()
            with torch.cuda.graph(layers, **options):
                self.out = self._run(pyramid)
            self.graphs = [maps, layers]
        torch.cuda.current_stream(self.features.device).wait_stream(stream)


class _Shared:
    """What all graphs of a device share, whatever their network: memory, and so their turn on the device."""

    def __init__(self, device: torch.device):
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            # To capture on, always the same: libraries keep memory for every stream that they see.
            self.stream = torch.cuda.Stream()
        self.lock, self.done = Lock(), torch.cuda.Event()
        self.memory = torch.empty(0, dtype=torch.uint8, device=device)
        self.plans: weakref.WeakSet[Plans] = weakref.WeakSet()

    def space(self, size: int) -> Tensor:
        """(size,) uint8 for what a scene needs while it passes: new memory, if what there is does not suffice."""
        if len(self.memory) < size:
            self.done.synchronize()
            for plans in self.plans:
                plans.graphs.clear()  # they lie in what is too small
            self.memory = self.memory.new_empty(0)
            torch.cuda.empty_cache()  # the smaller and the larger are never there together
            self.memory = self.memory.new_empty(_rounded(size))
        return self.memory[:size]


def _rounded(size: int) -> int:
    """Bytes, an eighth more at most: few sizes, so that graphs take turns on one piece of memory."""
    step = 1 << max(20, size.bit_length() - 4)
    return -(-size // step) * step


_SHARED: dict[torch.device, _Shared] = {}


def _shared(device: torch.device) -> _Shared:
    return _SHARED.get(device) or _SHARED.setdefault(device, _Shared(device))
