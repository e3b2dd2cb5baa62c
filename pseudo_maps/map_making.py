"""Saliency map of one image: from pixels to the averaged map, from an image file to its row of a shard."""

import os
import traceback

import numpy as np
import numpy.typing as npt

from pseudo_maps.config import MapConfig
from pseudo_maps.images import ImageDecodeError, decode_image
from pseudo_maps.proposals.methods import METHODS
from pseudo_maps.records import ImageRecord
from pseudo_maps.resampling import area_average, fit_working_size
from pseudo_maps.shards import STATUS_OK, quantise_map
from pseudo_maps.shards.outcomes import MadeMap, row_of


def saliency_map(
    image_rgb: npt.NDArray[np.uint8], *, config: MapConfig, boundary_model: str | None = None
) -> tuple[npt.NDArray[np.float32], int]:
    """Pseudo saliency map of a (H, W, 3) uint8 RGB image, its object proposals averaged, and the number of proposals.

    The map is (map_size, map_size) float32 in 0..1: the whole image squeezed to a square, area-averaged; all zero
    without proposals. ``boundary_model`` is the model file of a boundary detector that needs one. Source: Chen and Hsu,
    ICASSP 2019, section 2.3 (the map ``M^p`` of equation 2).
    """
    average, count = METHODS[config.method].average(
        fit_working_size(image_rgb, longest_px=config.proposals.working_size),
        config.proposals,
        weighting=config.weighting,
        boundary_model=boundary_model,
    )
    return area_average(average, height=config.map_size, width=config.map_size), count


def make_map(record: ImageRecord, *, root: str, config: MapConfig, boundary_model: str | None = None) -> MadeMap:
    """Make the map of the image file ``root/record.path``; a bad image gives a status and a message, no exception."""
    height = width = count = 0
    peak, status, message = 0.0, STATUS_OK, ""
    map_uint8 = np.zeros((config.map_size, config.map_size), dtype=np.uint8)
    try:
        decoded = decode_image(
            os.path.join(root, record.path), enough_px=config.proposals.working_size, max_pixels=config.max_pixels
        )
        height, width = decoded.file_height, decoded.file_width
        saliency, count = saliency_map(decoded.rgb_hwc, config=config, boundary_model=boundary_model)
        if count == 0:
            status, message = "no-proposals", "nothing was proposed"
        else:
            map_uint8, peak = quantise_map(saliency)
    except FileNotFoundError as error:
        status, message = "missing", str(error)
    except ImageDecodeError as error:
        status, message = "decode-error", str(error)
    except OSError as error:
        status, message = "unreadable", str(error)
    except MemoryError as error:
        status, message = "out-of-memory", repr(error)
    except Exception:  # One bad image must not stop the others; the traceback goes to the run log.
        status, message = "error", traceback.format_exc()
    proposals = count if status == STATUS_OK else 0
    row = row_of(record, height=height, width=width, peak=peak, proposals=proposals, status=status)
    return MadeMap(map_uint8=map_uint8, row=row, message=message)
