"""A small data set with two spoilt images, and its maps, shared by the tests of both previews."""

from pathlib import Path

import pytest

from pipelines.datasets.generated import make_clsloc_dataset
from tests.integration.prep_command import VAL, prep, val_id


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLS-LOC tree of eight val images, of which the third is no image and the fourth is missing."""
    root = tmp_path_factory.mktemp("preview") / "data"
    make_clsloc_dataset(root, classes=2, train_per_class=1, val_per_class=4, size_px=(64, 96))
    (root / VAL / f"{val_id(3)}.JPEG").write_bytes(b"no image")
    (root / VAL / f"{val_id(4)}.JPEG").unlink()
    return root


@pytest.fixture(scope="session")
def maps(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps of val in shards of three, three and two; copy before changing anything."""
    out = tmp_path_factory.mktemp("preview") / "maps"
    words = ["--working-size", 64, "--map-size", 64, "--shard-size", 3, "--max-failed", 2]
    assert prep("proposals", "--data", data, "--split", "val", "--out", out, *words).exit_code == 0
    return out
