"""Turns a process into a good worker: one thread, and memory that is kept instead of returned and faulted in again."""

import ctypes

import cv2

__all__ = ["prepare_worker_process"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_HEAP_BLOCK = 32 << 20
"""Largest value that glibc accepts; the arrays of an image are 1 to 8 MB."""
_KEPT_FREE_BYTES = 256 << 20


def prepare_worker_process() -> None:
    """Set up this process for making maps; the maps themselves do not depend on it.

    OpenCV computes with one thread (joblib's backends leave its pool at all cores). With glibc, freed arrays stay with
    the process: each image needs about 50 MB of arrays of a few MB, which would otherwise go back to the system and
    come again page by page. On a virtual machine that was 29 of 66 ms an image.
    """
    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
