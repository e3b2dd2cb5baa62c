"""Prediction for any images by a trained network: classes, box and overlay, one PNG per image and one JSON file.

Boxes in the JSON are ``x0, y0, x1, y1``, 0-based inclusive pixels of the image file.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.wsoleval import normalise_score_map
from evaluation.drawing.overlays import PREDICTED_RGB, draw_boxes, overlay_heat, save_picture
from evaluation.image_scores import TOP_CLASSES
from evaluation.protocols import get_protocol
from pipelines.datasets.folders import describe_unread, walk_images
from pseudo_maps.files import write_atomically
from pseudo_maps.images import decode_image
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord
from training.class_names import NO_NAMES, ClassNames, check_class_names
from training.inference.images import EvaluationPixels
from training.inference.localizers import NetworkLocalizer, load_for_inference

PREDICTIONS_FILE = "predictions.json"


def predict_images(
    checkpoint: Path,
    images: Sequence[Path],
    *,
    out: Path,
    localizer: str,
    protocol: str,
    label: int | None,
    class_names: Path | None,
    device: str,
    say: Callable[[str], None],
) -> int:
    """Write ``<name>.png`` for every image and ``predictions.json`` for all of them; count the images that failed.

    ``images`` are files, and folders that are searched and whose subfolders are kept in ``out``. ``label`` is the class
    to localize, None the predicted one; ``class_names`` a file with one name per line, None the names in the
    checkpoint. ``say`` is called with one line per image.

    CheckpointError for a checkpoint that does not read; ValueError, before anything is written, when no image is found,
    two would share a picture, a picture would replace an image, or label or class names do not fit.
    """
    model = load_for_inference(checkpoint, device=device)
    if label is not None and label >= model.classes:
        raise ValueError(f"class {label}: the network has {model.classes} classes, expected 0 to {model.classes - 1}")
    names = (
        model.class_names
        if class_names is None
        else read_class_names(class_names, classes=model.classes, trained=model.names)
    )
    look = NetworkLocalizer(model, localizers=[localizer])
    entries, failed = [], 0
    pictures = _pictures(images, out=out, say=say)
    out.mkdir(parents=True, exist_ok=True)
    for picture, path in pictures.items():
        entry: dict[str, Any] = {"image": str(path)}
        batch = EvaluationPixels(
            [ImageRecord(image_id=path.name, path=path.name)], root=path.parent, side_px=look.image_side_px
        )[0]
        if batch.unreadable:
            entry["error"] = batch.unreadable[0]
        else:
            entry |= _predict(path, batch.images_bchw, look, model.device, localizer, protocol, label, names, picture)
        if "error" in entry:
            failed += 1
            say(f"{path}: {entry['error']}")
        else:
            entry["overlay"] = picture.relative_to(out).as_posix()
            best = entry["classes"][0]
            say(f"{path}: {best['name'] or best['label']} ({best['probability']:.2f}), box {entry['box_xyxy']}")
        entries.append(entry)
    described = {
        "network": {"arch": model.arch, "step": model.step, "weights": model.digest},
        "localizer": localizer,
        "protocol": protocol,
        "images": entries,
    }
    text = json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(out / PREDICTIONS_FILE, text.encode("utf-8", errors="replace"))
    return failed


def read_class_names(path: Path, *, classes: int, trained: ClassNames = NO_NAMES) -> list[str]:
    """Names of all classes from a file with one name per line, in label order.

    ValueError for another number, and for a name that the checkpoint has at another place.
    """
    names = path.read_text(encoding="utf-8-sig").splitlines()
    if len(names) != classes:
        raise ValueError(f"{path}: {len(names)} lines, expected the names of {classes} classes, one per line")
    check_class_names(names, trained, source=path)
    return names


def _pictures(images: Sequence[Path], *, out: Path, say: Callable[[str], None]) -> dict[Path, Path]:
    """Image by the picture that it becomes, checked as a whole before the first is written."""
    unread: list[str] = []
    pictures: dict[Path, Path] = {}
    found: list[tuple[Path, Path]] = []
    for path in images:
        inside = sorted(walk_images(path, unread=unread)) if path.is_dir() else []
        found += [(path / name, Path(name)) for name in inside] if path.is_dir() else [(path, Path(path.name))]
    for path, relative in found:
        picture = out / relative.with_suffix(".png")
        if picture in pictures:
            raise ValueError(f"{path} and {pictures[picture]} would both become {picture}: predict them apart")
        pictures[picture] = path
    if unread and pictures:
        say(describe_unread(unread))
    if not pictures:
        where = ", ".join(str(path) for path in images)
        raise ValueError(f"no image in {where}{describe_unread(unread, before='; ')}")
    sources = {path.resolve() for path in pictures.values()}
    replaced = next((picture for picture in pictures if picture.resolve() in sources), None)
    if replaced is not None:
        raise ValueError(f"--out {out}: the picture {replaced} would replace an image: give another folder")
    return pictures


def _predict(
    path: Path,
    image_1chw: torch.Tensor,
    look: NetworkLocalizer,
    device: torch.device,
    localizer: str,
    protocol: str,
    label: int | None,
    names: Sequence[str],
    picture: Path,
) -> dict[str, Any]:
    """What the JSON says of one image; draws its picture."""
    seen = look(image_1chw.to(device), torch.tensor([UNKNOWN_LABEL if label is None else label]))
    scores_k = seen.scores_bk[0].cpu().numpy()
    if not np.isfinite(scores_k).all():
        return {"error": "the network gives class scores that are NaN or infinite"}
    probabilities_k = seen.probabilities_bk[0].double().cpu().numpy()
    best = np.argsort(-scores_k, kind="stable")[:TOP_CLASSES]
    map_hw = seen.maps[localizer][0].cpu().numpy()
    rgb_hwc = decode_image(path).rgb_hwc
    height, width = rgb_hwc.shape[:2]
    boxes_n4 = get_protocol(protocol).candidates(map_hw).boxes_n4
    box = None
    if len(boxes_n4):
        # Edges of the box's pixels, not their centres, so that a box of the whole frame is the whole image.
        edges = (boxes_n4[0] + np.array([0, 0, 1, 1])) * np.array([width, height, width, height]) / FRAME_PX
        box = np.clip(edges - np.array([0, 0, 1, 1]), 0, np.array([width, height, width, height]) - 1)
        # In an image smaller than the frame a box may be thinner than a pixel.
        box[2:] = np.maximum(box[:2], box[2:])
    heat_hw = cv2.resize(normalise_score_map(map_hw), (width, height), interpolation=cv2.INTER_LINEAR)
    shown = overlay_heat(rgb_hwc, np.ascontiguousarray(heat_hw))
    save_picture(picture, draw_boxes(shown, np.zeros((0, 4)) if box is None else box[None], colour=PREDICTED_RGB))
    return {
        "width": width,
        "height": height,
        "classes": [
            {
                "label": int(index),
                "name": names[index] if names else "",
                "probability": round(float(probabilities_k[index]), 6),
            }
            for index in best
        ],
        "localized_label": int(seen.classes_b[0]),
        "box_xyxy": None if box is None else [round(float(side), 2) for side in box],
    }
