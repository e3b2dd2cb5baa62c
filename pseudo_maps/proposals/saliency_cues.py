"""Turns the weighted mean of proposals into saliency, with what colours and the frame say of every superpixel.

The mean of proposals knows shapes but not that two regions look alike. Three measures by superpixel add that.

Legend: S superpixels.

References
----------
Zhang, Sclaroff, Lin, Shen, Price and Mech, "Minimum barrier salient object detection at 80 FPS", ICCV 2015, section 4
(contrast to the four sides of the frame).
Wei, Wen, Zhu and Sun, "Geodesic saliency using background priors", ECCV 2012 (distance to the frame).
Tatler, "The central fixation bias in scene viewing", Journal of Vision 2007.
"""

import numpy as np

from pseudo_maps.kernels import Doubles
from pseudo_maps.proposals.region_features import RegionFeatures

__all__ = ["colour_share", "combined_saliency", "frame_contrast", "stretched"]


FRAME_CUE_SHARE = 0.5
"""Weight of the two measures against the frame, together as much as one of the two others: both are wrong where the
object touches the frame."""
CENTRE_SIGMA = 0.4
"""Standard deviation, in sides of the frame, of the Gaussian that the saliency is multiplied by: .46 in the middle of a
side and .21 in a corner, so a clear object there still stands out."""
COLOUR_LEVELS = 4
"""Levels of each Luv channel by the image's own quantiles: 64 colours for 1,000 superpixels, 16 regions a colour."""
COLOUR_NOISE = 0.01
"""Standard deviation added to the colours along a side of the frame (Luv in about 0..1), so that a flat side does not
make every colour infinitely different."""


def stretched(values: Doubles) -> Doubles:
    """``values[S]`` moved and scaled to 0..1; all zero when they are equal."""
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros_like(values)
    scaled: Doubles = (values - low) / (high - low)
    return scaled


def frame_contrast(regions: RegionFeatures) -> Doubles:
    """How little each superpixel's colour looks like the sides of the frame, (S,) float64 in 0..1.

    For each side the Mahalanobis distance to the colours along it, divided by the largest; then the sum over the sides
    without the largest term, so that an object that covers one side does not count as background.
    """
    luv = regions.luv.astype(np.float64)
    distances = np.empty((4, len(luv)))
    for side in range(4):
        shares = regions.side_px[:, side] / regions.side_px[:, side].sum()
        centred = luv - shares @ luv
        covariance = (centred * shares[:, None]).T @ centred + COLOUR_NOISE**2 * np.eye(3)
        squared = (centred @ np.linalg.inv(covariance) * centred).sum(axis=1)
        distance = np.sqrt(np.maximum(squared, 0))
        distances[side] = distance / max(distance.max(), np.finfo(np.float64).tiny)
    return stretched(distances.sum(axis=0) - distances.max(axis=0))


def colour_share(saliency: Doubles, regions: RegionFeatures) -> Doubles:
    """Mean of ``saliency[S]`` over all pixels of about the same colour, (S,) float64 in its range.

    Where it is the share of foreground, this is Bayes' probability of foreground given the colour.
    """
    colour = np.zeros(len(saliency), dtype=np.int64)
    ranks = np.arange(1, COLOUR_LEVELS) * len(saliency) // COLOUR_LEVELS
    for channel in regions.luv.T:
        # Equal colours stay together, however many there are.
        colour = COLOUR_LEVELS * colour + np.searchsorted(np.sort(channel)[ranks], channel, side="right")
    pixels = np.bincount(colour, weights=regions.area_px)
    salient = np.bincount(colour, weights=regions.area_px * saliency)
    shares: Doubles = salient[colour] / pixels[colour]
    return shares


def combined_saliency(proposal_mean: Doubles, regions: RegionFeatures) -> Doubles:
    """Saliency (S,) float64 in 0..1 from the weighted mean of the proposals ``proposal_mean[S]``.

    The mean, the colour's share of it, and half each the contrast and the geodesic distance to the frame, all stretched
    to 0..1 and added; then a Gaussian round the middle of the frame.
    """
    mean = stretched(proposal_mean)
    against_frame = frame_contrast(regions) + stretched(regions.frame_distance.astype(np.float64))
    total = stretched(mean + stretched(colour_share(mean, regions)) + FRAME_CUE_SHARE * against_frame)
    off_centre = ((regions.centre_xy - 0.5) ** 2).sum(axis=1)
    saliency: Doubles = total * np.exp(-off_centre / (2 * CENTRE_SIGMA**2))
    return saliency
