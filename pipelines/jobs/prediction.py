"""Prediction for any images by a trained network: classes, box and overlay, one PNG per image and one JSON file.

Boxes in the JSON are ``x0, y0, x1, y1``, 0-based inclusive pixels of the image file.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.drawing.overlays import save_picture
from pipelines.datasets.folders import describe_unread, walk_images
from pipelines.jobs.localizer import Localizer, Prediction
from pseudo_maps.files import write_atomically

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
    network = Localizer(checkpoint, localizer=localizer, protocol=protocol, device=device, class_names=class_names)
    network.check_label(label)
    entries, failed = [], 0
    pictures = _pictures(images, out=out, say=say)
    out.mkdir(parents=True, exist_ok=True)
    found_of_all = network.try_many(pictures.values(), label=label)
    for (picture, path), found in zip(pictures.items(), found_of_all, strict=True):
        entry: dict[str, Any] = {"image": str(path)}
        if isinstance(found, ValueError):
            failed += 1
            entry["error"] = str(found)
            say(f"{path}: {found}")
        else:
            save_picture(picture, found.draw())
            entry |= _described(found)
            entry["overlay"] = picture.relative_to(out).as_posix()
            say(f"{path}: {found.name} ({found.score:.2f}), box {entry['box_xyxy']}")
        entries.append(entry)
    described = {
        "network": {"arch": network.model.arch, "step": network.model.step, "weights": network.model.digest},
        "localizer": localizer,
        "protocol": protocol,
        "images": entries,
    }
    text = json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(out / PREDICTIONS_FILE, text.encode("utf-8", errors="replace"))
    return failed


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


def _described(found: Prediction) -> dict[str, Any]:
    """What the JSON says of one image."""
    return {
        "width": found.width,
        "height": found.height,
        "classes": [{**one._asdict(), "probability": round(one.probability, 6)} for one in found.classes],
        "localized_label": found.localized_label,
        "box_xyxy": None if found.box_xyxy is None else [round(side, 2) for side in found.box_xyxy],
    }
