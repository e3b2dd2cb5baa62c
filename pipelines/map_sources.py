"""Turns a folder of shards or of .npy files into one score map an image, or the reason why there is none."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluation.image_scores import MAP_NOT_USABLE, NO_MAP
from pipelines.evaluation_set import EvaluationImage
from pipelines.image_scoring import ImageMaps
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import STATUS_OK, MapIndex, ShardError

__all__ = ["MAP_LOCALIZER", "MapSource", "NpyMaps", "ShardMaps", "open_map_source"]

MAP_LOCALIZER = "pseudo-map"
"""Name of the localizer that is a folder of maps."""


class MapSource(Protocol):
    """Where ``wsol-eval maps`` finds its maps."""

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """The map of one image, or why there is none."""

    def unused(self, records: Iterable[ImageRecord]) -> int:
        """How many maps belong to no image of ``records``."""

    def config(self) -> dict[str, Any]:
        """What decides the maps, for metrics.json."""

    def stamp(self) -> str | None:
        """What tells whether the files have changed where ``config`` has no digest of them."""


def open_map_source(folder: Path, *, split: str) -> MapSource:
    """The maps in a folder: shards of the split when there are any, else .npy files.

    Raises
    ------
    ValueError
        The folder holds neither.
    ShardError
        The shards do not read.
    """
    if any(folder.glob(f"{split}-*-of-*.h5")):
        return ShardMaps(folder, split=split)
    if any(folder.rglob("*.npy")):
        return NpyMaps(folder)
    raise ValueError(f"{folder}: expected shards named {split}-00000-of-....h5 or .npy files, found neither")


class ShardMaps:
    """Maps of ``wsol-prep proposals`` or of ``wsol-eval run --save-maps``."""

    def __init__(self, folder: Path, *, split: str) -> None:
        self._index = MapIndex(folder, split)
        digest = hashlib.sha256()
        for path in sorted(folder.glob(f"{split}-*-of-*.h5.sha256")):
            digest.update(path.read_bytes())
        self._sha256 = digest.hexdigest()

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """The stored map, 255 at its peak; a failed one is a failure with the shard's status.

        Raises
        ------
        ShardError
            The map is damaged; image and shard are named.
        """
        image_id = image.record.image_id
        if image_id not in self._index:
            return ImageMaps(failure=NO_MAP)
        status = self._index.status(image_id)
        if status != STATUS_OK:
            return ImageMaps(failure=f"{MAP_NOT_USABLE}{status}")
        try:
            return ImageMaps(whole={MAP_LOCALIZER: self._index.read_uint8(image_id)})
        except ShardError as error:
            raise ShardError(f"image {image_id!r}: {error}") from error

    def unused(self, records: Iterable[ImageRecord]) -> int:
        """Rows of the shards whose image id is not among the records."""
        return len(self._index) - sum(record.image_id in self._index for record in records)

    def config(self) -> dict[str, Any]:
        """Configuration stored in the shards and a digest of their checksum files."""
        return {"maps": {"format": "shards", "sha256": self._sha256, "provenance": dict(self._index.provenance)}}

    def stamp(self) -> None:
        """Not needed: the digest tells."""


class NpyMaps:
    """One ``<image id>.npy`` an image, in any subfolder; also named by the image's path, with or without suffix.

    Raises
    ------
    ValueError
        Two files would serve the same image; both are named.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*.npy")):
            name = path.relative_to(folder).as_posix()
            state = path.stat()
            digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
            self._files[name.removesuffix(".npy")] = path
        self._stamp = digest.hexdigest()

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """The array of a file, read without executing anything in it.

        Raises
        ------
        ValueError
            The file holds no plain array, or two files could be meant.
        """
        found = self._files_of(image.record)
        if not found:
            return ImageMaps(failure=NO_MAP)
        if len(found) > 1:
            raise ValueError(
                f"image {image.record.image_id!r}: expected one map, found {' and '.join(str(path) for path in found)}"
            )
        try:
            # Not np.load, which takes archives too and leaves their files open.
            with found[0].open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise ValueError(
                f"image {image.record.image_id!r}: {found[0]}: expected a plain numeric array: {error}"
            ) from error
        return ImageMaps(whole={MAP_LOCALIZER: array})

    def unused(self, records: Iterable[ImageRecord]) -> int:
        """Files that no record names."""
        used = {path for record in records for path in self._files_of(record)}
        return len(self._files) - len(used)

    def config(self) -> dict[str, Any]:
        """The number of files."""
        return {"maps": {"format": "npy", "files": len(self._files)}}

    def stamp(self) -> str:
        """Digest of names, sizes and times of all files."""
        return self._stamp

    def _files_of(self, record: ImageRecord) -> list[Path]:
        path = Path(record.path)
        names = (record.image_id, record.path, path.with_suffix("").as_posix(), path.name, path.stem)
        return [self._files[name] for name in dict.fromkeys(names) if name in self._files]
