"""Names of a network's classes matched with those of a data set: which score belongs to which class.

Shapes: K classes of the network, k classes of the data set.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_SHOWN = 5
"""Names of an order that a message lists."""


class ClassNames(NamedTuple):
    """Names of classes in label order; both empty where they are unknown, as in old checkpoints."""

    wnids: tuple[str, ...] = ()
    """WordNet ids, or names of class folders."""
    words: tuple[str, ...] = ()
    """Human-readable names, not always unique: ILSVRC has two classes called "crane"."""


NO_NAMES = ClassNames()


class ClassMatch(NamedTuple):
    """Where a network has the classes of a data set."""

    columns: tuple[int, ...] | None
    """(k,) the network's label of each class of the data set; None: the same labels."""
    note: str
    """What a user should know; empty where both have the same names in the same order."""


def match_classes(trained: ClassNames, data: ClassNames, *, classes: int, source: object) -> ClassMatch:
    """Find every class of a data set among the ``classes`` of a network, by wnid, else by words.

    The data set may have fewer classes, in any order. Where either side has no names, or only the numbers of lists
    without names, the numbers of classes are compared and the order is taken to be the same. ValueError, which names
    both orders and begins with ``source``, for a class that the network does not know.
    """
    missing: list[str] = []
    for ours, theirs in ((ours, theirs) for ours in trained for theirs in data if ours and theirs):
        if ours == theirs:
            return ClassMatch(None, "")
        place_of = {name: place for place, name in enumerate(ours)}
        unknown = [name for name in theirs if name not in place_of]
        missing = missing or unknown
        if not unknown and len(place_of) == len(ours) and len(set(theirs)) == len(theirs):
            among = f"; scores are among these {len(theirs)}" if len(theirs) < len(ours) else ""
            return ClassMatch(
                tuple(place_of[name] for name in theirs), f"classes matched by name: {_orders(ours, theirs)}{among}"
            )
    known = trained.wnids or trained.words
    if classes == len(data.wnids):
        if not known:
            return ClassMatch(None, "")
        if _is_numbered(known) or _is_numbered(data.wnids):
            return ClassMatch(
                None,
                f"numbers are no names, so the orders are taken as equal: {_orders(known, data.wnids)}",
            )
    orders = f": {_orders(known, data.wnids)}" if known else ""
    lacks = f"; the network does not know {_listed(missing, 3)}" if missing else ""
    raise ValueError(
        f"{source}: a network of {classes} classes, but the data has {len(data.wnids)}{orders}{lacks}; give the data "
        "set it was trained on, or one with classes of the same names"
    )


def stored_names(state: Mapping[str, Any]) -> ClassNames:
    """Names in the state of a checkpoint; early ones have words alone, or nothing."""
    return ClassNames(*(tuple(map(str, state.get(key, ()))) for key in ("class_wnids", "class_names")))


def check_class_names(names: Sequence[str], trained: ClassNames, *, source: object) -> None:
    """Refuse names in label order, each a wnid, words or both, where the checkpoint has the same name elsewhere.

    Names that the checkpoint does not have, such as translations, pass. ValueError names both orders.
    """
    for known in filter(None, trained):
        places: dict[str, list[int]] = {}
        for place, name in enumerate(known):
            places.setdefault(name, []).append(place)
        for place, name in enumerate(names):
            found = places.get(name) or places.get(name.partition(" ")[0])
            if found and place not in found:
                raise ValueError(
                    f"{source}, line {place + 1}: {name!r} is class {found[0]} of the checkpoint, not {place}: "
                    f"{_orders(known, names, other='that of the file')}"
                )


def _is_numbered(names: Sequence[str]) -> bool:
    """Whether these are the names of lists that have none: ``0, 1, 2, ...``."""
    return list(names) == [str(number) for number in range(len(names))]


def _orders(ours: Sequence[str], theirs: Sequence[str], *, other: str = "that of the data") -> str:
    """Both orders, from the first name on that differs."""
    first = next((place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
    start = f" (from class {first})" if first else ""
    return f"the network's order{start} is {_listed(ours[first:])}, {other} {_listed(theirs[first:])}"


def _listed(names: Sequence[str], most: int = _SHOWN) -> str:
    # Escapes for decomposed letters, which look like the composed ones of another name.
    shown = [name if unicodedata.is_normalized("NFC", name) else ascii(name) for name in names[:most]]
    return ", ".join(shown) + (", ..." if len(names) > most else "")
