"""``wsol-eval maps --masks`` and ``run --masks``: pixel precision, and masks that do not fit their images."""

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
from tests.world import QUIET_RUN, World, copy_of

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
    px_ap = pixels["px_ap"]["pseudo-map"]
    assert px_ap > 0.99
    assert 0.1 < pixels["centred_gaussian_px_ap"] < px_ap
    gaussian = f"(centred Gaussian {100 * pixels['centred_gaussian_px_ap']:.2f})"
    assert f"PxAP {100 * px_ap:.2f} {gaussian}, 10 masks, 0 without map" in result.output


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


def test_pixel_precision_of_a_network_is_that_of_its_saved_maps(world: World, data: Path, tmp_path: Path) -> None:
    words = ("--data", data, "--masks", data / "Masks" / "CLS-LOC" / "val", "--panels", 0, "--protocol", "cam")
    network = (*QUIET_RUN, "--localizer", "cam", "--localizer", "saliency", "--save-maps")
    result = evaluate("run", world.network, *words, *network, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    pixels = metrics_of(tmp_path / "run")["pixels"]
    assert (list(pixels["px_ap"]), pixels["images"], pixels["failed"]) == (["cam", "saliency"], 10, 0)
    assert f"PxAP cam {100 * pixels['px_ap']['cam']:.2f}, saliency " in result.output
    for name, px_ap in pixels["px_ap"].items():
        stored = evaluated(tmp_path / name, "maps", tmp_path / "run" / "maps" / name, *words)["pixels"]
        # Stored in 8 bit.
        assert stored["px_ap"] == {name: pytest.approx(px_ap, abs=2e-3)}
        assert stored["object_pixels"] == pixels["object_pixels"]


def test_masks_that_the_data_set_lists_are_put_together(tmp_path: Path) -> None:
    # The OpenImages part of the wsolevaluation project: several masks per image, of sizes of their own, and no boxes.
    metadata, masks, maps = tmp_path / "metadata", tmp_path / "masks", tmp_path / "maps"
    left, right, ignored = (np.zeros((112, 112), np.uint8) for _ in range(3))
    left[10:60, 10:40] = 1
    right[20:90, 50:100] = 255
    ignored[:, 90:] = 255
    truth = np.where(ignored > 0, 128, 0)
    truth[(left > 0) | (right > 0)] = 255
    for folder in (metadata / "val", masks / "m", maps / "v"):
        folder.mkdir(parents=True)
    files = {"1a": left, "1b": right.repeat(2, axis=0), "1i": ignored, "2": right}
    for name, mask in files.items():
        cv2.imwrite(str(masks / "m" / f"{name}.png"), mask)
    for name, lines in {
        "image_ids": "v/1.jpg\nv/2.jpg\n",
        "class_labels": "v/1.jpg,0\nv/2.jpg,0\n",
        "localization": "v/1.jpg,m/1a.png,m/1i.png\nv/2.jpg,m/2.png,\nv/1.jpg,m/1b.png,\n",
    }.items():
        (metadata / "val" / f"{name}.txt").write_text(lines)
    # The ignored pixels hold what would be wrong.
    np.save(maps / "v" / "1.npy", np.where(truth == 0, 0.0, 1.0).repeat(2, axis=0).repeat(2, axis=1))
    np.save(maps / "v" / "2.npy", right.repeat(2, axis=0).repeat(2, axis=1) / 255)
    command = ("maps", maps, "--data", metadata, "--panels", 0, "--protocol", "cam")
    result = evaluate(*command, "--masks", masks, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    pixels = metrics_of(tmp_path / "out")["pixels"]
    assert (pixels["px_ap"], pixels["images"], pixels["failed"]) == ({"pseudo-map": 1}, 2, 0)
    assert (pixels["object_pixels"], pixels["ignored_pixels"]) == (
        4 * ((truth == 255).sum() + (right > 0).sum()),
        4 * (truth == 128).sum(),
    )
    assert "none with boxes; 2 masks scored" in result.output and "PxAP 100.00" in result.output
    assert "0 scored" not in result.output and "was not scored" not in result.output
    without = evaluate(*command)
    assert without.exit_code == 1 and "--masks" in without.output
    (masks / "m" / "1b.png").unlink()
    missing = evaluate(*command, "--masks", masks)
    assert missing.exit_code == 1 and "1b.png" in missing.output


def test_masks_of_another_shape_than_the_image_are_refused(data: Path, made: Path, tmp_path: Path) -> None:
    masks = copy_of(data / "Masks" / "CLS-LOC" / "val", tmp_path / "masks")
    words = ("maps", made, "--data", data, "--panels", 0, "--protocol", "cam", "--limit", 8, "--masks", masks)
    for number, path in enumerate(sorted(masks.iterdir())):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).T)
        if number == 1:
            one = evaluate(*words)
            assert one.exit_code == 0 and "masks of another aspect ratio than the image: 2 of 8 images" in one.stderr
    result = evaluate(*words)
    assert result.exit_code == 1 and re.search(rf"such as '{val_id(1)}': .*, transposed", result.stderr)


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
