"""Views of a squashed image: cutting them out, and merging their maps into one map of the whole image.

Shapes: B batch, R side in pixels of the images given, s side in pixels of a view, h w rows and columns of a map.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from training.inference.config import View


def show(images01_bchw: Tensor, view: View) -> Tensor:
    """(B, 3, s, s) of the same dtype: the view cut out of ``images01[B, 3, R, R]``; bilinear, antialiased."""
    window = images01_bchw[:, :, view.top : view.top + view.window_px, view.left : view.left + view.window_px]
    if view.shown_px != view.window_px:
        size = (view.shown_px, view.shown_px)
        window = functional.interpolate(window, size=size, mode="bilinear", align_corners=False, antialias=True)
    return window.flip(3) if view.mirrored else window


def merge_maps(maps_bhw: Sequence[Tensor], views: Sequence[View], *, side_px: int) -> Tensor:
    """One map of the whole image, of side R = ``side_px``, from the maps (B, h, w) of its views, in the same order.

    Whole images: mean of the maps, mirrored back and brought to the size of the largest by bilinear interpolation
    (pixel centres aligned). A single view's map comes back unchanged. Crops: (B, R, R), sum of the absolute values of
    the maps, each mirrored back, brought to the size of its window by cubic interpolation and added where the window
    was (``mergeTenCrop.m`` of the CAM release), so a pixel in the middle is counted more often than one in a corner.
    ValueError for not one map for each view, or crops and whole images together.
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
