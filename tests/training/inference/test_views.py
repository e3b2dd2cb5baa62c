import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.inference.config import View, Views
from training.inference.views import merge_maps, show

TEN_CROP = Views(ten_crop=True)


def numbered(side_px: int, batch: int = 1) -> torch.Tensor:
    """Every pixel has a value of its own."""
    return torch.arange(batch * 3 * side_px**2, dtype=torch.float64).reshape(batch, 3, side_px, side_px)


def test_the_default_is_the_image_itself() -> None:
    (view,) = Views().plan(64)
    assert view == View(top=0, left=0, window_px=64, shown_px=64, mirrored=False)
    images, maps = numbered(64, 2), torch.randn(2, 5, 7)
    assert torch.equal(show(images, view), images)
    assert torch.equal(merge_maps([maps], [view], side_px=64), maps)


def test_sides_of_the_images() -> None:
    assert Views().image_side_px(224) == 224
    assert Views(scales=(0.75, 1.25, 1.0)).image_side_px(224) == 280
    assert Views(scales=(0.75,), flip=True).image_side_px(224) == 168
    assert TEN_CROP.image_side_px(224) == 256


def test_the_ten_crops_are_those_of_the_cam_release() -> None:
    # prepare_image.m counts from 1: rows and columns 1 and 33, the centre at 17.
    plan = TEN_CROP.plan(224)
    assert {view.window_px for view in plan} == {view.shown_px for view in plan} == {224}
    assert [(view.left, view.top) for view in plan[:5]] == [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    assert [view.mirrored for view in plan] == [False] * 5 + [True] * 5
    assert [(view.left, view.top) for view in plan[5:]] == [(view.left, view.top) for view in plan[:5]]


def test_a_crop_shows_its_window() -> None:
    images = numbered(80)
    for view in TEN_CROP.plan(70):
        window = images.numpy()[:, :, view.top : view.top + 70, view.left : view.left + 70]
        expected = window[..., ::-1] if view.mirrored else window
        np.testing.assert_array_equal(show(images, view).numpy(), expected)


def test_scales_and_mirror_images() -> None:
    plan = Views(scales=(0.5, 1.0), flip=True).plan(128)
    assert [(view.shown_px, view.mirrored) for view in plan] == [(64, False), (64, True), (128, False), (128, True)]
    ramp = torch.arange(128, dtype=torch.float64).expand(1, 3, 128, 128)
    half = show(ramp, plan[0])
    assert half.shape == (1, 3, 64, 64)
    # The antialiased triangle over four pixels weighs 1, 3, 3, 1: in the middle the mean of two neighbours.
    torch.testing.assert_close(half[0, 0, 0, 1:-1], 2 * torch.arange(1, 63, dtype=torch.float64) + 0.5)
    assert torch.equal(show(ramp, plan[3]), ramp.flip(3))


def test_mean_over_scales_by_hand() -> None:
    views = Views(scales=(1.0, 2.0), flip=True).plan(64)
    small, large = torch.tensor([[[-4.0, 4.0]]]), torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    # Bilinear, centres aligned, 2 to 4 columns: -4, -2, 2, 4. The mirrored maps are mirrored back first.
    merged = merge_maps([small, small.flip(2), large, torch.zeros(1, 1, 4)], views, side_px=128)
    expected = (2 * torch.tensor([-4.0, -2.0, 2.0, 4.0]) + torch.tensor([1.0, 2.0, 3.0, 4.0])) / 4
    torch.testing.assert_close(merged, expected[None, None])


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3), crop_px=st.sampled_from([64, 70]))
def test_crops_are_laid_where_they_were(seed: int, batch: int, crop_px: int) -> None:
    """With maps as large as the crops nothing is resized, and plain numpy says what the sum is."""
    generator = np.random.default_rng(seed)
    side_px = TEN_CROP.image_side_px(crop_px)
    plan = TEN_CROP.plan(crop_px)
    maps = [generator.normal(size=(batch, crop_px, crop_px)) for _ in plan]
    expected = np.zeros((batch, side_px, side_px))
    for view, part in zip(plan, maps, strict=True):
        upright = part[:, :, ::-1] if view.mirrored else part
        expected[:, view.top : view.top + crop_px, view.left : view.left + crop_px] += np.abs(upright)
    found = merge_maps([torch.from_numpy(part) for part in maps], plan, side_px=side_px)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_counts_of_the_ten_crops() -> None:
    plan = TEN_CROP.plan(224)
    counts = merge_maps([-torch.ones(1, 14, 14)] * 10, plan, side_px=256)
    assert counts.shape == (1, 256, 256)
    for pixel, covered in (((0, 0), 2), ((255, 0), 2), ((0, 128), 4), ((16, 16), 4), ((128, 128), 10)):
        assert counts[0][pixel] == pytest.approx(covered, abs=1e-4)


def test_crop_maps_are_enlarged_by_keys_cubic_kernel() -> None:
    """The kernel of MATLAB's imresize, a = -1/2, away from the border: weights of an impulse when 4 becomes 64."""
    impulse = torch.zeros(1, 16, 16, dtype=torch.float64)
    impulse[0, 8, 8] = 1
    (centre,) = (view for view in TEN_CROP.plan(64) if (view.top, view.mirrored) == (4, False))
    views = [centre._replace(top=0, left=0)]
    found = merge_maps([impulse], views, side_px=73)[0, :64, :64]
    distance = np.abs((np.arange(64) + 0.5) / 4 - 0.5 - 8)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    np.testing.assert_allclose(found.numpy(), np.abs(np.outer(weights, weights)), atol=1e-12)


@pytest.mark.parametrize("views", [Views(scales=(1.0, 1.5), flip=True), TEN_CROP])
def test_a_mirrored_image_with_mirrored_maps_gives_the_mirrored_map(views: Views) -> None:
    torch.manual_seed(0)
    plan, side_px = views.plan(70), views.image_side_px(70)
    image = torch.rand(1, 3, side_px, side_px, dtype=torch.float64)

    def localize(images: torch.Tensor) -> torch.Tensor:
        # The mean of the channels in squares of 7 pixels turns with the image, as a network that learnt flips would.
        squares = [torch.nn.functional.avg_pool2d(show(images, view).mean(dim=1), 7) for view in plan]
        return merge_maps(squares, plan, side_px=side_px)

    torch.testing.assert_close(localize(image.flip(3)).flip(2), localize(image), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "at least one"),
        ({"scales": (1.0, 1.0)}, "each once"),
        ({"scales": (0.0, 1.0)}, "0 < scale <= 4"),
        ({"scales": (float("nan"),)}, "0 < scale <= 4"),
        ({"scales": (100.0,)}, "0 < scale <= 4"),
        ({"ten_crop": True, "flip": True}, "leave scales and flip"),
        ({"ten_crop": True, "scales": (0.5,)}, "leave scales and flip"),
    ],
)
def test_views_without_a_meaning_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Views(**options)


def test_views_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a view of 56 pixels \(scales \(0.25, 1.0\) of 224\).* at least 64"):
        Views(scales=(0.25, 1.0)).plan(224)


def test_maps_that_do_not_fit_the_views_are_refused() -> None:
    whole, crops = Views().plan(64), TEN_CROP.plan(64)
    with pytest.raises(ValueError, match="1 maps of 10 views"):
        merge_maps([torch.zeros(1, 4, 4)], crops, side_px=73)
    with pytest.raises(ValueError, match="only one of the two"):
        merge_maps([torch.zeros(1, 4, 4)] * 2, [whole[0]._replace(window_px=73), crops[0]], side_px=73)


def test_descriptions_tell_views_apart() -> None:
    views = [
        Views(),
        Views(flip=True),
        Views(scales=(0.5,)),
        Views(scales=(0.5,), flip=True),
        Views(scales=(0.5, 1.0)),
        TEN_CROP,
    ]
    assert len({one.describe() for one in views}) == len(views)
    assert "0.5, 1 of the input and mirror images" in Views(scales=(0.5, 1.0), flip=True).describe()
