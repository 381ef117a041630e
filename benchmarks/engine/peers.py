"""Other sparse engines behind one small interface; each is imported only when it is asked for.

A peer's tensor is its own; `features` and `replace` read and exchange the matrix on it. Which of the peer's weight
slots means which offset is found by running the peer on one block of voxels, so that no layout is assumed.
"""

import importlib.util
from importlib.metadata import packages_distributions, version

import torch
from torch import Tensor, nn

from lground.sparse.kernel_map import kernel_offsets


class Peer:
    """What an adapter provides. `module`: what must be importable. `shape`: multiples of 64, one box for all scans."""

    module: str
    on_cpu = False

    def __init__(self, full_tuning: bool = False):
        self._slots: dict[tuple[str, int], list[int]] = {}

    def allow_tf32(self, allowed: bool) -> None:
        """Engines with a switch of their own set it here."""

    def tensor(self, coordinates: Tensor, features: Tensor, shape: tuple[int, int, int], scenes: int):
        """A fresh tensor of the peer: no map is known yet."""
        raise NotImplementedError

    def with_maps_of(self, x, last):
        """The tensor `x` that knows the maps of `last`, the last tensor of a run on it."""
        return x

    def features(self, x) -> Tensor:
        raise NotImplementedError

    def replace(self, x, features: Tensor):
        raise NotImplementedError

    def convolution(self, kind: str, channels: tuple[int, int], size: int, level: int) -> nn.Module:
        """kind "same", "down" (stride 2) or "up" (its inverse); level: of the finer side."""
        raise NotImplementedError

    def set_kernel(self, layer: nn.Module, kernel: Tensor) -> None:
        """Give a layer the (K, Cin, Cout) weights, in the peer's own order of slots."""
        raise NotImplementedError

    def loaded(self, kind: str, size: int, level: int, kernel: Tensor) -> nn.Module:
        """A layer with our (K, Cin, Cout) weights."""
        layer = self.convolution(kind, tuple(kernel.shape[1:]), size, level).to(kernel.device)
        self.set_kernel(layer, kernel[self.slots(kind, size, kernel.device)])
        return layer

    def slots(self, kind: str, size: int, device: torch.device) -> list[int]:
        """Our offset index of each weight slot of the peer."""
        if (kind, size) not in self._slots:
            with torch.no_grad():
                self._slots[kind, size] = self._probe(kind, size, device)
        return self._slots[kind, size]

    def _probe(self, kind: str, size: int, device: torch.device) -> list[int]:
        """Run a layer whose slot s copies channel 0 to channel s, on a block of voxels that are numbered there."""
        volume, width = size**3, 32 if size < 4 else 128
        offsets = torch.tensor(kernel_offsets((size,) * 3), dtype=torch.int32, device=device)
        coordinates = torch.cat([torch.zeros_like(offsets[:, :1]), offsets + 32], dim=1)
        features = torch.zeros(volume, 32, device=device)
        features[:, 0] = torch.arange(1, volume + 1)
        x = self.tensor(coordinates, features, (128, 128, 128), 1)
        if kind == "up":  # one coarse voxel that holds a one
            down = self.convolution("down", (32, 32), size, 0).to(device)
            x = down(x)
            x = self.replace(x, torch.eye(1, 32, device=device))
        kernel = torch.zeros(volume, 32, width, device=device)
        kernel[range(volume), 0, range(volume)] = 1
        layer = self.convolution(kind, (32, width), size, 0).to(device)
        self.set_kernel(layer, kernel)
        met = self.features(layer(x)).float()[:, :volume]
        if kind == "up":
            slots = met.argmax(0).tolist()
        else:  # the row that meets all voxels: the centre, or the only one
            slots = (met[volume // 2 if kind == "same" else 0].round().long() - 1).tolist()
        if sorted(slots) != list(range(volume)):
            raise RuntimeError(f"its {size}^3 convolution ({kind}) does not meet every offset once: {slots}")
        return slots


class Spconv(Peer):
    """spconv 2: one CUDA build per CUDA version."""

    module = "spconv"

    def __init__(self, full_tuning: bool = False):
        super().__init__()
        import spconv.constants
        import spconv.pytorch

        self.layers, self.constants = spconv.pytorch, spconv.constants

    def allow_tf32(self, allowed):
        self.constants.SPCONV_ALLOW_TF32 = allowed

    def tensor(self, coordinates, features, shape, scenes):
        return self.layers.SparseConvTensor(features, coordinates, list(shape), scenes)

    def with_maps_of(self, x, last):
        x.indice_dict = last.indice_dict
        return x

    def features(self, x):
        return x.features

    def replace(self, x, features):
        return x.replace_feature(features)

    def convolution(self, kind, channels, size, level):
        if kind == "same":
            key = f"{level}:{size}"
            return self.layers.SubMConv3d(*channels, size, padding=size // 2, bias=False, indice_key=key)
        if kind == "down":
            return self.layers.SparseConv3d(*channels, size, stride=2, bias=False, indice_key=f"down{level}")
        return self.layers.SparseInverseConv3d(*channels, size, bias=False, indice_key=f"down{level}")

    def set_kernel(self, layer, kernel):
        layer.weight.data.copy_(kernel.permute(2, 0, 1).reshape(layer.weight.shape))  # (Cout, z, y, x, Cin)


class SpconvTriton(Spconv):
    """spconv's interface on Triton kernels."""

    module = "spconv_triton"

    def __init__(self, full_tuning: bool = False):
        Peer.__init__(self)
        import spconv_triton
        import spconv_triton.pytorch
        import spconv_triton.pytorch._impl.gemm as kernels

        self.layers, self.constants = spconv_triton.pytorch, spconv_triton.constants
        if not full_tuning:  # 58 candidates for every pair of widths take minutes: those that win here
            _quick_tuning()
            kernels._gather_gemm_kernel.configs = _configs(
                ("BLOCK_M", "BLOCK_N", "BLOCK_R", "GROUP_SIZE_M"),
                [
                    (128, 64, 32, 8, 4, 3),
                    (128, 128, 32, 8, 8, 3),
                    (64, 64, 64, 8, 4, 4),
                    (128, 32, 32, 8, 4, 4),
                ],
            )
            kernels._dweight_masked_kernel.configs = _configs(
                ("BLOCK_P", "BLOCK_K", "BLOCK_C"),
                [(64, 64, 64, 4, 3), (128, 64, 64, 8, 4), (64, 32, 32, 2, 5)],
            )


class TorchSparse(Peer):
    """TorchSparse 2.1."""

    module = "torchsparse"

    def __init__(self, full_tuning: bool = False):
        super().__init__()
        import torchsparse
        import torchsparse.nn

        self.root = torchsparse
        torchsparse.nn.functional.set_conv_mode(0)

    def allow_tf32(self, allowed):
        self.root.backends.allow_tf32 = allowed

    def tensor(self, coordinates, features, shape, scenes):
        x = self.root.SparseTensor(features, coordinates, 1, (scenes, *shape))
        x._caches.cmaps.setdefault(x.stride, (x.coords, x.spatial_range))
        return x

    def with_maps_of(self, x, last):
        x._caches = last._caches
        return x

    def features(self, x):
        return x.feats

    def replace(self, x, features):
        y = self.root.SparseTensor(features, x.coords, x.stride, x.spatial_range)
        y._caches = x._caches
        return y

    def convolution(self, kind, channels, size, level):
        return _Autocast(
            self,
            self.root.nn.Conv3d(
                *channels, size, stride=1 if kind == "same" else 2, bias=False, transposed=kind == "up"
            ),
        )

    def set_kernel(self, layer, kernel):
        layer.layer.kernel.data.copy_(kernel)


class MinkowskiEngine(Peer):
    """MinkowskiEngine 0.5: the only one that runs on a CPU; float32 and float64."""

    module = "MinkowskiEngine"
    on_cpu = True

    def __init__(self, full_tuning: bool = False):
        super().__init__()
        import MinkowskiEngine

        self.root = MinkowskiEngine

    def tensor(self, coordinates, features, shape, scenes):
        return self.root.SparseTensor(features, coordinates=coordinates, device=features.device)

    def features(self, x):
        return x.F

    def replace(self, x, features):
        key, manager = x.coordinate_map_key, x.coordinate_manager
        return self.root.SparseTensor(features, coordinate_map_key=key, coordinate_manager=manager)

    def convolution(self, kind, channels, size, level):
        layer = self.root.MinkowskiConvolutionTranspose if kind == "up" else self.root.MinkowskiConvolution
        stride = 1 if kind == "same" else 2
        return layer(*channels, kernel_size=size, stride=stride, bias=False, dimension=3)

    def set_kernel(self, layer, kernel):
        layer.kernel.data.copy_(kernel)


class FlexGEMM(Peer):
    """FlexGEMM has no transposed convolution: its strided kernel reads the strided map the other way round."""

    module = "flex_gemm"

    def __init__(self, full_tuning: bool = False):
        super().__init__()
        from flex_gemm import kernels
        from flex_gemm.kernels.triton.spconv import config
        from flex_gemm.ops import spconv
        from flex_gemm.ops.spconv.sparse_conv3d import SparseConv3dFunction, SparseConv3dNeighborCache
        from flex_gemm.ops.spconv.submanifold_conv3d import SubMConv3dFunction

        self.config, self.ops, self.post = config, spconv, kernels.cuda
        self.strided, self.neighbours = SparseConv3dFunction, SparseConv3dNeighborCache
        if not full_tuning:
            _quick_tuning()
            self._fewer_candidates()
        spconv.set_algorithm("masked_implicit_gemm")
        backward = SubMConv3dFunction._sparse_submanifold_conv_backward

        def with_its_algorithm(gradient, features, maps, weight, bias=None):
            """The backward pass asks the global setting, and masks of 32 bits cannot hold 5^3 offsets."""
            self._algorithm(masked=hasattr(maps, "gray_code"))
            try:
                return backward(gradient, features, maps, weight, bias)
            finally:
                self._algorithm(masked=True)

        SubMConv3dFunction._sparse_submanifold_conv_backward = staticmethod(with_its_algorithm)

    def _algorithm(self, masked: bool) -> None:
        self.ops.set_algorithm("masked_implicit_gemm" if masked else "implicit_gemm")

    @staticmethod
    def _fewer_candidates() -> None:
        import pkgutil

        import flex_gemm.kernels.triton.spconv as package

        wanted = {(256, 128, 32), (256, 64, 64), (256, 64, 32), (128, 128, 64), (128, 128, 32), (64, 256, 32)}
        for info in pkgutil.iter_modules(package.__path__):
            for kernel in vars(importlib.import_module(f"{package.__name__}.{info.name}")).values():
                if isinstance(getattr(kernel, "configs", None), list) and hasattr(kernel, "fn"):
                    few = [
                        c for c in kernel.configs if tuple(map(c.kwargs.get, ("B1", "B2", "BK"))) in wanted
                    ]
                    kernel.configs = few or kernel.configs

    def allow_tf32(self, allowed):
        self.config.allow_tf32 = allowed

    def tensor(self, coordinates, features, shape, scenes):
        return _FlexTensor(features, (scenes, *shape), 0, {("coordinates", 0): coordinates})

    def features(self, x):
        return x.features

    def replace(self, x, features):
        return _FlexTensor(features, x.shape, x.level, x.maps)

    def convolution(self, kind, channels, size, level):
        return _FlexConvolution(self, kind, channels, size, level)

    def set_kernel(self, layer, kernel):
        layer.weight.data.copy_(kernel.permute(2, 0, 1).reshape(layer.weight.shape))

    def same(self, x: "_FlexTensor", weight: Tensor, bias: Tensor | None) -> "_FlexTensor":
        key, coordinates = ("same", x.level, weight.shape[1]), x.maps["coordinates", x.level]
        shape = torch.Size((x.shape[0], x.features.shape[1], *x.shape[1:]))
        self._algorithm(masked=weight.shape[1] == 3)
        y, x.maps[key] = self.ops.sparse_submanifold_conv3d(
            x.features, coordinates, shape, weight, bias, x.maps.get(key)
        )
        self._algorithm(masked=True)
        return self.replace(x, y)

    def down(self, x: "_FlexTensor", weight: Tensor, bias: Tensor | None) -> "_FlexTensor":
        coordinates, two = x.maps["coordinates", x.level], (2, 2, 2)
        shape = torch.Size((x.shape[0], x.features.shape[1], *x.shape[1:]))
        window = two, two, (0, 0, 0), (1, 1, 1)
        if ("down", x.level) not in x.maps:
            coarse = self.strided._get_output_coords(coordinates, shape, *window)
            x.maps["coordinates", x.level + 1] = coarse
            # both directions are needed anyway: the way up reads this map backwards
            x.maps["down", x.level] = self.strided._compute_neighbor_cache(
                coordinates, coarse, shape, *window, True
            )
        coarse = x.maps["coordinates", x.level + 1]
        y = self.ops.sparse_conv3d(
            x.features, coordinates, shape, weight, bias, x.maps["down", x.level], coarse, two
        )[0]
        return _FlexTensor(y, (x.shape[0], *(s // 2 for s in x.shape[1:])), x.level + 1, x.maps)

    def up(self, x: "_FlexTensor", weight: Tensor, bias: Tensor | None) -> "_FlexTensor":
        level, two = x.level - 1, (2, 2, 2)
        if ("up", level) not in x.maps:
            x.maps["up", level] = self._turned(x.maps["down", level])
        fine = (x.shape[0], *(2 * s for s in x.shape[1:]))
        shape = torch.Size((fine[0], x.features.shape[1], *fine[1:]))
        y = self.ops.sparse_conv3d(
            x.features,
            x.maps["coordinates", x.level],
            shape,
            weight,
            bias,
            x.maps["up", level],
            x.maps["coordinates", level],
            two,
        )[0]
        return _FlexTensor(y, fine, level, x.maps)

    def _turned(self, down):
        there, back, post = down["neighbor_map_bwd"], down["neighbor_map"], self.post
        if not torch.is_grad_enabled():
            code, order = post.neighbor_map_post_process_for_masked_implicit_gemm_1_no_bwd(there)
            return self.neighbours(
                neighbor_map=there, neighbor_map_bwd=back, gray_code=code, sorted_idx=order
            )
        code, order, inputs, outputs, segments = post.neighbor_map_post_process_for_masked_implicit_gemm_1(
            there
        )
        code_back, order_back = post.neighbor_map_post_process_for_masked_implicit_gemm_1_no_bwd(back)
        return self.neighbours(
            neighbor_map=there,
            neighbor_map_bwd=back,
            gray_code=code,
            sorted_idx=order,
            valid_signal_seg=segments,
            valid_signal_i=inputs,
            valid_signal_o=outputs,
            gray_code_bwd=code_back,
            sorted_idx_bwd=order_back,
        )


class _FlexTensor:
    def __init__(self, features: Tensor, shape: tuple, level: int, maps: dict):
        self.features, self.shape, self.level, self.maps = features, shape, level, maps


class _FlexConvolution(nn.Module):
    def __init__(self, peer: FlexGEMM, kind: str, channels: tuple[int, int], size: int, level: int):
        super().__init__()
        self.run = getattr(peer, kind)
        self.weight = nn.Parameter(torch.empty(channels[1], size, size, size, channels[0]))
        self.register_buffer("zero", torch.zeros(channels[1]))  # its backward pass wants a bias

    def forward(self, x):
        features, weight = autocast(x.features), autocast(self.weight)
        bias = self.zero.to(weight.dtype) if torch.is_grad_enabled() else None
        return self.run(_FlexTensor(features, x.shape, x.level, x.maps), weight, bias)


class _Autocast(nn.Module):
    """A layer of an engine that does not know autocast."""

    def __init__(self, peer: Peer, layer: nn.Module):
        super().__init__()
        self.peer, self.layer = peer, layer

    def forward(self, x):
        if torch.is_autocast_enabled("cuda"):
            x = self.peer.replace(x, autocast(self.peer.features(x)))
        return self.layer(x)


def autocast(tensor: Tensor) -> Tensor:
    """The tensor in the dtype that autocast asks for on CUDA, if it is on."""
    return tensor.to(torch.get_autocast_dtype("cuda")) if torch.is_autocast_enabled("cuda") else tensor


def _configs(names: tuple[str, ...], rows: list[tuple[int, ...]]) -> list:
    import triton

    return [
        triton.Config(dict(zip(names, values, strict=True)), num_warps=warps, num_stages=stages)
        for *values, warps, stages in rows
    ]


def _quick_tuning() -> None:
    """Fewer repeats per candidate."""
    import triton.testing

    bench = triton.testing.do_bench
    triton.testing.do_bench = lambda call, warmup=4, rep=16, **options: bench(
        call, warmup=4, rep=16, **options
    )


PEERS: dict[str, type[Peer]] = {
    "spconv": Spconv,
    "spconv-triton": SpconvTriton,
    "torchsparse": TorchSparse,
    "minkowski": MinkowskiEngine,
    "flexgemm": FlexGEMM,
}


def installed() -> dict[str, str]:
    """{peer: version} of those that can be imported here."""
    distributions = packages_distributions()
    return {
        name: version(distributions[peer.module][0]) if peer.module in distributions else "?"
        for name, peer in PEERS.items()
        if importlib.util.find_spec(peer.module)
    }
