import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.color import rgb_to_luv
from pseudo_maps.proposals.region_features import region_features
from pseudo_maps.proposals.region_graph import region_geometry


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_equals_means_over_each_region_by_itself(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Runs of equal labels as well as single pixels.
    labels = np.sort(rng.integers(0, 6, (height, width)), axis=int(rng.integers(0, 2)))
    labels = np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int32)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    count = int(labels.max()) + 1
    boxes, _ = region_geometry(labels, region_count=count)
    distance = rng.random(count, dtype=np.float32)
    found = region_features(labels, rgb, boxes_xyxy=boxes, frame_distance=distance)
    for region in range(count):
        y, x = np.nonzero(labels == region)
        assert found.area_px[region] == len(y)
        centre = [(x + 0.5).mean() / width, (y + 0.5).mean() / height]
        np.testing.assert_allclose(found.centre_xy[region], centre, rtol=1e-12)
        sides = [(y == 0).sum(), (y == height - 1).sum(), (x == 0).sum(), (x == width - 1).sum()]
        assert found.side_px[region].tolist() == sides
        mean_rgb = np.rint(rgb[y, x].sum(axis=0) / len(y)).astype(np.uint8)
        assert np.array_equal(found.luv[region], rgb_to_luv(mean_rgb[None, None])[:, 0, 0])
    assert np.array_equal(found.boxes_xyxy, boxes) and np.array_equal(found.frame_distance, distance)


def test_an_image_of_another_size_is_refused() -> None:
    labels = np.zeros((4, 5), np.int32)
    boxes, _ = region_geometry(labels, region_count=1)
    with pytest.raises(ValueError, match=r"shape \(5, 4, 3\) does not fit a label map of shape \(4, 5\)"):
        region_features(labels, np.zeros((5, 4, 3), np.uint8), boxes_xyxy=boxes, frame_distance=np.zeros(1, np.float32))
