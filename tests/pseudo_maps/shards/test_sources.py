"""Images replaced under their names since their maps were made."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import MapIndex, ShardError, shard_name
from pseudo_maps.shards.sources import check_sources, compare_sources
from tests.pseudo_maps.shard_making import make_shard

IMAGES = 8


def save(path: Path, *, size_wh: tuple[int, int] = (500, 375)) -> None:
    Image.fromarray(np.zeros((size_wh[1], size_wh[0]), np.uint8)).save(path)


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    """Eight images with a map each, and one without."""
    names = [f"{number}.png" for number in range(IMAGES)]
    for name in (*names, "unmapped.png"):
        save(tmp_path / name)
    make_shard(tmp_path / shard_name("val", 0, 1), names[1:], failed=names[7:])
    return [ImageRecord(image_id=name, path=name) for name in (*names, "unmapped.png")]


@pytest.fixture
def index(records: list[ImageRecord], tmp_path: Path) -> MapIndex:
    return MapIndex(tmp_path, "val")


def test_the_images_that_maps_were_made_of_are_told_by_size(
    records: list[ImageRecord], index: MapIndex, tmp_path: Path
) -> None:
    found = compare_sources(index, records, root=tmp_path)
    assert (found.compared, found.changed, found.newer) == (6, {}, ()), "one map failed, two images have none"
    assert index.size("1.png") == (500, 375) and index.size("7.png") is None
    save(tmp_path / "2.png", size_wh=(375, 500))
    os.utime(tmp_path / "3.png", ns=(2**62, 2**62))
    (tmp_path / "4.png").unlink()
    found = compare_sources(index, records, root=tmp_path)
    assert (found.compared, found.newer) == (5, ("3.png",))
    assert list(found.changed) == ["2.png"] and "375x500" in found.changed["2.png"]


def test_at_most_so_many_files_are_opened(records: list[ImageRecord], index: MapIndex, tmp_path: Path) -> None:
    assert compare_sources(index, records, root=tmp_path, most=3).compared == 2


@pytest.mark.parametrize(("replaced", "refused"), [(1, False), (2, False), (3, True), (6, True)])
def test_more_than_chance_explains_is_refused_else_counted(
    records: list[ImageRecord], index: MapIndex, tmp_path: Path, replaced: int, refused: bool
) -> None:
    assert check_sources(index, records, root=tmp_path) == []
    for record in records[1 : 1 + replaced]:
        save(tmp_path / record.path, size_wh=(20, 10))
    if refused:
        with pytest.raises(ShardError, match=rf"{replaced} of 6 images.*'1\.png'.*another folder"):
            check_sources(index, records, root=tmp_path)
    else:
        (warning,) = check_sources(index, records, root=tmp_path)
        assert f"{replaced} of 6" in warning and "'1.png'" in warning
