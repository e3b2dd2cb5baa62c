"""The description beside a picture of panels: what comes back, what does not fit, and the cells it names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.drawing.overlays import save_png
from evaluation.drawing.panel_grids import PanelGrid, PanelGridRow, cell_picture, read_grid, write_grid
from evaluation.drawing.panels import PanelPrediction, PanelRow, localization_panels

GRID = PanelGrid(
    protocol="cam",
    baselines=1,
    localizers=("centred-gaussian", "cam*saliency"),
    rows=(
        PanelGridRow(caption="n01 a/\udcff", captions=("IoU 0.10", "no box")),
        PanelGridRow(caption="n02 b", captions=("IoU 0.20", "IoU 0.90")),
    ),
)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Two rows of an image and two maps; every image and map is of one grey of its own."""
    rows = [
        PanelRow(
            image_rgb=np.full((9, 9, 3), 40 + 100 * row, dtype=np.uint8),
            ground_truth_b4=np.zeros((0, 4)),
            predictions=[PanelPrediction(map_hw=None, box_xyxy=None), PanelPrediction(map_hw=None, box_xyxy=None)],
        )
        for row in range(2)
    ]
    path = tmp_path / "examples.png"
    save_png(path, localization_panels(rows, columns=["a", "b"]))
    return path


def test_what_was_written_comes_back(picture: Path) -> None:
    write_grid(picture, GRID)
    assert read_grid(picture) == GRID


def test_a_picture_without_description_has_none(picture: Path) -> None:
    assert read_grid(picture) is None


def test_a_cell_is_the_picture_without_its_surroundings(picture: Path) -> None:
    with Image.open(picture) as opened:
        rgb = opened.convert("RGB")
    for row in range(2):
        cell = np.asarray(cell_picture(rgb, row=row, column=0))
        assert cell.shape == (224, 224, 3) and (cell == 40 + 100 * row).all()
        empty = np.asarray(cell_picture(rgb, row=row, column=2))
        assert len(np.unique(empty)) == 1, "the grey of a missing map, and no paper beside it"


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        json.dumps({"schema": "wsol-panels-9"}),
        json.dumps({"schema": "wsol-panels-1", "protocol": "cam", "baselines": 1, "localizers": ["a"], "rows": []}),
        json.dumps(
            {
                "schema": "wsol-panels-1",
                "protocol": "cam",
                "baselines": 1,
                "localizers": ["a", "b"],
                "rows": [{"caption": "x", "captions": ["one"]}],
            }
        ),
    ],
    ids=["text", "list", "schema", "no rows", "captions"],
)
def test_a_damaged_description_is_named(picture: Path, content: str) -> None:
    picture.with_suffix(".json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"examples\.json: expected the description .* evaluate again"):
        read_grid(picture)


def test_the_description_of_a_larger_picture_is_refused(picture: Path) -> None:
    rows = (*GRID.rows, GRID.rows[1])
    write_grid(picture, PanelGrid(protocol="cam", baselines=1, localizers=GRID.localizers, rows=rows))
    with pytest.raises(ValueError, match="a picture of 704 x 514 pixels, found one of 3 images and 2 localizers"):
        read_grid(picture)
