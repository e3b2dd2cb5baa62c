"""A small data set with two spoilt images, and its maps, shared by the tests of both previews."""

from pathlib import Path

import pytest

from pipelines.datasets.generated import make_clsloc_dataset
from tests.integration.prep_command import VAL, prep, val_id
from tests.world import World


@pytest.fixture(scope="session")
def data(world: World) -> Path:
    """A CLS-LOC tree of eight val images, of which the third is no image and the fourth is missing."""

    def make(root: Path) -> None:
        make_clsloc_dataset(root, classes=2, train_per_class=1, val_per_class=4, size_px=(64, 96))
        (root / VAL / f"{val_id(3)}.JPEG").write_bytes(b"no image")
        (root / VAL / f"{val_id(4)}.JPEG").unlink()

    return world.part("preview-data", make)


@pytest.fixture(scope="session")
def maps(data: Path, world: World) -> Path:
    """Maps of val in shards of three, three and two; copy before changing anything."""

    def make(out: Path) -> None:
        words = ["--working-size", 64, "--map-size", 64, "--shard-size", 3, "--max-failed", 2]
        result = prep("proposals", "--data", data, "--split", "val", "--out", out, *words)
        assert result.exit_code == 0, result.output

    return world.part("preview-maps", make)
