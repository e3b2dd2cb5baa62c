"""Hide-and-Seek, the paper's second baseline: random patches of training images are hidden.

Shapes: B images of a batch, H W pixels, P Q patches (rows, columns) of the finest grid.

Source: Singh and Lee, "Hide-and-Seek", ICCV 2017, reference [10] of the paper. Only training images are hidden;
a network is evaluated on whole ones.
"""

import torch
from torch import Tensor

from training.networks.normalisation import IMAGENET_MEAN

PATCH_SIDES_PX = (0, 16, 32, 44, 56)
"""Sides of a patch in pixels of a 224-pixel image, one drawn per image; 0 leaves the image whole ([10])."""
HIDE_PROBABILITY = 0.5
"""Probability of each patch to be hidden ([10])."""
REFERENCE_SIDE_PX = 224
"""Side of the images that ``PATCH_SIDES_PX`` refers to."""


def hide_and_seek(
    images01_bchw: Tensor, *, generator: torch.Generator, first: int = 0, of: int | None = None
) -> Tensor:
    """Images (B, 3, H, W) floating point RGB in 0..1 with random patches in the mean colour of ImageNet; a new tensor.

    The images are those from ``first`` on of a batch ``of`` so many (None: of these alone), and get the patches that
    they get when the whole batch is given. The same state of the CPU ``generator`` gives the same patches on every
    device. ValueError for images of another shape, or a generator of another device.
    """
    if images01_bchw.ndim != 4 or images01_bchw.shape[1] != len(IMAGENET_MEAN):
        raise ValueError(f"images have shape {tuple(images01_bchw.shape)}, expected (B, 3, H, W)")
    batch, _, height, width = images01_bchw.shape
    hidden_bhw = draw_hidden_patches(
        batch, height=height, width=width, generator=generator, device=images01_bchw.device, first=first, of=of
    )
    # The mean keeps the expected input of the first layer the same as on whole images ([10]).
    mean_c11 = _to_device(torch.tensor(IMAGENET_MEAN, dtype=images01_bchw.dtype), images01_bchw.device)[:, None, None]
    return torch.where(hidden_bhw[:, None], mean_c11, images01_bchw)


def draw_hidden_patches(
    batch: int,
    *,
    height: int,
    width: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    first: int = 0,
    of: int | None = None,
) -> Tensor:
    """(B, H, W) bool on ``device``: which pixels of B images are hidden; ValueError unless the generator is on the CPU.

    The images are those from ``first`` on of ``of``, for all of which is drawn.

    Patches start at the top left; those at the right and bottom edges may be cut. Sides are relative: H pixels high, a
    patch of side s is ``max(1, round(s H / 224))`` high, and likewise for the width, so an image of any size shows as
    many patches as one of 224 pixels. The generator advances by the same number of draws whatever sides come up.
    """
    if generator.device.type != "cpu":
        raise ValueError(f"the generator is on {generator.device}, expected cpu: draws must not depend on the device")
    heights_s, widths_s = _patch_sides(height), _patch_sides(width)
    finest_pq = (-(-height // int(heights_s.min())), -(-width // int(widths_s.min())))
    count = batch if of is None else of
    choice_b = torch.randint(len(PATCH_SIDES_PX), (count,), generator=generator)[first : first + batch]
    drawn_bpq = torch.rand((count, *finest_pq), generator=generator)[first : first + batch] < HIDE_PROBABILITY
    drawn_bpq &= (torch.tensor(PATCH_SIDES_PX)[choice_b] > 0)[:, None, None]

    row_bh = _to_device(torch.arange(height) // heights_s[choice_b, None], device)
    column_bw = _to_device(torch.arange(width) // widths_s[choice_b, None], device)
    image_b11 = torch.arange(batch, device=device)[:, None, None]
    hidden_bhw: Tensor = _to_device(drawn_bpq, device)[image_b11, row_bh[:, :, None], column_bw[:, None, :]]
    return hidden_bhw


def _to_device(drawn: Tensor, device: torch.device | str) -> Tensor:
    # From memory that is not pinned the copy would wait for all that a GPU has been given to do.
    pinned = drawn.pin_memory() if torch.device(device).type == "cuda" else drawn
    return pinned.to(device, non_blocking=True)


def _patch_sides(length_px: int) -> Tensor:
    """(5,) int64 sides in pixels along an image side; the side 0 stands as the whole length, one patch."""
    scaled = [max(1, round(side * length_px / REFERENCE_SIDE_PX)) if side else length_px for side in PATCH_SIDES_PX]
    return torch.tensor(scaled)
