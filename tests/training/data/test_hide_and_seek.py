import pytest
import torch
from torch import Tensor

from training.data.hide_and_seek import PATCH_SIDES_PX, draw_hidden_patches, hide_and_seek
from training.networks.normalisation import IMAGENET_MEAN


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patch_side(length_px: int, side: int) -> int:
    return max(1, round(side * length_px / 224))


def oracle(batch: int, *, height: int, width: int, seed: int) -> Tensor:
    """The definition, patch by patch, with the same draws."""
    draws = generator(seed)
    rows = -(-height // min(patch_side(height, side) for side in PATCH_SIDES_PX if side))
    columns = -(-width // min(patch_side(width, side) for side in PATCH_SIDES_PX if side))
    choice = torch.randint(len(PATCH_SIDES_PX), (batch,), generator=draws).tolist()
    uniform = torch.rand((batch, rows, columns), generator=draws).tolist()
    hidden_bhw = torch.zeros(batch, height, width, dtype=torch.bool)
    for image in range(batch):
        side = PATCH_SIDES_PX[choice[image]]
        if side == 0:
            continue
        high, wide = patch_side(height, side), patch_side(width, side)
        for row, top in enumerate(range(0, height, high)):
            for column, left in enumerate(range(0, width, wide)):
                hidden_bhw[image, top : top + high, left : left + wide] = uniform[image][row][column] < 0.5
    return hidden_bhw


@pytest.mark.parametrize(("height", "width"), [(224, 224), (112, 112), (97, 230), (5, 9), (1, 1)])
def test_patches_are_those_of_the_definition(height: int, width: int) -> None:
    found = draw_hidden_patches(24, height=height, width=width, generator=generator(3))
    assert found.dtype == torch.bool
    assert torch.equal(found, oracle(24, height=height, width=width, seed=3))


def test_every_side_comes_up_and_half_of_the_patches_are_hidden() -> None:
    images = 1000
    choice_b = torch.randint(len(PATCH_SIDES_PX), (images,), generator=generator(1))
    assert choice_b.bincount().min() > 0.8 * images / len(PATCH_SIDES_PX)
    hidden_bhw = draw_hidden_patches(images, height=28, width=28, generator=generator(1))
    shares_b = hidden_bhw.double().mean(dim=(1, 2))
    whole_b = choice_b == 0
    assert torch.equal(shares_b[whole_b], torch.zeros_like(shares_b[whole_b]))
    # About 800 images of at least 16 patches each: the standard error of the share is below .005.
    assert shares_b[~whole_b].mean().item() == pytest.approx(0.5, abs=0.02)


def test_images_of_one_batch_differ_and_a_seed_repeats_them() -> None:
    first = draw_hidden_patches(8, height=224, width=224, generator=generator(5))
    assert torch.equal(first, draw_hidden_patches(8, height=224, width=224, generator=generator(5)))
    assert not torch.equal(first, draw_hidden_patches(8, height=224, width=224, generator=generator(6)))
    assert len({image.numpy().tobytes() for image in first if image.any()}) == int(first.flatten(1).any(dim=1).sum())


def test_draws_advance_whatever_sides_come_up() -> None:
    states = []
    for seed in range(6):
        draws = generator(seed)
        draw_hidden_patches(1, height=224, width=224, generator=draws)
        reference = generator(seed)
        torch.randint(len(PATCH_SIDES_PX), (1,), generator=reference)
        torch.rand((1, 14, 14), generator=reference)
        states.append(torch.equal(draws.get_state(), reference.get_state()))
    assert states == [True] * 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_hidden_pixels_have_the_mean_colour_and_others_stay(dtype: torch.dtype) -> None:
    images_bchw = torch.rand(6, 3, 56, 56, generator=generator(9), dtype=torch.float64).to(dtype)
    before = images_bchw.clone()
    found = hide_and_seek(images_bchw, generator=generator(2))
    assert found.dtype == dtype and found.shape == images_bchw.shape
    assert torch.equal(images_bchw, before)
    hidden_bhw = oracle(6, height=56, width=56, seed=2)
    assert hidden_bhw.any() and not hidden_bhw.all()
    for channel, mean in enumerate(IMAGENET_MEAN):
        assert set(found[:, channel][hidden_bhw].tolist()) == {torch.tensor(mean, dtype=dtype).item()}
        assert torch.equal(found[:, channel][~hidden_bhw], images_bchw[:, channel][~hidden_bhw])


def test_gradients_stop_at_hidden_pixels() -> None:
    images_bchw = torch.rand(6, 3, 56, 56, dtype=torch.float64, requires_grad=True)
    hide_and_seek(images_bchw, generator=generator(2)).sum().backward()  # type: ignore[no-untyped-call]
    seen_bhw = ~oracle(6, height=56, width=56, seed=2)
    assert images_bchw.grad is not None
    assert torch.equal(images_bchw.grad, seen_bhw[:, None].expand(-1, 3, -1, -1).double())


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
        hide_and_seek(torch.zeros(shape), generator=generator())


def test_parts_of_a_batch_get_the_patches_of_the_whole() -> None:
    images_bchw = torch.rand(6, 3, 56, 56, generator=generator(9))
    whole = hide_and_seek(images_bchw, generator=generator(2))
    parts = [hide_and_seek(images_bchw[a : a + 2], generator=generator(2), first=a, of=6) for a in (0, 2, 4)]
    assert torch.equal(torch.cat(parts), whole)
