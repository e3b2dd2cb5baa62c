"""Geodesic object proposals of an image: masks over superpixels, best first, without any training.

The unsupervised variant, as the paper uses it: seeds are geodesic farthest points, the foreground is a single
superpixel, the background sides of the frame. The learned seeds and masks of the authors' release are left out on
purpose: they are trained on object masks.

Legend: H, W pixels; S superpixels; N seeds; P proposals.

References
----------
Chen and Hsu, "Saliency aware: weakly supervised object localization", ICASSP 2019, section 2.3.
Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, and the authors' release 1.3.
"""

import functools
from dataclasses import dataclass, field

import numpy as np

from pseudo_maps.kernels import Bools, Bytes, Floats, Ints
from pseudo_maps.proposals.boundaries import BoundaryStrength
from pseudo_maps.proposals.detectors import detect_boundaries
from pseudo_maps.proposals.geodesic_config import WEIGHTINGS, ProposalConfig
from pseudo_maps.proposals.geodesic_distances import (
    CostGraph,
    build_cost_graph,
    distances_from_sets,
    farthest_point_seeds,
    geodesic_costs,
)
from pseudo_maps.proposals.level_sets import critical_level_sets, keep_distinct
from pseudo_maps.proposals.region_graph import build_region_graph, region_features, region_geometry
from pseudo_maps.proposals.superpixels import geodesic_superpixels
from pseudo_maps.proposals.weighting import objectness_saliency, uniform_saliency
from pseudo_maps.resampling import fit_working_size

WHOLE_FRAME = 15
"""Background of the seeds' proposals, beside none at all (bit mask: 1 top, 2 bottom, 4 left, 8 right)."""
FRAME_BACKGROUNDS = tuple(range(1, WHOLE_FRAME + 1))
"""Backgrounds of the proposals without a seed: every combination of sides."""
SEED_SIZES = (0.0, 0.75)
FRAME_SIZES = (0.1, 1.0)
"""Smallest and largest proposal as fractions of the number of superpixels, with and without a seed."""
SEED_PROPOSAL_SCORE = np.float32(1e-3)
"""Score of the proposal that is a seed superpixel alone."""


@dataclass(frozen=True)
class Proposals:
    """Object proposals of one image at working size, best first."""

    labels: Ints
    """(H, W) int32: superpixel of every pixel, 0..S-1."""
    masks: Bools
    """(P, S) bool: the superpixels of every proposal; as pixels: ``masks[p][labels]``."""
    scores: Floats
    """(P,) float32, descending: the range of geodesic distance over which the proposal does not change."""
    _region_boxes: Ints = field(repr=False)
    _frame_distance: Floats = field(repr=False)
    _rgb_hwc: Bytes | None = field(repr=False)

    @property
    def boxes_xyxy(self) -> Ints:
        """(P, 4) int32 ``x0, y0, x1, y1`` in working-size pixels, 0-based, inclusive."""
        boxes = self._region_boxes[None]
        inside = self.masks[..., None]
        height, width = self.labels.shape
        low = np.where(inside, boxes[..., :2], (width, height)).min(axis=1)
        high = np.where(inside, boxes[..., 2:], -1).max(axis=1)
        return np.concatenate([low, high], axis=1).astype(np.int32)

    def average(self, *, weighting: str = "uniform") -> Floats:
        """Mean of the proposals, weighted by a key of ``WEIGHTINGS``: saliency (H, W) float32 in 0..1.

        Computed per superpixel and copied to the pixels once; no mask is rasterised. All zero without proposals.
        Source: Chen and Hsu, section 2.3: "averaging a set of object proposals". ValueError for an unknown weighting,
        or one that needs colours when the proposals were made without an image.
        """
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting: expected one of {', '.join(WEIGHTINGS)}, found {weighting!r}")
        if weighting == "uniform":
            saliency = uniform_saliency(self.masks)
        elif self._rgb_hwc is None:
            raise ValueError(f"weighting {weighting!r} needs the image: give it to propose_from_boundaries")
        else:
            regions = region_features(
                self.labels, self._rgb_hwc, boxes_xyxy=self._region_boxes, frame_distance=self._frame_distance
            )
            saliency = objectness_saliency(self.masks, self.scores, regions)
        return saliency[self.labels]


def propose(image_rgb: Bytes, *, config: ProposalConfig, boundary_model: str | None = None) -> Proposals:
    """Geodesic object proposals of one image, at working size.

    Parameters
    ----------
    image_rgb
        (H, W, 3) uint8 RGB, any size from 1x1; shrunk to ``config.working_size`` first.
    config
        See ``PRESETS``.
    boundary_model
        Model file of a detector that needs one.

    Raises
    ------
    ValueError
        Not (H, W, 3) uint8, an empty image, or a detector without its model.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8 or image_rgb.size == 0:
        raise ValueError(
            f"expected a (H, W, 3) uint8 RGB image, found shape {image_rgb.shape} and type {image_rgb.dtype}"
        )
    working = fit_working_size(image_rgb, longest_px=config.working_size)
    boundaries = detect_boundaries(working, detector=config.boundaries, model=boundary_model)
    return propose_from_boundaries(boundaries, config=config, rgb_hwc=working)


def propose_from_boundaries(
    boundaries: BoundaryStrength, *, config: ProposalConfig, rgb_hwc: Bytes | None = None
) -> Proposals:
    """Geodesic object proposals from boundary strengths made by ``config.boundaries`` or by any other detector.

    The image (H, W, 3) uint8 at working size has no influence on the proposals; weightings may need its colours.
    """
    height, width = boundaries.step_x.shape[0], boundaries.step_y.shape[1]
    count = min(config.superpixels, height * width)
    step_x, step_y = boundaries.superpixel_steps(superpixel_count=count)
    labels, region_count = geodesic_superpixels(step_x, step_y, count=count, rounds=config.rounds)
    regions = build_region_graph(labels, region_count=region_count)
    costs = geodesic_costs(boundaries.edge_weights(regions))
    graph = build_cost_graph(regions.edges, costs, region_count=region_count)
    region_boxes, sides = region_geometry(labels, region_count=region_count)
    masks, scores, frame_distance = geodesic_masks(graph, sides, config=config)
    return Proposals(labels, masks, scores, region_boxes, frame_distance, rgb_hwc)


def geodesic_masks(graph: CostGraph, sides: Ints, *, config: ProposalConfig) -> tuple[Bools, Floats, Floats]:
    """Distinct masks (P, S) bool, best first, their scores (P,), and the regions' distances (S,) to the frame.

    ``sides[S]`` are the bit masks of ``region_geometry``.
    """
    region_count = len(sides)
    seeds = farthest_point_seeds(graph, count=config.seeds)
    sources = np.zeros((region_count, len(seeds) + len(FRAME_BACKGROUNDS)), dtype=np.bool_)
    sources[seeds, np.arange(len(seeds))] = True
    sources[:, len(seeds) :] = (sides[:, None] & np.asarray(FRAME_BACKGROUNDS)) != 0
    distances = distances_from_sets(graph, sources)
    from_seeds = np.ascontiguousarray(distances[:, : len(seeds)].T)
    from_frame = np.ascontiguousarray(distances[:, len(seeds) :].T)
    whole_frame = from_frame[FRAME_BACKGROUNDS.index(WHOLE_FRAME)]
    # Order decides ties in the ranking: by seed, then background, then level.
    fields = np.stack([from_seeds, from_seeds - whole_frame], axis=1).reshape(-1, region_count)
    level_sets = functools.partial(critical_level_sets, levels=config.levels, max_iou=config.max_iou)
    groups = [level_sets(fields, min_size=SEED_SIZES[0], max_size=SEED_SIZES[1])]
    if config.seed_proposals:
        singles = np.zeros((len(seeds), region_count), dtype=np.bool_)
        singles[np.arange(len(seeds)), seeds] = True
        groups.append((singles, np.full(len(seeds), SEED_PROPOSAL_SCORE)))
    groups.append(level_sets(-from_frame, min_size=FRAME_SIZES[0], max_size=FRAME_SIZES[1]))
    masks = np.concatenate([group[0] for group in groups])
    scores = np.concatenate([group[1] for group in groups])
    order = np.argsort(-scores, kind="stable")
    kept = order[keep_distinct(masks[order], max_iou=config.max_iou)]
    return masks[kept], scores[kept], whole_frame.copy()
