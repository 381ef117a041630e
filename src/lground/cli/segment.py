"""`lground segment`: a class for every vertex of a scan, and its objects."""

from pathlib import Path
from typing import Annotated

import typer

from lground.cli.outputs import check_outputs
from lground.errors import InputError

Scan = Annotated[Path, typer.Argument(help="Your scan: .ply .obj .pcd .las .laz .npz .npy, +Z up.")]
Weights = Annotated[Path, typer.Option("--model", "-m", help="Run folder, .safetensors or published .ckpt.")]
Units = Annotated[
    str, typer.Option(help="What the scan's coordinates are in: m, cm, mm, ft, in. Results: m.")
]
Anchors = Annotated[Path | None, typer.Option(help="Text anchors, for a published pretraining checkpoint.")]
VoxelSize = Annotated[
    float | None, typer.Option(help="Metres; larger needs less memory [default: the model's].")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 [default: cuda when there is one].")]
Features = Annotated[Path | None, typer.Option(help="Also write features, .npz: row voxel[i] is vertex i's.")]

Views = Annotated[int, typer.Option(help="Average over this many views of the scan, such as 8.")]
Superpoints = Annotated[
    str | None,
    typer.Option(
        help="One class for all vertices of a patch: .npy, ScanNet's .segs.json, or auto (cut the mesh)."
    ),
]
Instances = Annotated[
    bool,
    typer.Option("--instances", help="Find objects, too: colour the PLY by them, describe them as JSON."),
]
Words = Annotated[
    Path | None,
    typer.Option(
        help="With --instances: objects of any kind, named by the words of this file, one per line."
    ),
]
Picture = Annotated[Path | None, typer.Option(help="Also draw what was found, .png.")]


def segment(
    scan: Scan,
    model: Weights,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="[default: SCAN.labels.ply]")] = None,
    units: Units = "m",
    anchors: Anchors = None,
    voxel_size: VoxelSize = None,
    features: Features = None,
    device: Device = None,
    views: Views = 1,
    superpoints: Superpoints = None,
    instances: Instances = False,
    words: Words = None,
    picture: Picture = None,
):
    """Label every vertex: a coloured PLY with `label` and `score`; the classes found, printed and as JSON.

    With --instances the PLY also has `instance`, and OUT.objects.json lists the objects: class, score, boxes.
    With --words the classes are those words, and `label` is their index, -1 where there is no object.
    """
    from lground import predict, report
    from lground.scans import read_scan, write_scan

    out = out or scan.with_name(f"{scan.stem}.labels.ply")
    check_outputs(scan, (out, (".ply", ".npz")), (features, (".npz",)), (picture, (".png",)))
    chosen = predict.choose_device(device)
    if words is not None and not instances:
        raise InputError(f"--words {words}: names objects; add --instances")
    named = None if words is None else predict.read_words(words)
    room, loaded = read_scan(scan, units), predict.load_model(model, anchors)
    patches = None
    if superpoints is not None:
        auto = superpoints == "auto"
        patches = predict.mesh_superpoints(room) if auto else predict.read_superpoints(superpoints, len(room))
    options = dict(
        features=features is not None,
        voxel_size=voxel_size,
        device=chosen,
        views=views,
        superpoints=patches,
    )
    if named is None:
        result = predict.segment(loaded, room, instances=instances, **options)
    else:
        result = predict.segment_words(loaded, room, named, **options)
    classes = predict.found_classes(room, result)
    if features is not None:
        result.save_features(features)
    predict.write_classes(classes, out.with_suffix(".json"))
    if instances:
        objects = predict.found_objects(room, result, patches)
        predict.write_objects(objects, out.with_suffix(".objects.json"))
    if picture is not None:
        report.draw_segmentation(picture, room, result)
    write_scan(result.paint(room), out)
    _print_classes(classes)
    print(f"\n{len(room)} vertices labelled: {out}, classes in {out.with_suffix('.json').name}")
    if instances:
        _print_objects(objects)
        print(f"\n{len(objects)} objects in {out.with_suffix('.objects.json').name}")


def _print_classes(classes) -> None:
    print(f"{'class':<28}{'vertices':>10}{'surface':>10}{'score':>8}")
    for entry in classes:
        print(f"{entry.name[:27]:<28}{entry.vertices:>10}{100 * entry.share:>8.1f} %{entry.score:>8.2f}")


def _print_objects(objects) -> None:
    print(f"\n{'id':>4}  {'object':<28}{'vertices':>10}{'score':>8}   {'size (m)':<20}centre (m)")
    for entry in objects:
        size, center = (
            " ".join(f"{value:.2f}" for value in values)
            for values in (entry.oriented_box.size, entry.oriented_box.center)
        )
        print(
            f"{entry.id:>4}  {entry.name[:27]:<28}{entry.vertices:>10}{entry.score:>8.2f}   {size:<20}{center}"
        )
