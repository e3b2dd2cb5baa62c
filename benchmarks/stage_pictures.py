"""Draws the stages of a saliency map for six photographs: boundaries, superpixels, proposals, and the map itself.

    python benchmarks/stage_pictures.py --out docs/pictures/stages.jpg

One row a photograph (scikit-image's bundled ones, or the files named), one column a stage: image; weight of the edges
between superpixels (black: strongest); superpixels; the four best proposals that overlap each other by less than half;
uniform mean; objectness.
"""

import dataclasses
from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt
import skimage

from evaluation.drawing.overlays import overlay_heat
from pseudo_maps.images import decode_image
from pseudo_maps.proposals import PRESETS, Proposals, propose_from_boundaries
from pseudo_maps.proposals.detectors import DETECTORS, detect_boundaries
from pseudo_maps.proposals.region_graph import build_region_graph
from pseudo_maps.resampling import fit_working_size
from pseudo_maps.shards import quantise_map

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
)
PROPOSAL_RGB = ((255, 96, 32), (64, 200, 64), (64, 128, 255), (240, 220, 48))
MOST_OVERLAP = 0.5
CELL_WH = (240, 180)
GAP_PX = 4
JPEG_QUALITY = 88

Picture = npt.NDArray[np.uint8]


def edge_picture(proposals: Proposals, weights_e: npt.NDArray[np.float32], edges: npt.NDArray[np.int32]) -> Picture:
    """Superpixel borders, the darker the stronger the edge between the two superpixels."""
    labels = proposals.labels
    strength = np.zeros(labels.shape, dtype=np.float32)
    regions = int(labels.max()) + 1
    of_pair = {int(low) * regions + int(high): weight for (low, high), weight in zip(edges, weights_e, strict=True)}
    for shift_y, shift_x in ((0, 1), (1, 0)):
        one = labels[: labels.shape[0] - shift_y, : labels.shape[1] - shift_x].astype(np.int64)
        other = labels[shift_y:, shift_x:].astype(np.int64)
        for y, x in zip(*np.nonzero(one != other), strict=True):
            low, high = sorted((int(one[y, x]), int(other[y, x])))
            strength[y, x] = max(strength[y, x], of_pair[low * regions + high])
    thick = cv2.dilate(strength, np.ones((2, 2), dtype=np.uint8))
    grey = (255 * (1 - thick / max(float(thick.max()), 1e-6))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def superpixel_picture(image: Picture, labels: npt.NDArray[np.int32]) -> Picture:
    """Every superpixel in its mean colour."""
    flat = labels.ravel()
    counts = np.bincount(flat)
    means = np.stack([np.bincount(flat, weights=image[..., channel].ravel()) / counts for channel in range(3)], axis=1)
    return np.rint(means).astype(np.uint8)[labels]


def proposal_picture(image: Picture, proposals: Proposals) -> Picture:
    """Outlines of the best proposals that differ."""
    areas = np.bincount(proposals.labels.ravel(), minlength=proposals.masks.shape[1])
    chosen: list[npt.NDArray[np.bool_]] = []
    for mask in proposals.masks:
        # Single superpixels are proposals too, but nothing to look at.
        if mask.sum() > 3 and all(
            areas[mask & other].sum() <= MOST_OVERLAP * areas[mask | other].sum() for other in chosen
        ):
            chosen.append(mask)
        if len(chosen) == len(PROPOSAL_RGB):
            break
    drawn = image.copy()
    for mask, colour in zip(chosen, PROPOSAL_RGB, strict=False):
        pixels = mask[proposals.labels].astype(np.uint8)
        contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, colour, 3)
    return drawn


def row_of(path: Path, *, boundaries: str) -> Picture:
    """All stages of one photograph side by side."""
    config = dataclasses.replace(PRESETS["b1100"], boundaries=boundaries)
    image = fit_working_size(decode_image(path).rgb_hwc, longest_px=config.working_size)
    strength = detect_boundaries(image, detector=boundaries)
    proposals = propose_from_boundaries(strength, config=config, rgb_hwc=image)
    graph = build_region_graph(proposals.labels, region_count=proposals.masks.shape[1])
    maps = [quantise_map(proposals.average(weighting=weighting))[0] for weighting in ("uniform", "objectness")]
    cells = [
        image,
        edge_picture(proposals, strength.edge_weights(graph), graph.edges),
        superpixel_picture(image, proposals.labels),
        proposal_picture(image, proposals),
        *(overlay_heat(image, map_hw) for map_hw in maps),
    ]
    gap = np.full((CELL_WH[1], GAP_PX, 3), 255, dtype=np.uint8)
    parts = [part for cell in cells for part in (cv2.resize(cell, CELL_WH, interpolation=cv2.INTER_AREA), gap)]
    return np.hstack(parts[:-1])


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--boundaries",
    type=click.Choice([name for name, row in DETECTORS.items() if not row.needs_model]),
    default="spectral-contrast",
)
@click.argument("images", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(out: Path, boundaries: str, images: tuple[Path, ...]) -> None:
    bundled = Path(skimage.__file__).parent / "data"
    rows = [row_of(path, boundaries=boundaries) for path in images or [bundled / name for name in PHOTOGRAPHS]]
    gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, dtype=np.uint8)
    sheet = np.vstack([part for row in rows for part in (row, gap)][:-1])
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), np.ascontiguousarray(sheet[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        raise OSError(f"{out}: not written; expected a name ending in .jpg or .png")


if __name__ == "__main__":
    main()
