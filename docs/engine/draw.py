"""Draw the pictures of docs/engine.md from one made-up scan, and print the numbers that the page names.

    python docs/engine/draw.py

Maps come from the plain PyTorch twin, so this needs no GPU; what it draws is what the kernels build.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lground.files import atomic_file
from lground.report import render_points
from lground.sparse import SparseTensor
from lground.sparse.kernel_map import kernel_offsets
from lground.sparse.kernels.shapes import Chip, default
from lground.sparse.kernels.tiles import TILE_ROWS
from lground.sparse.kernels.weight_gradient import SHARES
from lground.synth import make_scene

HERE = Path(__file__).parent
VOXEL = 0.02  # metres
WIDTHS = 96, 96, 128, 256, 256  # channels of most layers of Res16UNet34C on each level
SHARE = SHARES[1]  # pairs of a weight gradient that one program sums
OFFSETS = np.array(kernel_offsets((3, 3, 3)))
STEPS = np.abs(OFFSETS).sum(1)  # 0 itself, 1 faces, 2 edges, 3 corners
# Bit b of a mask is offset ORDER[b]: from the commonest to the rarest.
ORDER = sorted(range(27), key=lambda j: (STEPS[j], OFFSETS[j, 2] != 0, j))
DARK, LIGHT, BLUE, ORANGE, GREEN = "#22313f", "#f3c98b", "#2a6fbb", "#e07b39", "#4f9d69"


@dataclass
class Level:
    """One level of the pyramid: (N, 3) cells in Morton order and (N, 27) whether the neighbour is there."""

    cells: np.ndarray
    met: np.ndarray


def main() -> None:
    scene = make_scene(0, 1, "small")
    cells = np.unique(np.floor((scene.points - scene.points.min(0)) / VOXEL).astype(np.int64), axis=0)
    levels = []
    for _ in range(5):
        cells = cells[np.argsort(morton(cells))]
        levels.append(Level(cells, neighbours(cells)))
        cells = np.unique(cells >> 1, axis=0)
    draw_pyramid(levels)
    draw_masks(levels[0])
    draw_work(levels)


def morton(cells: np.ndarray) -> np.ndarray:
    """(N,) int64: the bits of x, y and z interleaved, x lowest."""
    keys = np.zeros(len(cells), dtype=np.int64)
    for bit in range(17):
        for axis in range(3):
            keys |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return keys


def neighbours(cells: np.ndarray) -> np.ndarray:
    """(N, 27) bool: which offsets of a 3^3 kernel meet a voxel, the offsets as in the weights."""
    rows = torch.from_numpy(np.insert(cells, 0, 0, axis=1)).int()
    x = SparseTensor(torch.zeros(len(rows), 1), rows)
    pairs = x.manager.kernel_map(x.coordinate_map, x.coordinate_map, (3, 3, 3), (1, 1, 1))
    met = np.zeros((len(cells), 27), dtype=bool)
    for j, outputs in enumerate(pairs.outputs):
        met[outputs.numpy(), j] = True
    return met


def masks(met: np.ndarray, order: list[int]) -> np.ndarray:
    """(N,) int64: bit b is set where offset order[b] meets a voxel."""
    return met[:, order] @ (1 << np.arange(27))


def gray_rank(mask: np.ndarray) -> np.ndarray:
    """The place of a mask in the Gray code, where successive masks differ in one bit."""
    for shift in (1, 2, 4, 8, 16):
        mask = mask ^ mask >> shift
    return mask


def listed(met: np.ndarray, tile_rows: int) -> np.ndarray:
    """(tiles, 27) bool: the offsets that any row of a tile has."""
    return np.logical_or.reduceat(met, np.arange(0, len(met), tile_rows))


def slots_per_pair(met: np.ndarray, tile_rows: int) -> float:
    """Products computed over products needed: a tile computes all its rows at each offset it lists."""
    return listed(met, tile_rows).sum() * tile_rows / met.sum()


def draw_pyramid(levels: list[Level]) -> None:
    """One sort and five levels; a neighbour found through the parent."""
    fine = levels[0].cells
    corner = _square(fine, 16, 80)
    rows = _inside(fine, corner, 16)
    figure = Figure(figsize=(12, 6.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)

    _grid(left, corner, 16)
    shades = colormaps["viridis"](np.linspace(0, 1, len(rows)))
    for cell, shade in zip(fine[rows, :2], shades, strict=True):
        left.add_patch(Rectangle(cell, 1, 1, fc=shade, ec="white", lw=0.8))
    left.plot(*(fine[rows, :2] + 0.5).T, color=DARK, lw=1)
    left.set_title("Rows in the order of their Morton codes (a slice of the scan)")
    left.set_xlabel("dark to light: first to last row\nthin to thick lines: cells of stride 1, 2, 4, 8, 16")

    _grid(right, corner, 16, faint=True)
    for cell in fine[rows, :2]:
        right.add_patch(Rectangle(cell, 1, 1, fc="0.85", ec="white", lw=0.8))
    voxel, neighbour = _example(fine, rows)
    for cell, colour in ((voxel, BLUE), (neighbour, ORANGE)):
        right.add_patch(Rectangle(cell, 1, 1, fc=colour, ec="white", lw=0.8))
        right.add_patch(Rectangle(cell >> 1 << 1, 2, 2, fill=False, ec=colour, lw=3))
    right.set_title("A neighbour through the parents")
    u = (voxel[0] & 1) + 1
    lines = (
        ("the voxel in its parent", BLUE),
        (f"u = octant {voxel[0] & 1} + offset 1 = {u}: the parent's neighbour at u >> 1 = {u >> 1},", ORANGE),
        (f"and of its children the one at u & 1 = {u & 1}", ORANGE),
    )
    for k, (line, colour) in enumerate(lines):
        right.text(
            0.5, -0.04 - 0.045 * k, line, color=colour, ha="center", va="top", transform=right.transAxes
        )
    _save(figure, "pyramid.png")
    counts = [len(level.cells) for level in levels]
    print(f"rows of the levels: {counts}; neighbours, itself included: {_means(levels)}")


def _means(levels: list[Level]) -> list[float]:
    return [round(float(level.met.sum(1).mean()), 2) for level in levels]


def _square(cells: np.ndarray, size: int, wanted: int) -> np.ndarray:
    """Corner and height of a square of one slice, aligned to its size, that holds about as many cells as wanted."""
    squares, counts = np.unique(cells // (size, size, 1), axis=0, return_counts=True)
    return squares[np.abs(counts - wanted).argmin()] * (size, size, 1)


def _inside(cells: np.ndarray, corner: np.ndarray, size: int) -> np.ndarray:
    """The rows of the cells in that square of that slice."""
    return np.flatnonzero((cells // (size, size, 1) == corner // (size, size, 1)).all(1))


def _example(fine: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, y of a voxel of the slice and of its neighbour at x + 1, which has another parent; near the middle."""
    cells = fine[rows, :2]
    known = set(map(tuple, cells.tolist()))
    step = np.array([1, 0])
    for cell in sorted(cells, key=lambda c: np.abs(c - cells.mean(0)).sum()):
        if cell[0] & 1 and tuple((cell + step).tolist()) in known:
            return cell, cell + step
    raise ValueError("no voxel of this slice has a neighbour in another cell")


def _grid(axis, corner: np.ndarray, size: int, faint: bool = False) -> None:
    for step, width in ((1, 0.3), (2, 0.8), (4, 1.5), (8, 2.4), (16, 3.5)):
        for k in range(0, size + 1, step):
            style = {
                "color": "0.8" if faint or step == 1 else "0.6",
                "lw": width * (0.6 if faint else 1),
                "zorder": 0,
            }
            axis.plot([corner[0] + k] * 2, [corner[1], corner[1] + size], **style)
            axis.plot([corner[0], corner[0] + size], [corner[1] + k] * 2, **style)
    axis.set(aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def draw_masks(level: Level) -> None:
    """Masks on a surface, tiles before and after the sort, and what the sort saves."""
    figure = Figure(figsize=(15, 5.2), layout="constrained", facecolor="white")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1.0, 1.25, 0.95))
    orders = {
        "rows in Morton order": np.arange(len(level.met)),
        "sorted by mask, offsets as in the weights": np.argsort(
            masks(level.met, list(range(27))), kind="stable"
        ),
        "… rare offsets in the high bits": np.argsort(masks(level.met, ORDER), kind="stable"),
        "… by rank in the Gray code": np.argsort(gray_rank(masks(level.met, ORDER)), kind="stable"),
    }
    first, *_, last = orders.values()
    _surfaces(left.subplots(), level.cells, last)
    _matrices(middle, level.met, first, last)
    axis = right.subplots()
    sizes = (16, 32, 64, 128, 256, 512)
    for (name, order), colour in zip(orders.items(), ("0.6", GREEN, ORANGE, BLUE), strict=True):
        ratios = [slots_per_pair(level.met[order], size) for size in sizes]
        axis.plot(sizes, ratios, "o-", color=colour, label=name)
        print(
            f"{name}: slots per pair "
            + ", ".join(f"{s}: {r:.2f}" for s, r in zip(sizes, ratios, strict=True))
        )
    axis.axhline(1, color="0.35", ls="--", lw=1)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, sizes)
    axis.set(xlabel="rows of a tile", ylim=(0.9, 3.6), title="Products computed per product needed")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, 1.0))
    _save(figure, "masks.png")


def _surfaces(axis, cells: np.ndarray, order: np.ndarray) -> None:
    """The scan, coloured from first to last row of an order."""
    shares = np.empty(len(cells))
    shares[order] = np.linspace(0, 1, len(cells))
    colours = (colormaps["turbo"](shares)[:, :3] * 255).astype(np.uint8)
    axis.imshow(render_points(cells * VOXEL, colours, (720, 620)), interpolation="antialiased")
    axis.set_axis_off()
    axis.set_title(
        "Voxels coloured by their place among the masks:\nsurfaces that lie alike share masks, hence tiles"
    )


def _matrices(figure, met: np.ndarray, *orders: np.ndarray) -> None:
    """Some tiles of two orders: pairs dark, slots that are computed for nothing light, skipped ones white."""
    titles = "rows in Morton order", "rows sorted by mask"
    show = 6
    for axis, order, title in zip(figure.subplots(1, 2, sharey=True), orders, titles, strict=True):
        tiles = np.linspace(0, len(met) // TILE_ROWS - 1, show + 2).astype(int)[1:-1]
        rows = (tiles[:, None] * TILE_ROWS + np.arange(TILE_ROWS)).ravel()
        pairs = met[order][rows][:, ORDER]
        lists = listed(pairs, TILE_ROWS)
        picture = np.where(pairs, 2, lists.repeat(TILE_ROWS, axis=0))
        axis.imshow(
            picture, cmap=ListedColormap(["white", LIGHT, DARK]), aspect="auto", interpolation="nearest"
        )
        for k, row in enumerate(lists):
            for slot in np.flatnonzero(row):
                axis.add_patch(
                    Rectangle((slot - 0.5, k * TILE_ROWS - 0.5), 1, TILE_ROWS, fill=False, ec="white", lw=0.4)
                )
            axis.axhline((k + 1) * TILE_ROWS - 0.5, color="white", lw=5)
            axis.text(27, (k + 0.5) * TILE_ROWS, f"{row.sum()}", va="center", fontsize=9)
        axis.text(27, -14, "listed", fontsize=8)
        axis.set_xticks([0, 3.5, 12.5, 22.5], ["self", "faces", "edges", "corners"], fontsize=8)
        axis.set_yticks([])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        computed = lists.sum() * TILE_ROWS / pairs.sum()
        axis.set_title(f"{title}\n{computed:.2f} slots per pair in these tiles", fontsize=10)
    figure.supylabel(f"{show} tiles of {TILE_ROWS} rows", fontsize=9)
    figure.supxlabel("dark: a pair; light: computed for nothing; white: skipped", fontsize=9)


def draw_work(levels: list[Level]) -> None:
    """Programs per level with and without split-K; pairs per offset for the weight gradients."""
    figure = Figure(figsize=(12, 4.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    tiles = np.array([-(-len(level.cells) // TILE_ROWS) for level in levels])
    shapes = [default(Chip(), 27, w, w, torch.float16, int(n)) for w, n in zip(WIDTHS, tiles, strict=True)]
    ranges = np.array([width // shape.columns for width, shape in zip(WIDTHS, shapes, strict=True)])
    splits = np.array([shape.splits for shape in shapes])
    place = np.arange(len(levels))
    for shift, heights, colour, label in (
        (-0.2, tiles, "0.7", f"tiles of {TILE_ROWS} rows"),
        (0.2, tiles * ranges * splits, BLUE, "programs: columns and the walk along the list are shared out"),
    ):
        left.bar(place + shift, heights, 0.4, color=colour, label=label)
        for x, height in zip(place + shift, heights, strict=True):
            left.text(x, height * 1.08, f"{height}", ha="center", fontsize=8)
    left.axhline(Chip().multiprocessors, color=ORANGE, ls="--", lw=1, label="multiprocessors of an H200")
    names = [
        f"stride {1 << x}\n{w} wide\n{r} x {split}"
        for x, w, r, split in zip(place, WIDTHS, ranges, splits, strict=True)
    ]
    left.set_xticks(place, names)
    left.set(yscale="log", ylim=(5, 30000), title="Split-K: coarse levels have too few tiles")
    left.legend(frameon=False, fontsize=9, loc="upper right")
    pairs = levels[0].met.sum(0)
    kinds = zip(("self", "faces", "edges", "corners"), (DARK, BLUE, GREEN, ORANGE), strict=True)
    for kind, (name, colour) in enumerate(kinds):
        places = np.flatnonzero(STEPS[ORDER] == kind)
        right.bar(places, pairs[ORDER][places] / 1e3, color=colour, label=name)
    for x, count in enumerate(pairs[ORDER]):
        cuts = np.linspace(0, count / 1e3, -(-count // SHARE) + 1)
        right.hlines(cuts, x - 0.4, x + 0.4, color="white", lw=1)
    title = f"Weight gradients: pairs of each offset, in shares of at most {SHARE}"
    right.set(xticks=[], xlabel="the 27 offsets", ylabel="thousand pairs", title=title)
    right.legend(frameon=False, ncols=4)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, "work.png")
    pairs = levels[0].met.sum(0)
    print(
        f"tiles {tiles.tolist()}; pairs {pairs.sum()}, of self {pairs[13]}, of the rarest offset {pairs.min()}"
    )


def _save(figure: Figure, name: str) -> None:
    with atomic_file(HERE / name) as part:
        figure.set_dpi(110)
        FigureCanvasAgg(figure).print_png(part)


if __name__ == "__main__":
    main()
