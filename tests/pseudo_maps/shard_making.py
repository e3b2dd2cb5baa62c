"""Small shards and folders of shards for the tests of everything that reads them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pseudo_maps.shards import (
    STATUS_OK,
    MapRow,
    ShardWriter,
    file_sha256,
    make_provenance,
    quantise_map,
    shard_name,
)
from pseudo_maps.shards.layout import checksum_path
from pseudo_maps.shards.manifest import Manifest, agree_on_manifest, ids_digest

MAP_SIZE = 12
FULL = np.full((MAP_SIZE, MAP_SIZE), 255, dtype=np.uint8)
EMPTY = np.zeros((MAP_SIZE, MAP_SIZE), dtype=np.uint8)
CONFIGURATION = {"method": "geodesic", "working_size": 500, "proposals": {"seeds": 30}}


def writer_of(path, *, rows=1, **changes):
    options = {"map_size": MAP_SIZE, "provenance": make_provenance(CONFIGURATION)} | changes
    return ShardWriter(path, rows=rows, **options)


def make_row(image_id, *, peak=0.5, status=STATUS_OK, wnid="n01440764", **changes):
    values = {
        "image_id": image_id,
        "path": f"train/{image_id}.JPEG",
        "wnid": wnid,
        "label": 3,
        "height": 375,
        "width": 500,
        "peak": peak,
        "proposals": 17,
        "status": status,
    }
    return MapRow(**(values | changes))


def make_map(number, *, size=MAP_SIZE):
    """A float map that differs from number to number, and whose rows and columns differ."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return (np.sin(number + 1 + 0.3 * y) ** 2 + 0.02 * x * (number + 1)).astype(np.float32)


def make_shard(
    path, ids, *, configuration=CONFIGURATION, by_name=False, failed=(), order=None, first_map=0, size_wh=(500, 375)
):
    """Write a shard of ``ids``; those in ``failed`` get a zero map. Returns the stored maps."""
    stored = []
    rows = []
    for number, image_id in enumerate(ids):
        if image_id in failed:
            stored.append(np.zeros((MAP_SIZE, MAP_SIZE), dtype=np.uint8))
            rows.append(make_row(image_id, peak=0.0, status="decode", height=0, width=0, proposals=0))
        else:
            quantised, peak = quantise_map(make_map(first_map + number))
            stored.append(quantised)
            rows.append(make_row(image_id, peak=peak, width=size_wh[0], height=size_wh[1]))
    provenance = make_provenance(configuration)
    with ShardWriter(path, rows=len(ids), map_size=MAP_SIZE, provenance=provenance, by_name=by_name) as writer:
        for row in range(len(ids)) if order is None else order:
            writer.write(row, stored[row], rows[row])
        writer.commit()
    return stored


def make_folder(
    folder: Path,
    *,
    split="val",
    images=7,
    ids: Sequence[str] = (),
    shard_size=3,
    configuration=CONFIGURATION,
    failed: Sequence[str] = (),
    size_wh=(500, 375),
):
    """A complete folder with its manifest; ids are ``<split>_0`` and on if not given. Returns (ids, stored maps)."""
    ids = ids or [f"{split}_{number}" for number in range(images)]
    count = -(-len(ids) // shard_size)
    manifest = Manifest(
        split=split,
        images=len(ids),
        shards=count,
        shard_size=shard_size,
        ids_sha256=ids_digest(ids),
        configuration=configuration,
    )
    folder.mkdir(exist_ok=True)
    agree_on_manifest(folder, manifest)
    stored = []
    for index in range(count):
        part = ids[index * shard_size : (index + 1) * shard_size]
        path = folder / shard_name(split, index, count)
        stored += make_shard(
            path, part, configuration=configuration, failed=failed, first_map=index * shard_size, size_wh=size_wh
        )
    return ids, stored


def flip_byte(path: Path, offset: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes([value ^ 0x10]))
    path.chmod(0o444)


def renew_checksum(path: Path) -> None:
    """State the SHA-256 of the file as it is now, as if it had been made that way."""
    target = checksum_path(path)
    target.unlink(missing_ok=True)
    target.write_text(f"{file_sha256(path)}  {path.name}\n")
