"""Journal of an unfinished evaluation: a folder with one file per scored batch, from which a stopped one resumes.

``config.json`` holds what decides the results. Every ``NNNNNNNNN.batch`` holds the ``ImageScores`` of one batch as
compressed MessagePack and is named by its first index; it appears whole or not at all.
"""

import json
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from evaluation.image_scores import ImageScores
from pseudo_maps.files import create_exclusively, differences, temporary_name_pattern, write_atomically

_FORMAT = 3
"""Format of the files; another one makes another configuration."""
_CONFIG_NAME = "config.json"
_BATCH_NAME = re.compile(r"[0-9]{9,}\.batch")
_TEMPORARY_NAME = temporary_name_pattern(rf"{re.escape(_CONFIG_NAME)}|{_BATCH_NAME.pattern}")
_FASTEST = 1
"""Neighbouring levels mostly share their box, so the fastest zlib level already shrinks 255 levels tenfold."""


class DamagedResultWarning(UserWarning):
    """A file of the journal cannot be read; its images are evaluated again."""


class ResultJournal:
    """The results of one evaluation that exist so far, batch by batch.

    ``config`` holds what decides the results (protocols, localizers, data, network, ...) as JSON values. ValueError
    when the folder holds results of another configuration, whose differing keys are named, or without one.
    """

    def __init__(self, folder: Path, *, config: Mapping[str, Any]) -> None:
        self.folder = folder
        wanted = json.loads(json.dumps({**config, "journal": _FORMAT}, allow_nan=False))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _CONFIG_NAME
        if not path.exists():
            if self._files():
                raise ValueError(
                    f"{folder}: results without {_CONFIG_NAME}: it cannot be told what they belong to; give another "
                    "folder or remove this one"
                )
            if create_exclusively(path, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode()):
                return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON, found: {error}; remove {folder} to evaluate anew") from error
        differing = differences(found, wanted)
        if differing:
            raise ValueError(
                f"{folder}: holds results of another configuration: {'; '.join(differing)}; give another folder, or "
                "remove this one to evaluate anew"
            )

    def add(self, batch: Sequence[ImageScores]) -> None:
        """Store a batch; one of the same first index is replaced."""
        stored = [_with_texts(image, json.dumps) for image in batch]
        content = zlib.compress(msgspec.msgpack.encode(stored, enc_hook=_array_parts), _FASTEST)
        write_atomically(self.folder / f"{batch[0].index:09d}.batch", content)

    def done(self) -> set[int]:
        """First indexes of the batches that can be read; DamagedResultWarning for others."""
        return {images[0].index for images in self._batches()}

    def __iter__(self) -> Iterator[ImageScores]:
        """Every image, in index order, one batch held at a time; DamagedResultWarning for files that cannot be read."""
        for images in self._batches():
            yield from images

    def remove(self) -> None:
        """Delete the journal's files, temporary ones of killed processes too, and the folder if nothing else is in it.

        The configuration goes last: a removal that is cut short leaves a journal that can still be read.
        """
        left_over = [path for path in self.folder.iterdir() if _TEMPORARY_NAME.fullmatch(path.name)]
        for path in (*self._files(), *left_over, self.folder / _CONFIG_NAME):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        names = [path for path in self.folder.iterdir() if _BATCH_NAME.fullmatch(path.name)]
        return sorted(names, key=lambda path: int(path.stem))

    def _batches(self) -> Iterator[list[ImageScores]]:
        for path in self._files():
            try:
                stored = zlib.decompress(path.read_bytes())
                images = msgspec.msgpack.decode(stored, type=list[ImageScores], dec_hook=_array)
                batch = [_with_texts(image, json.loads) for image in images]
            except (OSError, ValueError, zlib.error) as error:
                message = f"{path}: cannot be read ({error}); the images in it are evaluated again"
                warnings.warn(message, DamagedResultWarning, stacklevel=2)
            else:
                yield batch


def _with_texts(image: ImageScores, convert: Any) -> ImageScores:
    """With names as JSON or back: MessagePack has no text for a file name that is not UTF-8."""
    return replace(image, image_id=convert(image.image_id), wnid=convert(image.wnid))


def _array_parts(array: npt.NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()


def _array(_kind: type, parts: tuple[str, list[int], bytes]) -> npt.NDArray[Any]:
    dtype, shape, content = parts
    return np.frombuffer(content, dtype=dtype).reshape(shape)
