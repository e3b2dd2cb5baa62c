"""Localizers and views of a trained network at test time. Imports no torch."""

from dataclasses import dataclass
from typing import NamedTuple

from training.networks.registry import MIN_IMAGE_SIDE_PX

LOCALIZERS = {
    "cam": "class activation map: feature maps weighted by the class weights, neither clipped nor scaled",
    "grad-cam": "Grad-CAM at the encoder's features: positive part of the gradient-weighted sum",
    "saliency": "the decoder's map, the same for all classes",
    "cam*saliency": "class activation map, clipped at 0 and divided by its maximum, times the decoder's map",
}
"""Name and meaning of every map that a network gives."""

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
        """The views of an image of side R, for a network with this input; ValueError for a view that is too small.

        Scales in the order given, each followed by its mirror image; or the ten crops: upper left, lower left, upper
        right, lower right and centre, then their mirror images.
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
