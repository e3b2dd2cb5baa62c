import dataclasses
import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import pseudo_maps.map_making as map_making
from pseudo_maps.config import MapConfig
from pseudo_maps.images import decode_image
from pseudo_maps.map_making import make_map, saliency_map
from pseudo_maps.proposals import PRESETS, propose
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig, selective_search_boxes
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import quantise_map

SMALL = MapConfig(proposals=dataclasses.replace(PRESETS["b650"], working_size=64), map_size=32)
SEARCH = MapConfig(proposals=SelectiveSearchConfig(mode="single", working_size=64), map_size=32)


def scene(height: int = 48, width: int = 64) -> np.ndarray:
    """A bright disc off the centre of a dull, grainy background: (H, W, 3) uint8 RGB."""
    generator = np.random.default_rng(5)
    rgb_hwc = generator.normal((70, 80, 75), 6, size=(height, width, 3)).clip(0, 255).astype(np.uint8)
    cv2.circle(rgb_hwc, (2 * width // 3, height // 2), height // 4, (220, 60, 40), -1)
    return rgb_hwc


def encoded(rgb_hwc: np.ndarray, image_format: str = "PNG", *, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb_hwc).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def make(folder: Path, content: bytes | None, *, config: MapConfig = SMALL, name: str = "a.JPEG"):
    if content is not None:
        (folder / name).write_bytes(content)
    record = ImageRecord(image_id="id of a", path=name, wnid="n00000001", label=3)
    return make_map(record, root=str(folder), config=config)


def covered_share(labels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The mean over proposals, drawn pixel by pixel: what the paper's sentence says."""
    return np.mean([mask[labels] for mask in masks], axis=0)


def area_mean(values_hw: np.ndarray, size: int) -> np.ndarray:
    """Mean over the area of each cell, by repeating every value until the cells are whole numbers of them."""
    height, width = values_hw.shape
    fine = values_hw.repeat(size, axis=0).repeat(size, axis=1)
    return fine.reshape(size, height, size, width).mean(axis=(1, 3))


# --- the map of an image


def test_the_map_is_the_mean_of_the_proposals_over_each_cell() -> None:
    proposals = propose(scene(), config=SMALL.proposals)
    found, count = saliency_map(scene(), config=SMALL)
    assert found.shape == (32, 32) and found.dtype == np.float32
    assert count == len(proposals.masks) > 50
    expected = area_mean(covered_share(proposals.labels, proposals.masks), 32)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_map_of_selective_search_is_the_mean_of_its_boxes() -> None:
    boxes = selective_search_boxes(scene(), mode="single")
    drawn = np.zeros((len(boxes), *scene().shape[:2]))
    for box, (x0, y0, x1, y1) in zip(drawn, boxes, strict=True):
        box[y0 : y1 + 1, x0 : x1 + 1] = 1
    found, count = saliency_map(scene(), config=SEARCH)
    assert count == len(boxes) > 0
    np.testing.assert_allclose(found, area_mean(drawn.mean(axis=0), 32), atol=1e-6)


@pytest.mark.parametrize("config", [SMALL, SEARCH], ids=["geodesic", "selective-search"])
def test_the_object_stands_out(config: MapConfig) -> None:
    found, _ = saliency_map(scene(), config=config)
    inside = cv2.circle(np.zeros((48, 64), np.uint8), (42, 24), 11, 1, -1)
    inside = area_mean(inside, 32) > 0.5
    assert found[inside].mean() > 1.5 * found[~inside].mean()
    assert found.min() >= 0 and found.max() <= 1


def test_without_proposals_the_map_is_zero() -> None:
    found, count = saliency_map(np.zeros((1, 40, 3), np.uint8), config=SEARCH)
    assert count == 0 and found.shape == (32, 32) and not found.any()


# --- the map of a file


@pytest.mark.parametrize(
    "content",
    [
        encoded(scene()),
        encoded(scene(), "JPEG", quality=90),
        encoded(scene(), "JPEG", mode="L"),
        encoded(scene(), "JPEG", mode="CMYK"),
        encoded(scene()[:1, :1], "JPEG"),
    ],
    ids=["PNG named JPEG", "JPEG", "grey", "CMYK", "1x1"],
)
def test_a_good_file_gives_the_quantised_map_of_its_pixels(tmp_path: Path, content: bytes) -> None:
    decoded = decode_image(content, enough_px=64)
    saliency, count = saliency_map(decoded.rgb_hwc, config=SMALL)
    expected, peak = quantise_map(saliency)
    made = make(tmp_path, content)
    np.testing.assert_array_equal(made.map_uint8, expected)
    assert made.map_uint8.dtype == np.uint8 and made.map_uint8.max() == 255
    assert (made.row.status, made.message) == ("ok", "")
    assert (made.row.peak, made.row.proposals) == (peak, count)
    assert (made.row.height, made.row.width) == (decoded.file_height, decoded.file_width)
    assert (made.row.image_id, made.row.path, made.row.wnid, made.row.label) == ("id of a", "a.JPEG", "n00000001", 3)


def test_the_row_of_a_large_photograph_states_the_size_of_the_file(tmp_path: Path) -> None:
    # Decoded at 1/4 scale, as 64 pixels are enough.
    made = make(tmp_path, encoded(cv2.resize(scene(), (300, 260)), "JPEG"))
    assert (made.row.status, made.row.height, made.row.width) == ("ok", 260, 300)


WHOLE = encoded(scene(), "JPEG", quality=90)
BAD_FILES = {
    "truncated": (WHOLE[: len(WHOLE) // 2], "decode-error", "damaged or truncated"),
    "no end": (WHOLE[:-2], "decode-error", "damaged or truncated"),
    "zero bytes": (b"", "decode-error", "is empty"),
    "text": (b"<html>404 Not Found</html>", "decode-error", "not an image"),
    "gif": (encoded(scene(), "GIF"), "decode-error", "GIF is not read"),
    "missing": (None, "missing", "No such file"),
}


@pytest.mark.parametrize(("content", "status", "message"), BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("config", [SMALL, SEARCH], ids=["geodesic", "selective-search"])
def test_a_bad_file_gives_a_zero_map_and_says_why(
    tmp_path: Path, content: bytes | None, status: str, message: str, config: MapConfig
) -> None:
    made = make(tmp_path, content, config=config)
    assert_failed(made, status)
    assert message in made.message and "a.JPEG" in made.message
    assert "\n" not in made.message and "Traceback" not in made.message


def assert_failed(made, status: str) -> None:
    assert made.row.status == status
    assert made.map_uint8.shape == (32, 32) and made.map_uint8.dtype == np.uint8 and not made.map_uint8.any()
    assert (made.row.peak, made.row.proposals) == (0.0, 0)
    assert (made.row.image_id, made.row.path, made.row.wnid, made.row.label) == ("id of a", "a.JPEG", "n00000001", 3)
    assert made.message


def test_a_folder_or_a_link_to_itself_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.JPEG").mkdir()
    assert_failed(make(tmp_path, None), "unreadable")
    (tmp_path / "a.JPEG").rmdir()
    (tmp_path / "a.JPEG").symlink_to("a.JPEG")
    assert_failed(make(tmp_path, None), "unreadable")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.JPEG").write_bytes(WHOLE)
    (tmp_path / "a.JPEG").chmod(0)
    made = make(tmp_path, None)
    assert_failed(made, "unreadable")
    assert "Permission denied" in made.message


def test_more_pixels_than_allowed_are_not_decoded(tmp_path: Path) -> None:
    at_limit = dataclasses.replace(SMALL, max_pixels=48 * 64)
    assert make(tmp_path, WHOLE, config=at_limit).row.status == "ok"
    below = dataclasses.replace(SMALL, max_pixels=48 * 64 - 1)
    made = make(tmp_path, WHOLE, config=below)
    assert_failed(made, "decode-error")
    assert "limit of 3071" in made.message


def test_an_image_without_proposals_keeps_its_size(tmp_path: Path) -> None:
    made = make(tmp_path, encoded(np.zeros((1, 40, 3), np.uint8)), config=SEARCH)
    assert_failed(made, "no-proposals")
    assert (made.row.height, made.row.width) == (1, 40)


@pytest.mark.parametrize(
    ("error", "status"),
    [(MemoryError(), "out-of-memory"), (ZeroDivisionError("a bug"), "error"), (cv2.error("a bug"), "error")],
)
def test_an_error_while_computing_costs_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(map_making, "saliency_map", fail)
    made = make(tmp_path, WHOLE)
    assert_failed(made, status)
    assert (made.row.height, made.row.width) == (48, 64)
    if status == "error":
        assert "Traceback" in made.message and "a bug" in made.message


def test_a_map_that_is_not_finite_is_an_error_and_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = np.full((32, 32), np.nan, np.float32)
    monkeypatch.setattr(map_making, "saliency_map", lambda *_args, **_options: (broken, 5))
    made = make(tmp_path, WHOLE)
    assert_failed(made, "error")
    assert "NaN" in made.message


def test_an_interrupt_is_no_failed_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(map_making, "saliency_map", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, WHOLE)
