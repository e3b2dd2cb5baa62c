"""Turns folders of trainings into names that tell them apart, and into sentences about those with other images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["distinct_names", "other_training_images"]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """As much of the end of each path as it takes to tell the folders apart.

    Raises
    ------
    ValueError
        A folder is there twice.

    Examples
    --------
    >>> distinct_names([Path("/table/gap/seed-0"), Path("/table/ours/seed-0")])
    ['gap/seed-0', 'ours/seed-0']
    """
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path}: expected every training run once, found it {paths.count(path)} times")
    names = [path.name for path in paths]
    length = 1
    while len(set(names)) < len(names):
        length += 1
        names = ["/".join(path.parts[-length:]) for path in paths]
    return names


def other_training_images(finished: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence when not all runs learned from the same images, none when they did.

    Parameters
    ----------
    finished
        By name of a run what ``wsol-train`` left at its end: ``images_sha256``, and the number ``images`` where it is
        known. Runs without the digest are not compared.

    Examples
    --------
    >>> runs = {"gap": {"images": 38, "images_sha256": "a"}, "ours": {"images": 37, "images_sha256": "b"}}
    >>> other_training_images(runs)[0].partition(":")[0]
    'Not all runs learned from the same images'
    >>> other_training_images({"gap": runs["gap"]})
    []
    """
    by_digest: dict[str, list[str]] = {}
    for name, one in finished.items():
        if one.get("images_sha256"):
            by_digest.setdefault(one["images_sha256"], []).append(name)
    if len(by_digest) < 2:
        return []
    groups = []
    for names in by_digest.values():
        number = finished[names[0]].get("images")
        groups.append(", ".join(names) + ("" if number is None else f" ({number} images)"))
    return [
        f"Not all runs learned from the same images: {', against '.join(groups)}. --on-missing skip leaves out images "
        "without a map, --limit all but the first."
    ]
