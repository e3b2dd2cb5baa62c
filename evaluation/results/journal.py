"""Turns the scores of images into a folder of small files, from which a stopped evaluation goes on.

Legend: I images of one file, L threshold levels, R runs of equal levels, N ground-truth boxes.

``config.json`` holds what decides the results. Every ``NNNNNNNNN.npz`` holds one batch and is named by its lowest
index; it appears whole or not at all. Over rising thresholds the box of a map changes rarely, so levels are stored
as runs: 255 levels with 41 different boxes take 0.7 KB compressed instead of 10, and 0.1 ms to write.
"""

import heapq
import itertools
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.image_scores import ImageScores, Pair
from pseudo_maps.files import differences, replacing, temporary_name_pattern, write_atomically

__all__ = ["DamagedResultWarning", "ResultJournal"]

_CONFIG_NAME = "config.json"
_RESULT_NAME = re.compile(r"[0-9]{9,}\.npz")
_TEMPORARY_NAME = temporary_name_pattern(r"config\.json|[0-9]{9,}\.npz")

_DAMAGE = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy, zip and JSON raise over a file that is cut off or overwritten."""

_Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class DamagedResultWarning(UserWarning):
    """A file of the journal cannot be read; its images are evaluated again."""


class ResultJournal:
    """The results of one evaluation that exist so far, image by image.

    Several processes may append to one folder, each its own images. Iterating gives every image once, in index
    order, whatever files they lie in; only files whose ranges of indexes overlap are held at once.

    Parameters
    ----------
    folder
        Where the files lie; it is made when it does not exist.
    config
        What decides the results: protocols, localizers, data, network, ... as JSON would hold it. A folder of
        another configuration is refused.

    Raises
    ------
    ValueError
        The folder holds results of another configuration (the message names the differing keys), or results without
        one, or ``config`` is not JSON.
    OSError
        The folder cannot be made or read.
    """

    def __init__(self, folder: Path, *, config: Mapping[str, Any]) -> None:
        self.folder = folder
        try:
            wanted = json.loads(json.dumps(dict(config), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected a configuration that JSON can hold, found: {error}") from error
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _CONFIG_NAME
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self._files():
                raise ValueError(
                    f"{folder}: results without {_CONFIG_NAME}: it cannot be told what they belong to; give another "
                    "folder or remove this one"
                ) from None
            write_atomically(path, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode())
            return
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON, found: {error}; remove {folder} to evaluate anew") from error
        differing = differences(found, wanted)
        if differing:
            raise ValueError(
                f"{folder}: holds results of another configuration: {'; '.join(differing)}; give another folder, or "
                "remove this one to evaluate anew"
            )

    def append(self, batch: Sequence[ImageScores]) -> None:
        """Store a batch; an empty one is nothing. A new result of an image counts instead of one in the same file.

        Raises
        ------
        ValueError
            Two images of the batch have the same index.
        OSError
            The file cannot be written.
        """
        images = sorted(batch, key=lambda image: image.index)
        for before, after in itertools.pairwise(images):
            if before.index == after.index:
                raise ValueError(f"images {before.image_id!r} and {after.image_id!r} have the same index {after.index}")
        if not images:
            return
        path = self.folder / f"{images[0].index:09d}.npz"
        if path.exists():
            # Damaged, or its first image was evaluated twice: what else can be read in it must not get lost.
            new = {image.index for image in images}
            images = sorted(
                [*images, *(old for old in _unpacked(path) if old.index not in new)], key=lambda image: image.index
            )
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_pack(images))

    def done(self) -> set[int]:
        """Indexes of the images whose results can be read.

        Warns
        -----
        DamagedResultWarning
            A file cannot be read: its images are not among the indexes.
        """
        # Read whole: a file may be sound as an archive and still lack an array.
        return {image.index for path in self._files() for image in _unpacked(path)}

    def __iter__(self) -> Iterator[ImageScores]:
        """Every image once, in index order; of two results of an image the one in the file named first.

        Warns
        -----
        DamagedResultWarning
            A file cannot be read: its images are left out, unless another file holds them.
        """
        # The name is the lowest index, so a file is opened when that index is next, not earlier.
        waiting = sorted(((int(path.stem), path) for path in self._files()), reverse=True)
        open_files: list[tuple[int, int, list[ImageScores]]] = []
        order, last = 0, -1
        while waiting or open_files:
            while waiting and (not open_files or waiting[-1][0] <= open_files[0][0]):
                images = _unpacked(waiting.pop()[1])
                if images:
                    images.reverse()
                    order += 1
                    heapq.heappush(open_files, (images[-1].index, order, images))
            if not open_files:
                continue
            index, number, images = heapq.heappop(open_files)
            image = images.pop()
            if images:
                heapq.heappush(open_files, (images[-1].index, number, images))
            if index != last:
                last = index
                yield image

    def remove(self) -> None:
        """Delete the journal's files, temporary ones of killed processes too, and the folder if nothing else is in it.

        The configuration goes last: a removal that is cut short leaves a journal that can still be read.
        """
        for path in self._files():
            path.unlink(missing_ok=True)
        for path in list(self.folder.iterdir()):
            if _TEMPORARY_NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)
        (self.folder / _CONFIG_NAME).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if _RESULT_NAME.fullmatch(path.name)]


def _unpacked(path: Path) -> list[ImageScores]:
    try:
        _check_whole(path)
        with np.load(path, allow_pickle=False) as file:
            return _unpack({name: file[name] for name in file.files})
    except _DAMAGE as error:
        _warn(path, error)
        return []


def _check_whole(path: Path) -> None:
    """Compare all checksums first: numpy trusts the sizes that a damaged header gives."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise ValueError(f"wrong checksum of {broken}")


def _warn(path: Path, error: BaseException) -> None:
    warnings.warn(
        f"{path}: cannot be read ({error}); the images in it are evaluated again", DamagedResultWarning, stacklevel=3
    )


def _pack(images: Sequence[ImageScores]) -> _Arrays:
    """Arrays of a file; ``_unpack`` gives back every bit."""
    pairs = list(dict.fromkeys(pair for image in images for pair in image.iou))
    protocols = list(dict.fromkeys(name for image in images for name in image.ground_truth))
    texts = {
        "images": [[image.image_id, image.wnid, image.status, list(image.notes)] for image in images],
        "pairs": pairs,
        "protocols": protocols,
    }
    arrays: _Arrays = {
        "index": np.array([image.index for image in images], dtype=np.int64),
        "label": np.array([image.label for image in images], dtype=np.int64),
        "true_rank": np.array([image.true_rank for image in images], dtype=np.int64),
        # ASCII with escapes: even a file name that is no UTF-8 comes back.
        "texts": np.frombuffer(json.dumps(texts).encode("ascii"), dtype=np.uint8),
        "top_count": np.array([_length(image.top_classes) for image in images], dtype=np.int64),
        "top_classes": _joined([image.top_classes for image in images], np.zeros(0, dtype=np.int64)),
        "top_probabilities": _joined([image.top_probabilities for image in images], np.zeros(0)),
    }
    for number, protocol in enumerate(protocols):
        truths = [image.ground_truth.get(protocol) for image in images]
        arrays[f"truth_count_{number}"] = np.array([_length(truth) for truth in truths], dtype=np.int64)
        arrays[f"truth_boxes_{number}"] = _joined(truths, np.zeros((0, 4)))
    for number, pair in enumerate(pairs):
        arrays.update({f"{name}_{number}": array for name, array in _packed_levels(images, pair).items()})
    return arrays


def _packed_levels(images: Sequence[ImageScores], pair: Pair) -> _Arrays:
    """Overlap and box of all levels of all images as runs: values (R, 5) and lengths (R,)."""
    level_count_i = np.array([_length(image.iou.get(pair)) for image in images], dtype=np.int64)
    iou_n = _joined([image.iou.get(pair) for image in images], np.zeros(0))
    boxes_n4 = _joined([image.boxes.get(pair) for image in images], np.zeros((0, 4)))
    rows_n5 = np.concatenate([iou_n[:, None], boxes_n4], axis=1)
    # Compared as bits, so that -0 and every NaN come back as they were. Runs may cross images: lengths tell.
    bits_n5 = rows_n5.view(np.uint64)
    starts_r = np.flatnonzero(np.concatenate([[True], (bits_n5[1:] != bits_n5[:-1]).any(axis=1)])[: len(rows_n5)])
    return {
        "level_count": level_count_i,
        "run_length": np.diff(starts_r, append=len(rows_n5)).astype(np.int64),
        "run_values": rows_n5[starts_r],
    }


def _unpack(arrays: _Arrays) -> list[ImageScores]:
    texts = json.loads(arrays["texts"].tobytes())
    pairs: list[Pair] = [(localizer, protocol) for localizer, protocol in texts["pairs"]]
    images = len(arrays["index"])
    top_classes = _split(arrays["top_classes"], arrays["top_count"])
    top_probabilities = _split(arrays["top_probabilities"], arrays["top_count"])
    truths = [
        _split(arrays[f"truth_boxes_{number}"], arrays[f"truth_count_{number}"])
        for number in range(len(texts["protocols"]))
    ]
    levels = []
    for number in range(len(pairs)):
        rows_n5 = np.repeat(arrays[f"run_values_{number}"], arrays[f"run_length_{number}"], axis=0)
        levels.append(_split(rows_n5, arrays[f"level_count_{number}"]))
    unpacked = []
    for row in range(images):
        image_id, wnid, status, notes = texts["images"][row]
        results = {pair: rows for pair, split in zip(pairs, levels, strict=True) if (rows := split[row]) is not None}
        unpacked.append(
            ImageScores(
                index=int(arrays["index"][row]),
                image_id=image_id,
                label=int(arrays["label"][row]),
                wnid=wnid,
                status=status,
                notes=tuple(notes),
                top_classes=top_classes[row],
                top_probabilities=top_probabilities[row],
                true_rank=int(arrays["true_rank"][row]),
                iou={pair: np.ascontiguousarray(rows_l5[:, 0]) for pair, rows_l5 in results.items()},
                boxes={pair: np.ascontiguousarray(rows_l5[:, 1:]) for pair, rows_l5 in results.items()},
                ground_truth={
                    protocol: truth
                    for protocol, split in zip(texts["protocols"], truths, strict=True)
                    if (truth := split[row]) is not None
                },
            )
        )
    return unpacked


def _length(array: npt.NDArray[Any] | None) -> int:
    """Rows of an array, -1 for none at all: an image may have an array without rows."""
    return -1 if array is None else len(array)


def _joined(parts: Sequence[npt.NDArray[Any] | None], empty: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([empty, *(part for part in parts if part is not None)])


def _split(rows: npt.NDArray[Any], count_i: npt.NDArray[np.int64]) -> list[npt.NDArray[Any] | None]:
    """The inverse of ``_length`` and ``_joined``."""
    ends_i = np.cumsum(np.maximum(count_i, 0))
    if (ends_i[-1] if len(ends_i) else 0) != len(rows):
        raise ValueError(f"expected {ends_i[-1:]} rows, found {len(rows)}")
    return [
        None if count < 0 else rows[end - count : end]
        for count, end in zip(count_i.tolist(), ends_i.tolist(), strict=True)
    ]
