"""Prediction for any images by a trained network: classes and boxes as JSON and CSV, overlays and heat maps.

Boxes are ``x0, y0, x1, y1``, 0-based inclusive pixels of the image file.
"""

import csv
import functools
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from evaluation.drawing.overlays import save_picture
from evaluation.workers import map_in_order
from pipelines.datasets.folders import describe_unread, walk_images
from pipelines.jobs.localizer import ClassScore, Localizer, Prediction
from pseudo_maps.files import write_atomically
from pseudo_maps.wording import counted
from training.data.workers import explaining_lost_workers

PREDICTIONS_FILE = "predictions.json"
MAPS_FOLDER = "maps"
CSV_COLUMNS = ("image", "class_index", "wnid", "name", "score", "x0", "y0", "x1", "y1")

MapFormat: TypeAlias = Literal["npy", "png"]


@dataclass(frozen=True, kw_only=True)
class PredictionOutput:
    """What is written of the images."""

    folder: Path
    """Of ``predictions.json`` and of all pictures and maps."""
    overlays: bool = True
    """Write the image with heat map, box, class and score as ``<name>.png``."""
    maps: MapFormat | None = None
    """Write ``maps/<name>``: the scores (h, w) float32 as the network gives them, or the heat map (H, W) uint8."""
    csv: Path | None = None
    """File of one row per image, of ``CSV_COLUMNS``."""

    def files(self, name: str) -> dict[str, Path]:
        """Files of an image by what they are called in the JSON."""
        files = {"overlay": self.folder / f"{name}.png"} if self.overlays else {}
        return files | ({"map": self.folder / MAPS_FOLDER / f"{name}.{self.maps}"} if self.maps else {})


def predict_images(
    network: Localizer,
    images: Sequence[Path],
    *,
    output: PredictionOutput,
    label: str | None = None,
    batch_size: int = 64,
    workers: int = 0,
    jobs: int = 1,
    say: Callable[[str], None],
) -> int:
    """Write ``predictions.json`` and what ``output`` asks for of all images; count the images that failed.

    ``images`` are files, and folders that are searched and whose subfolders are kept. The second of two files of one
    name becomes ``<name>-2``, and so on. ``label`` is index, wnid or name of the class to localize, None the predicted
    one. Where there are more images than one batch, ``workers`` processes decode and ``jobs`` processes draw. ``say``
    is called with one line per image.

    ValueError, before anything is written, when no image is found, a picture would replace an image, or the network
    has no such class. RuntimeError when a process was lost.
    """
    index = None if label is None else network.find_class(label)
    earlier = _files_listed(output.folder)
    files = _find_files(images, output=output, say=say)
    if len(files) <= batch_size:
        workers, jobs = 0, 1
    found = network.try_many(files.values(), label=index, batch_size=batch_size, workers=workers)
    pieces = zip(files, files.values(), found, strict=True)
    output.folder.mkdir(parents=True, exist_ok=True)
    entries = []
    with explaining_lost_workers():
        for entry in map_in_order(functools.partial(_write, output=output), pieces, jobs=jobs):
            if "error" in entry:
                say(f"{entry['image']}: {entry['error']}")
            else:
                best = entry["classes"][0]
                said = f"{best['name'] or best['label']} ({best['probability']:.2f}), box {entry['box_xyxy']}"
                say(f"{entry['image']}: {said}")
            entries.append(entry)
    described = {
        "network": {"arch": network.model.arch, "step": network.model.step, "weights": network.model.digest},
        "localizer": network.localizer,
        "protocol": network.protocol,
        **({} if network.threshold is None else {"threshold": network.threshold}),
        "images": entries,
    }
    made = {entry[kind] for entry in entries for kind in ("overlay", "map") if kind in entry}
    left = sorted(name for name in earlier - made if (output.folder / name).is_file())
    if left:
        say(f"warning: {output.folder}: {counted(len(left), 'file')} of an earlier prediction left, such as {left[0]}")
    text = json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(output.folder / PREDICTIONS_FILE, text.encode("utf-8", errors="replace"))
    if output.csv is not None:
        output.csv.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output.csv, _csv(entries, wnids=network.model.names.wnids).encode(errors="surrogateescape"))
    return sum("error" in entry for entry in entries)


def _files_listed(folder: Path) -> set[str]:
    """Pictures and maps that a ``predictions.json`` in a folder names; none where there is none that reads."""
    try:
        images = json.loads((folder / PREDICTIONS_FILE).read_text(encoding="utf-8"))["images"]
        return {str(entry[kind]) for entry in images for kind in ("overlay", "map") if kind in entry}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _find_files(images: Sequence[Path], *, output: PredictionOutput, say: Callable[[str], None]) -> dict[str, Path]:
    """Images by the name of their pictures and maps, checked as a whole before the first is written."""
    unread: list[str] = []
    found: list[tuple[Path, Path]] = []
    for path in images:
        inside = sorted(walk_images(path, unread=unread)) if path.is_dir() else []
        found += [(path / name, Path(name)) for name in inside] if path.is_dir() else [(path, Path(path.name))]
    files: dict[str, Path] = {}
    taken: set[Path] = set()
    for path, relative in found:
        plain = name = relative.with_suffix("").as_posix()
        number = 1
        while name in files or not taken.isdisjoint(output.files(name).values()):
            number += 1
            name = f"{plain}-{number}"
        files[name] = path
        taken.update(output.files(name).values())
    if unread and files:
        say(describe_unread(unread))
    if not files:
        where = ", ".join(str(path) for path in images)
        raise ValueError(f"expected images in {where}, found none{describe_unread(unread, before='; ')}")
    sources = {path.resolve() for path in files.values()}
    replaced = next((made for made in sorted(taken) if made.resolve() in sources), None)
    if replaced is not None:
        raise ValueError(f"--out {output.folder}: {replaced} would replace an image; give another folder")
    return files


def _write(piece: tuple[str, Path, Prediction | ValueError], *, output: PredictionOutput) -> dict[str, Any]:
    """Write picture and map of an image; what the JSON says of it."""
    name, path, found = piece
    if isinstance(found, ValueError):
        return {"image": str(path), "error": str(found)}
    files = output.files(name)
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    if "overlay" in files:
        save_picture(files["overlay"], found.draw())
    if output.maps == "png":
        save_picture(files["map"], found.heat_hw)
    elif output.maps == "npy":
        content = io.BytesIO()
        np.save(content, found.map_hw)
        write_atomically(files["map"], content.getvalue())
    return {
        "image": str(path),
        "width": found.width,
        "height": found.height,
        "classes": [_class(one) for one in found.classes],
        "localized_label": found.localized.label,
        "localized": _class(found.localized),
        "box_xyxy": None if found.box_xyxy is None else [round(side, 2) for side in found.box_xyxy],
        **{kind: file.relative_to(output.folder).as_posix() for kind, file in files.items()},
    }


def _class(score: ClassScore) -> dict[str, Any]:
    return {**score._asdict(), "probability": round(score.probability, 6)}


def _csv(entries: Sequence[dict[str, Any]], *, wnids: Sequence[str]) -> str:
    """A row for each image; one that failed has its name alone."""
    content = io.StringIO()
    writer = csv.DictWriter(content, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        row = {"image": entry["image"]}
        if "error" not in entry:
            one = entry["localized"]
            row |= {"class_index": one["label"], "name": one["name"], "score": one["probability"]}
            row["wnid"] = wnids[one["label"]] if wnids else ""
            row |= dict(zip(("x0", "y0", "x1", "y1"), entry["box_xyxy"] or (), strict=False))
        writer.writerow(row)
    return content.getvalue()
