"""One shard of photographs and a drawing, made by the command itself, for every viewer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage
from PIL import Image

from pseudo_maps.shards import MapRow, ShardReader
from tests.integration.prep_command import prep

CORNER_ID = "a-corner/disc.png"
"""First row: a bright disc at the top left, so that a map on its head or in a mirror cannot pass."""
PHOTOGRAPHS = {"chat/chelsea.png": "chelsea.png", "größe/astronaut.png": "astronaut.png"}
BROKEN_ID = "chat/broken.png"
MAP_SIZE_PX = 96


@dataclass(frozen=True, kw_only=True)
class ViewedShard:
    """A shard as our own reader reads it."""

    path: Path
    maps_nhw: npt.NDArray[np.uint8]
    rows: list[MapRow]

    def map_of(self, image_id: str) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 map of an image."""
        return self.maps_nhw[[row.image_id for row in self.rows].index(image_id)]


def _draw_corner() -> npt.NDArray[np.uint8]:
    """(150, 200, 3) uint8: a warm disc at the top left on a dark, slightly uneven ground."""
    y, x = np.mgrid[0:150, 0:200]
    ground = np.random.default_rng(0).normal(60, 4, (150, 200, 3))
    ground[(y - 45) ** 2 + (x - 60) ** 2 < 30**2] = (240, 190, 60)
    return ground.clip(0, 255).astype(np.uint8)


def _write_images(folder: Path) -> None:
    bundled = Path(skimage.__file__).parent / "data"
    for image_id in (CORNER_ID, BROKEN_ID, *PHOTOGRAPHS):
        (folder / image_id).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_draw_corner()).save(folder / CORNER_ID)
    (folder / BROKEN_ID).write_text("no image")
    for image_id, name in PHOTOGRAPHS.items():
        (folder / image_id).write_bytes((bundled / name).read_bytes())


@pytest.fixture(scope="session")
def shard(tmp_path_factory: pytest.TempPathFactory) -> ViewedShard:
    root = tmp_path_factory.mktemp("viewers")
    _write_images(root / "images")
    words = ("--data", root / "images", "--split", "val", "--out", root / "maps", "--max-failed", "1")
    result = prep("proposals", *words, "--map-size", MAP_SIZE_PX, "--working-size", "200")
    assert result.exit_code == 0, result.output
    path = root / "maps" / "val-00000-of-00001.h5"
    with ShardReader(path) as reader:
        rows = reader.rows
        maps_nhw = np.stack([reader.read_uint8(row) for row in range(len(reader))])
    assert [row.status for row in rows] == ["ok", "decode-error", "ok", "ok"]
    made = ViewedShard(path=path, maps_nhw=maps_nhw, rows=rows)
    y, x = np.argwhere(made.map_of(CORNER_ID) > 200).mean(axis=0) / MAP_SIZE_PX
    assert y < 0.45 and x < 0.45, "the drawing's map is not at the top left"
    return made
