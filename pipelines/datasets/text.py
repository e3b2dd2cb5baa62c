"""Text files of a data set: lines, ids and numbers, checked; errors name the file and the line.

Ids become file paths, so no id may lead out of the data root. They are checked as text: links inside the root may point
anywhere, because clusters keep images behind links.
"""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pipelines.datasets.model import Classes, DatasetError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SHOWN_CHARACTERS = 80  # of an invalid text, so that a binary file does not flood the terminal
_MAX_COUNT_DIGITS = 9  # sizes and labels are far below 10^9; int() of megabytes of digits would take minutes


def describe(text: str) -> str:
    """``text`` quoted for an error message, cut to 80 characters; letters that macOS decomposes as escapes."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    # They look like the composed ones, which are another name.
    return repr(shown) if unicodedata.is_normalized("NFC", shown) else ascii(shown)


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file, without byte order mark, carriage returns and empty lines at the end.

    A missing file, other encodings and empty lines before the last are errors.
    """
    try:
        encoded = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; check the data root") from None
    try:
        text = encoded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at_line = encoded[: error.start].count(b"\n") + 1
        found = encoded[error.start : error.start + 4]
        raise DatasetError(
            f"{path}, line {at_line}: expected UTF-8 text, found bytes {found!r}; convert the file to UTF-8"
        ) from None
    # Not splitlines(): it also splits at characters such as U+2028 and would shift the line numbers.
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.rstrip("\r") for line in lines]
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line:
            raise DatasetError(f"{path}, line {number}: expected an entry, found an empty line; remove it")
    return lines


def path_fault(text: str) -> str | None:
    """What makes ``text`` an invalid or unsafe relative POSIX path, or None."""
    if not text:
        return "an empty name"
    if _SURROGATE.search(text):
        return "a name that is not UTF-8"
    if _CONTROL.search(text):
        return "a control character"
    if "\\" in text:
        return "a backslash"
    if text.startswith("/"):
        return "an absolute path"
    for part in text.split("/"):
        if part in ("", ".", ".."):
            return f"the path part {part!r}"
    return None


def check_ids(ids: Sequence[str], *, source: Path, first_line: int = 1) -> None:
    """Raise a ``DatasetError`` for the first of ``ids``, one per line of ``source``, that is unsafe or not unique."""
    # Searching the joined text is enough for valid lists: 1,281,167 ids in 0.6 s instead of 2.0 s.
    joined = "\n" + "\n".join(ids) + "\n"
    suspicious = ("\\", "\n/", "/\n", "//", "\n\n", "/.", "\n.")
    if any(token in joined for token in suspicious) or not all(map(str.isprintable, ids)):
        for number, image_id in enumerate(ids, start=first_line):
            fault = path_fault(image_id)
            if fault is not None:
                raise DatasetError(
                    f"{source}, line {number}: expected an image id that is a relative path with forward "
                    f"slashes, found {fault} in {describe(image_id)}; correct or remove the line"
                )
    if len(set(ids)) != len(ids):
        seen: dict[str, int] = {}
        for number, image_id in enumerate(ids, start=first_line):
            if image_id in seen:
                raise DatasetError(
                    f"{source}, line {number}: expected every image id once, found {describe(image_id)} "
                    f"already on line {seen[image_id]}; remove one of them"
                )
            seen[image_id] = number


def check_known(ids: Iterable[str], known: Collection[str], *, source: Path, first_line: int | None = 1) -> None:
    """Raise a ``DatasetError`` that names the ``ids`` of ``source``, one per line or a file each, that no image has."""
    unknown = {number: name for number, name in enumerate(ids, start=first_line or 0) if name not in known}
    if unknown:
        line = "" if first_line is None else f", line {next(iter(unknown))}"
        names = list(dict.fromkeys(map(describe, unknown.values())))
        raise DatasetError(
            f"{source}{line}: expected ids of the images listed, such as {describe(min(known, default=''))}, found "
            f"{len(unknown)} that no image has: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}; correct or "
            "remove them"
        )


def parse_number(text: str) -> float | None:
    """Finite decimal number in ``text``, or None (also for ``nan`` and Python's ``1_0``)."""
    if "_" in text or not text.isascii():
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def parse_count(text: str) -> int | None:
    """Whole number >= 0 of at most nine digits in ``text``, or None."""
    if text.isascii() and text.isdigit() and len(text) <= _MAX_COUNT_DIGITS:
        return int(text)
    return None


def read_synset_mapping(path: Path) -> Classes:
    """Classes from ``LOC_synset_mapping.txt``: each line is ``wnid words``, line ``i`` is label ``i - 1``."""
    lines = read_lines(path)
    if not lines:
        raise DatasetError(f"{path}: expected one 'wnid words' line for each class, found an empty file")
    parts = [line.strip().partition(" ") for line in lines]
    wnids = tuple(wnid for wnid, _, _ in parts)
    check_ids(wnids, source=path)
    return Classes(wnids=wnids, words=tuple(words.strip() or wnid for wnid, _, words in parts))
