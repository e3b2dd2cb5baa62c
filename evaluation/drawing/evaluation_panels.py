"""Turns a few evenly spread images of an evaluation into a picture: ground truth, baseline, and every localizer's box.

The images are spread over the data set and never chosen by how well they went. A file beside the picture says what
stands where, so that a report can put the same image of several evaluations side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.boxes.overlaps import NO_BOX
from evaluation.boxes.wsoleval import normalise_score_map
from evaluation.drawing.overlays import save_png
from evaluation.drawing.panel_grids import PanelGrid, PanelGridRow, write_grid
from evaluation.drawing.panels import PanelPrediction, PanelRow, localization_panels
from evaluation.image_scores import ImageScores, Pair, is_skipped
from evaluation.images import EvaluationImage
from evaluation.metrics.baselines import centred_gaussian_map
from evaluation.scoring import ImageMaps
from pseudo_maps.images import ImageDecodeError, decode_image

__all__ = ["PANELS_FILE", "draw_panels", "panel_indexes"]

PANELS_FILE = "panels/examples.png"

_BASELINE = "centred-gaussian"


def panel_indexes(images: Sequence[EvaluationImage], *, count: int) -> list[int]:
    """Indexes of ``count`` images with boxes, evenly spread; fewer when there are fewer."""
    usable = [image.index for image in images if len(image.boxes_xyxy) and not image.blacklisted]
    if not usable or count < 1:
        return []
    return [usable[position] for position in np.unique(np.linspace(0, len(usable) - 1, count).astype(int))]


def draw_panels(
    path: Path,
    scored: Sequence[ImageScores],
    images: Sequence[EvaluationImage],
    *,
    maps_of: Callable[[EvaluationImage], ImageMaps],
    root: Path,
    localizers: Sequence[str],
    protocol: str,
    levels: Mapping[Pair, int],
) -> None:
    """Write the picture, and what stands where in it beside it; images that cannot be read are left out.

    Parameters
    ----------
    path
        PNG file to write.
    scored
        Results of the images shown.
    images
        All images, by index.
    maps_of
        Gives the maps of one image again.
    root
        Data root.
    localizers
        One column each.
    protocol
        The protocol whose boxes are drawn; it must show the whole image.
    levels
        Threshold level of each localizer and protocol.
    """
    rows = []
    described = []
    for scores in scored:
        image = images[scores.index]
        if is_skipped(scores.status) or (_BASELINE, protocol) not in scores.iou:
            continue
        try:
            picture = decode_image(root / image.record.path).rgb_hwc
        except (ImageDecodeError, OSError):
            continue
        maps = maps_of(image)
        shown = {_BASELINE: centred_gaussian_map(), **maps.whole}
        predictions = []
        for localizer in (_BASELINE, *localizers):
            pair = (localizer, protocol)
            if pair not in scores.iou or localizer not in shown:
                predictions.append(PanelPrediction(map_hw=None, box_xyxy=None, caption=scores.status))
                continue
            level = levels[pair]
            box = scores.boxes[pair][level]
            predictions.append(
                PanelPrediction(
                    map_hw=normalise_score_map(shown[localizer]),
                    box_xyxy=None if tuple(box) == NO_BOX else box,
                    caption="no box" if tuple(box) == NO_BOX else f"IoU {scores.iou[pair][level]:.2f}",
                )
            )
        rows.append(
            PanelRow(
                image_rgb=picture,
                ground_truth_b4=scores.ground_truth[protocol],
                predictions=predictions,
                caption=f"{image.record.wnid} {image.record.image_id}".strip(),
            )
        )
        captions = tuple(prediction.caption for prediction in predictions)
        described.append(PanelGridRow(caption=rows[-1].caption, captions=captions))
    if rows:
        shown_localizers = (_BASELINE, *localizers)
        headings = [f"{localizer} under {protocol}" for localizer in shown_localizers]
        save_png(path, localization_panels(rows, columns=headings))
        write_grid(path, PanelGrid(protocol=protocol, baselines=1, localizers=shown_localizers, rows=tuple(described)))
