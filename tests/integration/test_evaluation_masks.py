"""``wsol-eval maps --masks``: pixel precision, and masks that do not fit their images."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.integration.eval_command import (
    evaluate,
    evaluated,
    metrics_of,
)
from tests.integration.prep_command import val_id
from tests.world import copy_of

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_pixel_precision_of_perfect_maps(data: Path, tmp_path: Path) -> None:
    masks, maps = data / "Masks" / "CLS-LOC" / "val", tmp_path / "maps"
    maps.mkdir()
    for path in masks.iterdir():
        np.save(maps / f"{path.stem}.npy", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    command = ("maps", maps, "--data", data, "--panels", 0, "--protocol", "cam")
    result = evaluate(*command, "--masks", masks, "--out", tmp_path / "out")
    assert result.exit_code == 0
    pixels = metrics_of(tmp_path / "out")["pixels"]
    assert (pixels["images"], pixels["failed"]) == (10, 0)
    # Not 1: cubic interpolation smooths the rim of the map, nearest neighbour that of the mask.
    assert pixels["px_ap"] > 0.99
    assert 0.1 < pixels["centred_gaussian_px_ap"] < pixels["px_ap"]
    gaussian = f"(centred Gaussian {100 * pixels['centred_gaussian_px_ap']:.2f})"
    assert f"PxAP {100 * pixels['px_ap']:.2f} {gaussian}, 10 masks, 0 without map" in result.output


def test_masks_are_part_of_what_is_evaluated(data: Path, made: Path, tmp_path: Path) -> None:
    command = ("maps", made, "--data", data, "--panels", 0, "--protocol", "cam", "--limit", 3)
    masks = data / "Masks" / "CLS-LOC" / "val"
    pixels = evaluated(tmp_path / "out", *command, "--masks", masks)["pixels"]
    assert pixels["images"] == 3
    assert evaluated(tmp_path / "out", *command, "--masks", masks)["pixels"] == pixels
    without = evaluate(*command, "--out", tmp_path / "out")
    assert (
        without.exit_code == 1 and '(masks: {"sha256": ' in without.output and "stored, nothing now)" in without.output
    )


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda path: path.unlink(), "no mask of image"),
        (lambda path: path.write_bytes(b"no image"), "not an image"),
        (lambda path: cv2.imwrite(str(path), np.full((5, 5), 7, dtype=np.uint8)), r"\[7\]"),
    ],
    ids=["missing", "undecodable", "other values"],
)
def test_masks_that_do_not_fit_are_named(
    data: Path, made: Path, tmp_path: Path, spoil: Callable[[Path], Any], named: str
) -> None:
    masks = copy_of(data / "Masks" / "CLS-LOC" / "val", tmp_path / "masks")
    spoil(masks / f"{val_id(2)}.png")
    words = ("--panels", 0, "--protocol", "cam", "--masks", masks, "--out", tmp_path / "out")
    result = evaluate("maps", made, "--data", data, *words)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert re.search(named, result.output) and val_id(2) in result.output
    assert not (tmp_path / "out" / "metrics.json").exists()
