"""What a network says of each image: maps of whole and crop, classes, ranks, and images that do not read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.image_scores import UNREADABLE_IMAGE
from evaluation.images import EvaluationImage
from evaluation.scoring import ImageMaps
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set
from pipelines.jobs.network_maps import network_maps
from tests.integration.eval_command import make_checkpoint, make_listed_data
from training.inference.images import EvaluationPixels
from training.inference.localizers import Localization, NetworkLocalizer, load_for_inference

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

CLASSES = 7
BOX = (4.0, 2.0, 70.0, 50.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images, the third spoilt and the last of unknown class."""
    labels = {"a": 6, "b": 0, "c": 2, "d": 3}
    boxes = {name: [BOX] for name in "abcde"}
    data = make_listed_data(
        tmp_path_factory.mktemp("scoring") / "data", boxes, labels=labels, classes=CLASSES, size_wh=(80, 60)
    )
    (data / "val" / "c.png").write_bytes(b"no image")
    return data


@pytest.fixture(scope="module")
def images(root: Path) -> Sequence[EvaluationImage]:
    return loaded(root)


def loaded(root: Path) -> Sequence[EvaluationImage]:
    return load_evaluation_set(open_dataset(root, split="val")).images


@pytest.fixture(scope="module")
def localizer(small_networks: None, tmp_path_factory: pytest.TempPathFactory) -> NetworkLocalizer:
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("network") / "network.pt", classes=CLASSES)
    return NetworkLocalizer(load_for_inference(checkpoint), localizers=["cam", "saliency"])


def look(
    images: Sequence[EvaluationImage], localizer: NetworkLocalizer, root: Path, *, centre: bool, batch_size: int = 1
) -> list[ImageMaps]:
    batches = [tuple(images[first : first + batch_size]) for first in range(0, len(images), batch_size)]
    looked = network_maps(batches, localizer=localizer, device=torch.device("cpu"), root=root, workers=0, centre=centre)
    found, maps = [], []
    for batch, of_batch in looked:
        assert 1 <= len(batch) == len(of_batch) <= batch_size
        found += batch
        maps += of_batch
    assert [image.index for image in found] == [image.index for image in images]
    return maps


def seen(image: EvaluationImage, localizer: NetworkLocalizer, root: Path, *, label: int, crop: bool) -> Localization:
    pixels = EvaluationPixels([image.record], root=root, side_px=localizer.image_side_px, centre=True)[0]
    shown = pixels.centre_bchw if crop else pixels.images_bchw
    assert shown is not None
    return localizer(shown, torch.tensor([label]))


def test_maps_are_of_the_true_class_and_else_of_the_predicted_one(
    images: Sequence[EvaluationImage], localizer: NetworkLocalizer, root: Path
) -> None:
    maps = look(images, localizer, root, centre=True)
    for index in (0, 1, 3, 4):
        image = images[index]
        whole = seen(image, localizer, root, label=image.record.label, crop=False)
        crop = seen(image, localizer, root, label=int(whole.classes_b[0]), crop=True)
        for name in ("cam", "saliency"):
            np.testing.assert_array_equal(maps[index].whole[name], whole.maps[name][0].numpy())
            np.testing.assert_array_equal(maps[index].centre[name], crop.maps[name][0].numpy())
            assert (maps[index].whole[name] != maps[index].centre[name]).any()


def test_the_crop_s_map_is_of_the_class_that_the_whole_image_was_taken_for(
    localizer: NetworkLocalizer, tmp_path: Path
) -> None:
    root = make_listed_data(
        tmp_path / "data",
        {f"{number:02d}": [(1, 2, 60, 40)] for number in range(12)},
        labels={"00": 0},
        size_wh=(64, 64),
    )
    generator = np.random.default_rng(0)
    for path in (root / "val").iterdir():
        # A rim that the crop does not show, of another colour.
        rgb_hwc = np.empty((64, 64, 3), dtype=np.uint8)
        rgb_hwc[:] = generator.integers(0, 256, size=3)
        rgb_hwc[4:60, 4:60] = generator.integers(0, 256, size=(7, 7, 3)).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(rgb_hwc).save(path)
    unknown = [replace(image, index=image.index - 1) for image in loaded(root)[1:]]
    differing = 0
    for image, maps in zip(unknown, look(unknown, localizer, root, centre=True), strict=True):
        whole = seen(image, localizer, root, label=-1, crop=False).classes_b
        differing += int(whole[0]) != int(seen(image, localizer, root, label=-1, crop=True).classes_b[0])
        crop = seen(image, localizer, root, label=int(whole[0]), crop=True)
        np.testing.assert_array_equal(maps.centre["cam"], crop.maps["cam"][0].numpy())
    assert differing, "the crops alone would have been taken for the same classes"


def test_classes_come_best_first_with_the_rank_of_the_true_one(
    images: Sequence[EvaluationImage], localizer: NetworkLocalizer, root: Path
) -> None:
    for image, maps in zip(images, look(images, localizer, root, centre=False), strict=True):
        if maps.failure is not None:
            continue
        scores_k = seen(image, localizer, root, label=-1, crop=False).scores_bk[0]
        order = scores_k.argsort(descending=True).tolist()
        assert maps.top_classes is not None and maps.top_probabilities is not None
        assert maps.top_classes.tolist() == order[:5] and maps.top_classes.dtype == np.int64
        np.testing.assert_allclose(maps.top_probabilities, scores_k.exp()[order[:5]], rtol=1e-6)
        assert maps.true_rank == (order.index(image.record.label) if image.record.label >= 0 else -1)
        assert maps.file_wh == (80, 60) and maps.centre == {}


def test_classes_that_score_the_same_keep_their_order(
    images: Sequence[EvaluationImage], tmp_path: Path, root: Path
) -> None:
    # More than the 16 that numpy sorts by a method that keeps the order anyway.
    model = load_for_inference(make_checkpoint(tmp_path / "network.pt", classes=100))
    model.network.classifier.linear.weight.zero_()
    model.network.classifier.linear.bias.zero_()
    alike = NetworkLocalizer(model, localizers=["cam"])
    first, *_ = look([replace(images[0], index=0)], alike, root, centre=False)
    assert first.top_classes is not None and first.top_classes.tolist() == [0, 1, 2, 3, 4]
    assert first.true_rank == 6


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_an_image_that_does_not_read_leaves_the_others_of_its_batch(
    images: Sequence[EvaluationImage], localizer: NetworkLocalizer, root: Path, batch_size: int
) -> None:
    maps = look(images, localizer, root, centre=True, batch_size=batch_size)
    assert [of_image.failure for of_image in maps] == [None, None, UNREADABLE_IMAGE, None, None]
    assert maps[2].whole == {} and maps[2].top_classes is None and maps[2].true_rank == -1
    for one, alone in zip(maps, look(images, localizer, root, centre=True), strict=True):
        for name, map_hw in alone.whole.items():
            # Equal up to the rounding of sums, which depends on the batch.
            np.testing.assert_allclose(one.whole[name], map_hw, atol=1e-4 * np.abs(map_hw).max())


def test_a_batch_of_unreadable_images_is_not_shown_to_the_network(
    images: Sequence[EvaluationImage], localizer: NetworkLocalizer, root: Path
) -> None:
    assert [maps.failure for maps in look(images[2:3], localizer, root, centre=True)] == [UNREADABLE_IMAGE]


def test_no_images_are_no_batches(localizer: NetworkLocalizer, root: Path) -> None:
    assert look([], localizer, root, centre=True) == []
