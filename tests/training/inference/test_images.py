"""Batches of whole images and centre crops: pixels, order, and files that cannot be read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pseudo_maps.images import decode_image
from pseudo_maps.records import ImageRecord
from training.data.augmentation import Crop, sample_image
from training.inference.images import EvaluationBatch, EvaluationPixels, build_evaluation_loader

SIDE_PX = 32
SIZES = {"a.png": (40, 20), "b.png": (64, 64), "ü.png": (9, 70), "broken.png": None, "gone.png": None, "c.png": (5, 5)}
NAMES = list(SIZES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of several sizes, a file that is no image, and a name without file."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(11)
    for name, size_wh in SIZES.items():
        if size_wh is not None:
            pixels = generator.integers(0, 256, size=(size_wh[1], size_wh[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:200])
    return folder


def pixels_of(root: Path, names: Sequence[str] = NAMES, *, side_px: int = SIDE_PX, centre: bool) -> EvaluationPixels:
    return EvaluationPixels(
        [ImageRecord(image_id=name, path=name) for name in names], root=root, side_px=side_px, centre=centre
    )


def save(path: Path, rgb_hwc: np.ndarray, **options: object) -> np.ndarray:
    Image.fromarray(rgb_hwc).save(path, **options)  # type: ignore[arg-type]
    return rgb_hwc


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, size=(side, side, 3), dtype=np.uint8)


def assert_same(found: EvaluationBatch, wanted: EvaluationBatch) -> None:
    assert (found.positions, found.file_wh) == (wanted.positions, wanted.file_wh)
    assert repr(found.unreadable) == repr(wanted.unreadable)
    for mine, theirs in ((found.images_bchw, wanted.images_bchw), (found.centre_bchw, wanted.centre_bchw)):
        assert (mine is None) == (theirs is None)
        assert mine is None or theirs is None or torch.equal(mine, theirs)


def test_a_batch_holds_what_reads_in_the_order_asked_for(root: Path) -> None:
    batch = pixels_of(root, centre=True).__getitems__([5, 3, 1, 4, 0])
    assert batch.positions == (5, 1, 0)
    assert batch.file_wh == ((5, 5), (64, 64), (40, 20))
    assert set(batch.unreadable) == {3, 4}
    assert "broken.png" in str(batch.unreadable[3]) and "gone.png" in str(batch.unreadable[4])
    for pixels in (batch.images_bchw, batch.centre_bchw):
        assert pixels is not None
        assert (pixels.shape, pixels.dtype) == ((3, 3, SIDE_PX, SIDE_PX), torch.uint8)


def test_the_centre_is_given_only_when_wanted(root: Path) -> None:
    assert pixels_of(root, centre=False)[0].centre_bchw is None


def test_one_position_is_a_batch_of_one(root: Path) -> None:
    pixels = pixels_of(root, centre=True)
    assert_same(pixels[2], pixels.__getitems__([2]))
    assert len(pixels) == len(NAMES)


def test_images_that_do_not_read_leave_an_empty_batch(root: Path) -> None:
    batch = pixels_of(root, centre=True).__getitems__([3, 4])
    assert (batch.positions, batch.file_wh) == ((), ())
    assert batch.images_bchw.shape == (0, 3, SIDE_PX, SIDE_PX)
    assert batch.centre_bchw is not None and batch.centre_bchw.shape == (0, 3, SIDE_PX, SIDE_PX)


def test_an_image_of_the_right_size_comes_unchanged(tmp_path: Path) -> None:
    rgb_hwc = save(tmp_path / "a.png", noise(SIDE_PX))
    batch = pixels_of(tmp_path, ["a.png"], centre=False)[0]
    np.testing.assert_array_equal(batch.images_bchw[0].permute(1, 2, 0).numpy(), rgb_hwc)


def test_the_centre_of_256_pixels_is_their_central_224(tmp_path: Path) -> None:
    rgb_hwc = save(tmp_path / "a.png", noise(256))
    batch = pixels_of(tmp_path, ["a.png"], side_px=224, centre=True)[0]
    assert batch.centre_bchw is not None
    np.testing.assert_array_equal(batch.centre_bchw[0].permute(1, 2, 0).numpy(), rgb_hwc[16:240, 16:240])


def test_the_centre_leaves_a_sixteenth_on_every_side_of_an_image_of_any_shape(tmp_path: Path) -> None:
    # Black but for the middle 14 of 16 parts in both directions.
    rgb_hwc = np.zeros((320, 160, 3), dtype=np.uint8)
    rgb_hwc[20:300, 10:150] = 255
    save(tmp_path / "a.png", rgb_hwc)
    batch = pixels_of(tmp_path, ["a.png"], side_px=64, centre=True)[0]
    assert batch.centre_bchw is not None
    # A pixel or two on the rim mix with what is outside when the image is reduced.
    assert (batch.centre_bchw[0, :, 3:-3, 3:-3] == 255).all()
    assert batch.images_bchw[0, :, :3].max() < 5 and batch.images_bchw[0, :, :, :3].max() < 5


def test_the_size_is_the_file_s_though_a_photograph_is_decoded_smaller(tmp_path: Path) -> None:
    rgb_hwc = np.full((600, 900, 3), (200, 100, 50), dtype=np.uint8)
    save(tmp_path / "a.jpeg", rgb_hwc, quality=95)
    batch = pixels_of(tmp_path, ["a.jpeg"], centre=True)[0]
    assert batch.file_wh == ((900, 600),)
    np.testing.assert_allclose(batch.images_bchw[0].float().mean(dim=(1, 2)), [200, 100, 50], atol=2)


def test_the_whole_image_is_the_same_pixels_with_and_without_the_centre(tmp_path: Path) -> None:
    # 100 x 66 pixels are decoded at half the scale for 32, and at full scale for the crop, which needs 37.
    pixels = np.random.default_rng(3).integers(0, 256, size=(66, 100, 3), dtype=np.uint8)
    save(tmp_path / "a.jpeg", pixels, quality=95)
    alone, beside = (pixels_of(tmp_path, ["a.jpeg"], centre=centre)[0] for centre in (False, True))
    assert torch.equal(alone.images_bchw, beside.images_bchw)
    crop = Crop(1 / 16, 1 / 16, 15 / 16, 15 / 16, False)
    wanted_hwc = sample_image(decode_image(tmp_path / "a.jpeg").rgb_hwc, crop, SIDE_PX)
    assert beside.centre_bchw is not None
    np.testing.assert_array_equal(beside.centre_bchw[0].permute(1, 2, 0).numpy(), wanted_hwc)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_batches_in_order(root: Path, workers: int) -> None:
    pixels = pixels_of(root, centre=True)
    batches = [range(0, 4), range(4, 6), [2]]
    found = list(build_evaluation_loader(pixels, batches, workers=workers))
    assert [batch.positions for batch in found] == [(0, 1, 2), (5,), (2,)]
    for batch, positions in zip(found, batches, strict=True):
        assert_same(batch, pixels.__getitems__(list(positions)))


@pytest.mark.parametrize("workers", [0, 2])
def test_no_images_are_no_batches(root: Path, workers: int) -> None:
    assert list(build_evaluation_loader(pixels_of(root, [], centre=False), [], workers=workers)) == []
