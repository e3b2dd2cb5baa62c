"""Turns one squashed image into several views of it, and the maps of the views into one map of the whole image.

Shapes: B batch, R side in pixels of the images given, s side in pixels of a view, h w rows and columns of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from training.networks.registry import MIN_IMAGE_SIDE_PX

__all__ = ["TEN_CROP_RATIO", "View", "Views", "merge_maps", "show"]

TEN_CROP_RATIO = 256 / 224
"""Side of the whole image over side of a crop: ``IMAGE_DIM`` and ``CROPPED_DIM`` of ``prepare_image.m`` in the CAM
release (Zhou et al., CVPR 2016), which squashes the whole image to 256x256 before cutting."""

LARGEST_SCALE = 4.0
"""A larger factor costs more than 16 times the passes of the image itself and is taken for a typing error."""


class View(NamedTuple):
    """A square window of the squashed image, and how a network sees it."""

    top: int
    """Uppermost row of the window in pixels of the image given."""
    left: int
    """Leftmost column of the window in pixels of the image given."""
    window_px: int
    """Side of the window; R where the view shows the whole image."""
    shown_px: int
    """Side s that the window is resized to."""
    mirrored: bool
    """Whether left and right are exchanged after cutting."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Which views of an image are looked at; ValueError for values without a meaning.

    The default is one view: the whole image squashed to the side of the network's input.
    """

    scales: tuple[float, ...] = (1.0,)
    """The whole image at these multiples of the side of the network's input, such as 0.75, 1 and 1.25."""
    flip: bool = False
    """Each scale once more with left and right exchanged."""
    ten_crop: bool = False
    """Four corners, the centre and their mirror images, cut from the whole image at 256/224 of the side of the
    network's input. Excludes ``scales`` and ``flip``."""

    def __post_init__(self) -> None:
        if not self.scales or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales {self.scales}, expected at least one, each once")
        if not all(0 < scale <= LARGEST_SCALE for scale in self.scales):
            raise ValueError(f"scales {self.scales}, expected 0 < scale <= {LARGEST_SCALE:g}")
        if self.ten_crop and (self.flip or self.scales != (1.0,)):
            raise ValueError(
                "ten crops have their own scale and mirror images: leave scales and flip at their defaults"
            )

    def image_side_px(self, input_size_px: int) -> int:
        """Side R in pixels that the whole image has to be squashed to for a network with this input."""
        if self.ten_crop:
            return round(input_size_px * TEN_CROP_RATIO)
        return max(round(input_size_px * scale) for scale in self.scales)

    def plan(self, input_size_px: int) -> tuple[View, ...]:
        """The views of an image of side R, for a network with this input.

        Returns
        -------
        tuple of View
            Scales in the order given, each followed by its mirror image; or the ten crops: upper left, lower left,
            upper right, lower right and centre, then their mirror images.

        Raises
        ------
        ValueError
            A view would be smaller than any network accepts.
        """
        side_px = self.image_side_px(input_size_px)
        if self.ten_crop:
            last, middle = side_px - input_size_px, (side_px - input_size_px) // 2
            corners = [(top, left) for left in (0, last) for top in (0, last)]
            views = [
                View(top, left, input_size_px, input_size_px, mirrored)
                for mirrored in (False, True)
                for top, left in [*corners, (middle, middle)]
            ]
        else:
            views = [
                View(0, 0, side_px, round(input_size_px * scale), mirrored)
                for scale in self.scales
                for mirrored in ((False, True) if self.flip else (False,))
            ]
        smallest = min(view.shown_px for view in views)
        if smallest < MIN_IMAGE_SIDE_PX:
            raise ValueError(
                f"a view of {smallest} pixels (scales {self.scales} of {input_size_px}), "
                f"expected at least {MIN_IMAGE_SIDE_PX}: leave out small scales"
            )
        return tuple(views)

    def describe(self) -> str:
        """One sentence for a report."""
        if self.ten_crop:
            return "ten crops at 256/224 of the input, sum of absolute maps, mean of softmax"
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        mirrored = " and mirror images" if self.flip else ""
        if len(self.scales) == 1 and not self.flip:
            return "whole image squashed" if self.scales == (1.0,) else f"whole image squashed at {scales} of the input"
        return f"whole image squashed at {scales} of the input{mirrored}, mean of maps, mean of softmax"


def show(images01_bchw: Tensor, view: View) -> Tensor:
    """Cut a view out of images.

    Parameters
    ----------
    images01_bchw
        (B, 3, R, R) floating point, whole images.
    view
        What to cut out; resizing is bilinear and antialiased, as the loader's.

    Returns
    -------
    Tensor
        (B, 3, s, s), of the same dtype; the images themselves where nothing is to be done.
    """
    window = images01_bchw[:, :, view.top : view.top + view.window_px, view.left : view.left + view.window_px]
    if view.shown_px != view.window_px:
        size = (view.shown_px, view.shown_px)
        window = functional.interpolate(window, size=size, mode="bilinear", align_corners=False, antialias=True)
    return window.flip(3) if view.mirrored else window


def merge_maps(maps_bhw: Sequence[Tensor], views: Sequence[View], *, side_px: int) -> Tensor:
    """One map of the whole image from the maps of its views.

    Parameters
    ----------
    maps_bhw
        For each view a map (B, h, w), rows and columns spread evenly over the view.
    views
        The views, in the same order.
    side_px
        Side R of the whole image.

    Returns
    -------
    Tensor
        Whole images: mean of the maps, mirrored back and brought to the size of the largest by bilinear
        interpolation (pixel centres aligned). A single view's map comes back unchanged. Crops: (B, R, R), sum of the
        absolute values of the maps, each mirrored back, brought to the size of its window by cubic interpolation and
        laid where the window was, so a pixel in the middle is counted more often than one in a corner.

    Raises
    ------
    ValueError
        Not one map for each view, or crops and whole images together.

    Notes
    -----
    The maps of several scales are averaged as they are, as multi-scale maps usually are (Ahn et al., "Weakly
    supervised learning of instance segmentation with inter-pixel relations", CVPR 2019, whose maps are clipped at 0
    first): a common size of the values is lost if each is divided by its own maximum. The sum over crops is
    ``mergeTenCrop.m`` of the CAM release; its cubic kernel (a = -1/2) is that of the antialiased one here.
    """
    if len(maps_bhw) != len(views) or not views:
        raise ValueError(f"{len(maps_bhw)} maps of {len(views)} views, expected one map for each of at least one view")
    upright = [part.flip(2) if view.mirrored else part for part, view in zip(maps_bhw, views, strict=True)]
    whole = {view.window_px == side_px for view in views}
    if len(whole) != 1:
        raise ValueError("views of the whole image and crops of it, expected only one of the two")
    if True in whole:
        return _mean(upright)
    frame_bhw = upright[0].new_zeros((len(upright[0]), side_px, side_px))
    for part, view in zip(upright, views, strict=True):
        size = (view.window_px, view.window_px)
        window = functional.interpolate(part[:, None], size=size, mode="bicubic", align_corners=False, antialias=True)
        rows, columns = slice(view.top, view.top + view.window_px), slice(view.left, view.left + view.window_px)
        frame_bhw[:, rows, columns] += window[:, 0].abs()
    return frame_bhw


def _mean(maps_bhw: Sequence[Tensor]) -> Tensor:
    if len(maps_bhw) == 1:
        return maps_bhw[0]
    height, width = max(part.shape[1] for part in maps_bhw), max(part.shape[2] for part in maps_bhw)
    total = maps_bhw[0].new_zeros((len(maps_bhw[0]), height, width))
    for part in maps_bhw:
        same = part.shape[1:] == (height, width)
        total += part if same else _enlarge(part, (height, width))
    return total / len(maps_bhw)


def _enlarge(maps_bhw: Tensor, size: tuple[int, int]) -> Tensor:
    enlarged = functional.interpolate(maps_bhw[:, None], size=size, mode="bilinear", align_corners=False)
    return enlarged[:, 0]
