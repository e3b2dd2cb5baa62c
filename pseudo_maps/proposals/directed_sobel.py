"""Boundary detector directed-sobel: colour differences between neighbouring pixels at three scales; needs no model.

Source: Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, section 3, and the authors' release 1.3.
"""

import numpy as np

from pseudo_maps.kernels import Bytes, Floats, kernel
from pseudo_maps.proposals.boundaries import BoundaryStrength, boundaries_from_step_maps
from pseudo_maps.proposals.filters import rgb_to_luv, tent_filter

SCALES = ((4, 0.25), (8, 0.5), (16, 1.0))
"""Radius in pixels of the tent filter before differentiation, and the weight of that scale."""
CONTRAST_RADIUS = 5
"""Radius in pixels of the neighbourhood that normalises local contrast."""
CONTRAST_FLOOR = np.float32(0.01)


@kernel
def _add_differences(
    smooth0: Floats, smooth1: Floats, smooth2: Floats, weight: np.float32, step_x: Floats, step_y: Floats
) -> None:
    """Add the weighted colour distance of neighbouring pixels to both step maps; one (H, W) map for each channel."""
    height, width = smooth0.shape
    for y in range(height):
        for x in range(width - 1):
            d0 = smooth0[y, x + 1] - smooth0[y, x]
            d1 = smooth1[y, x + 1] - smooth1[y, x]
            d2 = smooth2[y, x + 1] - smooth2[y, x]
            step_x[y, x] += weight * np.sqrt(d0 * d0 + d1 * d1 + d2 * d2)
    for y in range(height - 1):
        for x in range(width):
            d0 = smooth0[y + 1, x] - smooth0[y, x]
            d1 = smooth1[y + 1, x] - smooth1[y, x]
            d2 = smooth2[y + 1, x] - smooth2[y, x]
            step_y[y, x] += weight * np.sqrt(d0 * d0 + d1 * d1 + d2 * d2)


def _normalise_contrast(step_x: Floats, step_y: Floats) -> None:
    """Divide both maps, in place, by the local contrast and then by their common maximum."""
    strongest = np.zeros((step_x.shape[0], step_y.shape[1]), dtype=np.float32)
    for pixels, steps in (
        (strongest[:, :-1], step_x),
        (strongest[:, 1:], step_x),
        (strongest[:-1], step_y),
        (strongest[1:], step_y),
    ):
        np.maximum(pixels, steps, out=pixels)
    contrast = tent_filter(strongest * strongest, radius=CONTRAST_RADIUS)
    np.sqrt(contrast, out=contrast)
    contrast += CONTRAST_FLOOR
    step_x /= np.maximum(contrast[:, :-1], contrast[:, 1:])
    step_y /= np.maximum(contrast[:-1], contrast[1:])
    largest = max(step_x.max(initial=0), step_y.max(initial=0))
    if largest > 0:
        step_x /= largest
        step_y /= largest


def directed_sobel(rgb_hwc: Bytes) -> BoundaryStrength:
    """Boundary strengths of a (H, W, 3) uint8 RGB image from colour differences at three scales.

    At each scale the Luv image is smoothed and differentiated between neighbouring pixels; the weighted sum is
    divided by the local contrast and scaled to a maximum of 1. The finest scale alone gives the step costs of the
    superpixels, the sum the weights of their edges. A uniform image gives zeros.
    """
    return directed_sobel_of_luv(rgb_to_luv(rgb_hwc))


def directed_sobel_of_luv(luv_chw: Floats) -> BoundaryStrength:
    """The same from the (3, H, W) float32 image that ``rgb_to_luv`` returns."""
    _, height, width = luv_chw.shape
    step_x = np.zeros((height, width - 1), dtype=np.float32)
    step_y = np.zeros((height - 1, width), dtype=np.float32)
    fine_x, fine_y = step_x, step_y
    for scale, (radius, weight) in enumerate(SCALES):
        smooth = [tent_filter(channel_hw, radius=radius) for channel_hw in luv_chw]
        _add_differences(smooth[0], smooth[1], smooth[2], np.float32(weight), step_x, step_y)
        if scale == 0:
            fine_x, fine_y = step_x.copy(), step_y.copy()
    _normalise_contrast(fine_x, fine_y)
    _normalise_contrast(step_x, step_y)
    return boundaries_from_step_maps((step_x, step_y), (fine_x, fine_y))
