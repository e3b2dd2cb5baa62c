"""ILSVRC annotation files (PASCAL VOC style XML): class names, box corners and frame size.

An annotation belongs to the image of the XML file's own name: ``<filename>`` is not read, because it holds the literal
``%s`` in hundreds of ILSVRC files.
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from pipelines.datasets.model import DatasetError
from pipelines.datasets.text import describe, parse_number

MAX_XML_BYTES = 4_000_000
"""Largest annotation file read; one box takes about 350 bytes, ILSVRC's files a few kilobytes."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """Boxes of one image, corners as written (not ordered, not clipped)."""

    names: tuple[str, ...]
    """Class of each object: a wnid, in some XML files words, possibly empty."""
    corners: tuple[tuple[float, ...], ...]
    """``xmin, ymin, xmax, ymax`` of each object, finite, 0-based inclusive pixels."""
    frame_wh: tuple[int, int] | None = None
    """Width and height in pixels that the file states; None when one of them is missing, empty or 0."""


def read_annotation_xml(path: Path) -> Annotation:
    """Read one annotation file; anything but well-formed XML with finite numbers is a ``DatasetError``."""
    with path.open("rb") as file:
        encoded = file.read(MAX_XML_BYTES + 1)
    if len(encoded) > MAX_XML_BYTES:
        raise DatasetError(f"{path}: expected an annotation of at most {MAX_XML_BYTES} bytes, found more")
    try:
        annotation: Element = defusedxml.ElementTree.fromstring(encoded)
    except DefusedXmlException as error:
        raise DatasetError(f"{path}: expected XML without entities or external references: {error}") from None
    except ParseError as error:
        line = error.position[0]
        raise DatasetError(f"{path}, line {line}: expected well-formed XML, found: {error}") from None
    except (ValueError, LookupError) as error:
        # An unknown encoding.
        raise DatasetError(f"{path}, line 1: expected XML in UTF-8, found: {error}") from None
    if annotation.tag != "annotation":
        raise DatasetError(f"{path}: expected the root element <annotation>, found <{annotation.tag}>")

    objects = annotation.findall("object")
    width, height = (_size(annotation, tag, path=path) for tag in ("width", "height"))
    return Annotation(
        names=tuple((item.findtext("name") or "").strip() for item in objects),
        corners=tuple(
            tuple(_number(item.find("bndbox"), tag, path=path, number=number) for tag in _CORNERS)
            for number, item in enumerate(objects, start=1)
        ),
        frame_wh=(width, height) if width and height else None,
    )


def _number(box: Element | None, tag: str, *, path: Path, number: int) -> float:
    text = None if box is None else box.findtext(tag)
    if text is None:
        raise DatasetError(f"{path}, object {number}: expected <bndbox> with <{tag}>, found none")
    value = parse_number(text.strip())
    if value is None:
        raise DatasetError(f"{path}, object {number}: expected a number in <{tag}>, found {describe(text)}")
    return value


def _size(annotation: Element, tag: str, *, path: Path) -> int:
    text = (annotation.findtext(f"size/{tag}") or "").strip()
    if not text:
        return 0
    value = parse_number(text)
    if value is None or value < 0 or value != int(value):
        raise DatasetError(f"{path}: expected a whole number of pixels in <{tag}>, found {describe(text)}")
    return int(value)
