"""Whether the image files that are there are those that maps were made of: sizes in pixels, times, and classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pseudo_maps.files import evenly_spaced
from pseudo_maps.images import read_image_size
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards.index import MapIndex
from pseudo_maps.shards.layout import ShardError
from pseudo_maps.wording import counted

COMPARED_FILES = 256
"""Image files, evenly spaced, that are compared: 0.1 ms each, a few on a busy file server. A fault in one of
twenty images escapes all of them once in 500,000 times."""
_CHANCE_SHARE, _CHANCE_IMAGES = 0.05, 2
"""Faults in this share of the images, or in so many, may be single mistakes."""
_NAMED = 3


def is_beyond_chance(faults: int, *, of: int) -> bool:
    """Whether so many faults ``of`` the compared images are more than single mistakes."""
    return faults > max(_CHANCE_IMAGES, _CHANCE_SHARE * of) or 2 * faults > of


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceComparison:
    """Image files beside the rows of their maps."""

    compared: int
    """Files that are there and whose map was made."""
    changed: dict[str, str]
    """Both sizes or classes in words, by id of the images that have another one now."""
    newer: tuple[str, ...]
    """Ids of images that were written after their shard: replaced, or copied."""

    def describe(self) -> str:
        """The images of another size or class, in one sentence."""
        text = ", ".join(f"{image_id!r} ({found})" for image_id, found in list(self.changed.items())[:_NAMED])
        more = ", ..." if len(self.changed) > _NAMED else ""
        return (
            f"{len(self.changed)} of {counted(self.compared, 'image')} compared are not as when their maps were made: "
            f"{text}{more}"
        )


def compare_sources(
    index: MapIndex, records: Sequence[ImageRecord], *, root: Path, most: int = COMPARED_FILES
) -> SourceComparison:
    """Compare the headers and times of at most ``most`` image files with their maps; missing files are left out.

    Maps made with class labels (refined ones, and score maps of a network) are compared by class, too: one with another
    name and another number is another class.
    """
    compared, changed, newer = 0, {}, []
    configuration = index.provenance["configuration"]
    use_labels = isinstance(configuration, dict) and ("score_maps" in configuration or "uses" in configuration)
    for record in evenly_spaced(records, most=most):
        expected = index.size(record.image_id) if record.image_id in index else None
        found = None if expected is None else read_image_size(root / record.path)
        if found is None or expected is None:
            continue
        compared += 1
        row = index.row(record.image_id) if use_labels else record
        if found != expected:
            changed[record.image_id] = f"{found[0]}x{found[1]} pixels, its map is of {expected[0]}x{expected[1]}"
        elif row.wnid != record.wnid and row.label != record.label:
            changed[record.image_id] = f"class {record.wnid!r}, its map is of {row.wnid!r}"
        elif (root / record.path).stat().st_mtime_ns > index.shard_path(record.image_id).stat().st_mtime_ns:
            newer.append(record.image_id)
    return SourceComparison(compared=compared, changed=changed, newer=tuple(newer))


def check_sources(index: MapIndex, records: Sequence[ImageRecord], *, root: Path) -> list[str]:
    """Warnings of images of another size or class than when their maps were made; ShardError for more than chance."""
    found = compare_sources(index, records, root=root)
    number = len(found.changed)
    if is_beyond_chance(number, of=found.compared):
        raise ShardError(
            f"{root}: {found.describe()}; files or classes were replaced: make their maps in another folder, or let "
            "`wsol-prep verify MAPS --data DATA --repair` remove these and give the command of the folder again"
        )
    return [found.describe()] if number else []
