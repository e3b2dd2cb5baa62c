"""Writer of the score maps of an evaluation as uint8 HDF5 shards, in the format of ``wsol-prep``, by localizer.

A map is stored as ``wsoleval-v1`` sees it: cubic to 224x224, minimum to 0, maximum to 255. Scoring the shards again
with ``wsol-eval maps`` gives the same rates under ``wsoleval-v1`` and ``wsoleval-v2``; ``cam`` then reads 20 % of the
maximum above the minimum, not above 0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.wsoleval import normalise_score_map
from evaluation.images import BLOCK_IMAGES, EvaluationImage
from evaluation.scoring import ImageMaps
from pseudo_maps.shards import STATUS_OK, MapRow, ShardWriter, make_provenance, shard_name
from pseudo_maps.shards.manifest import Manifest, agree_on_manifest, check_manifest, ids_digest, manifest_path
from pseudo_maps.shards.outcomes import row_of

SHARD_ROWS = BLOCK_IMAGES
"""Maps of one shard: about 10 MB."""

_FAILED_STATUS = "no-score-map"
_FULL_SCALE = 255


def folder_name(localizer: str) -> str:
    """Name of a localizer's folder: a star would have to be quoted in every shell."""
    return localizer.replace("*", "-x-")


class ScoreMapShards:
    """Collects the maps of consecutive images and writes each shard, one folder per localizer, once its rows are there.

    ``images`` are all of the evaluation, in order, and decide which row of which shard a map becomes; ``config`` holds
    what decides the maps, as JSON values.
    """

    def __init__(
        self,
        folder: Path,
        *,
        images: Sequence[EvaluationImage],
        localizers: Sequence[str],
        split: str,
        config: Mapping[str, Any],
    ) -> None:
        self._folder, self._images = folder, images
        self._shards = -(-len(images) // SHARD_ROWS)
        digest = ids_digest(image.record.image_id for image in images)
        self._manifests = {
            localizer: Manifest(
                split=split,
                images=len(images),
                shards=self._shards,
                shard_size=SHARD_ROWS,
                ids_sha256=digest,
                configuration={"score_maps": {"localizer": localizer, **config}},
            )
            for localizer in localizers
        }
        self._rows: dict[int, dict[int, dict[str, tuple[npt.NDArray[np.uint8], MapRow]]]] = {}

    def missing(self) -> set[int]:
        """Indexes of the images whose shard is not there for every localizer.

        ManifestMismatch for a folder of maps of other images, or of another network or views; it names all differences.
        """
        for localizer, manifest in self._manifests.items():
            folder = self._folder / folder_name(localizer)
            if not manifest_path(folder, manifest.split).exists():
                # Nothing tells what shards without manifest belong to.
                return set(range(len(self._images)))
            check_manifest(folder, manifest)
        return {
            index
            for shard in range(self._shards)
            if not all(self._path(localizer, shard).exists() for localizer in self._manifests)
            for index in self._indexes(shard)
        }

    def add(self, image: EvaluationImage, maps: ImageMaps) -> None:
        """Take the maps of one image; write its shard when it was the last one missing. Errors as ``missing``."""
        shard = image.index // SHARD_ROWS
        rows = self._rows.setdefault(shard, {})
        rows[image.index] = {localizer: _stored(image, maps, localizer) for localizer in self._manifests}
        if len(rows) == len(self._indexes(shard)):
            self._write(shard, self._rows.pop(shard))

    def _indexes(self, shard: int) -> range:
        return range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, len(self._images)))

    def _path(self, localizer: str, shard: int) -> Path:
        split = self._manifests[localizer].split
        return self._folder / folder_name(localizer) / shard_name(split, shard, self._shards)

    def _write(self, shard: int, rows: Mapping[int, Mapping[str, tuple[npt.NDArray[np.uint8], MapRow]]]) -> None:
        for localizer, manifest in self._manifests.items():
            path = self._path(localizer, shard)
            path.parent.mkdir(parents=True, exist_ok=True)
            agree_on_manifest(path.parent, manifest)
            provenance = make_provenance(manifest.configuration)
            with ShardWriter(path, rows=len(rows), map_size=FRAME_PX, provenance=provenance) as writer:
                for row, index in enumerate(sorted(rows)):
                    writer.write(row, *rows[index][localizer])
                writer.commit()


def _stored(image: EvaluationImage, maps: ImageMaps, localizer: str) -> tuple[npt.NDArray[np.uint8], MapRow]:
    width, height = maps.file_wh or (0, 0)
    ok = maps.failure is None
    map_hw = normalise_score_map(maps.whole[localizer]) if ok else np.zeros((FRAME_PX, FRAME_PX), dtype=np.uint8)
    peak = 1.0 if map_hw.max() == _FULL_SCALE else 0.0
    status = STATUS_OK if ok else _FAILED_STATUS
    return map_hw, row_of(image.record, height=height, width=width, peak=peak, proposals=0, status=status)
