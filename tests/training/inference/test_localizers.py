import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.training.inference.conftest import WITH_DECODER, assert_near
from tests.training.training_runs import SIDE_PX
from training.inference.config import LOCALIZERS, Views
from training.inference.localizers import (
    InferenceModel,
    NetworkLocalizer,
    cam_times_saliency,
    load_for_inference,
)
from training.networks.model import LocalizationModel
from training.run_folder.checkpoints import save_checkpoint

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

LABELS = torch.tensor([2, 0, 1])
KINDS_OF_VIEWS = {
    "whole": Views(),
    "flip": Views(flip=True),
    "scales": Views(scales=(1.0, 1.5), flip=True),
    "ten-crop": Views(ten_crop=True),
}


# ---- pooling by the decoder's saliency


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory, states: dict[bool, dict[str, Any]]) -> InferenceModel:
    path = tmp_path_factory.mktemp("pooled") / "one.pt"
    save_checkpoint(path, {**states[True], "config": replace(WITH_DECODER, pooling="saliency").as_json()})
    return load_for_inference(path)


@pytest.mark.parametrize("names", [(), ("cam", "grad-cam"), tuple(LOCALIZERS)])
def test_scores_come_from_features_weighted_by_the_saliency(
    pooled: InferenceModel, model: InferenceModel, images: Tensor, names: tuple[str, ...]
) -> None:
    found = NetworkLocalizer(pooled, localizers=names)(images, LABELS)
    with torch.no_grad():
        plain, weighted = model.network(images), pooled.network(images)
        assert_near(found.scores_bk, weighted.scores.log_softmax(dim=1))
        assert not torch.allclose(plain.scores, weighted.scores, rtol=1e-3)
        # The activation map does not depend on the pooling. By its gradient every position counts as its weight.
        cam = pooled.network.classifier.class_activation_maps(plain.features, LABELS[:, None])[:, 0]
        weights = functional.interpolate(plain.saliency[:, None], size=cam.shape[1:], mode="area")[:, 0]
    if names:
        assert_near(found.maps["cam"], cam)
        assert_near(found.maps["grad-cam"], cam.relu() / weights[0].numel())
        assert weights.std() > 0


def test_a_checkpoint_from_before_there_was_a_choice_pools_plainly(
    model: InferenceModel, states: dict[bool, dict[str, Any]], tmp_path: Path, images: Tensor
) -> None:
    config = {name: value for name, value in states[True]["config"].items() if name != "pooling"}
    save_checkpoint(tmp_path / "one.pt", {**states[True], "config": config})
    old = load_for_inference(tmp_path / "one.pt")
    with torch.no_grad():
        assert torch.equal(old.network(images).scores, model.network(images).scores)


# ---- maps


def test_maps_of_the_whole_image(model: InferenceModel, images: Tensor) -> None:
    found = NetworkLocalizer(model, localizers=tuple(LOCALIZERS))(images, LABELS)
    with torch.no_grad():
        expected = model.network(images, cam_classes=LABELS[:, None])
    cam = expected.activation_maps[:, 0]
    assert cam.min() < 0 < cam.max()  # clipping would show
    assert_near(found.maps["cam"], cam)
    assert_near(found.maps["saliency"], expected.saliency)
    assert_near(found.probabilities_bk, expected.scores.softmax(dim=1))
    assert_near(found.scores_bk, expected.scores.log_softmax(dim=1))
    assert torch.equal(found.classes_b, LABELS) and list(found.maps) == list(LOCALIZERS)
    assert all(one.dtype == torch.float32 and not one.requires_grad for one in found.maps.values())


def test_the_mean_of_a_cam_is_its_classs_score_without_bias(model: InferenceModel, images: Tensor) -> None:
    found = NetworkLocalizer(model, localizers=["cam"])
    means = torch.stack(
        [found(images, torch.full((3,), label)).maps["cam"].mean(dim=(1, 2)) for label in range(3)], dim=1
    )
    scores = means + model.network.classifier.linear.bias
    assert_near(scores.softmax(dim=1), found(images, LABELS).probabilities_bk)


def test_grad_cam_behind_global_average_pooling_is_the_cam(model: InferenceModel, images: Tensor) -> None:
    maps = NetworkLocalizer(model, localizers=["cam", "grad-cam"])(images, LABELS).maps
    pixels = maps["cam"][0].numel()
    assert_near(maps["grad-cam"], maps["cam"].relu() / pixels)


def test_cam_times_saliency_by_hand() -> None:
    cam = torch.tensor([[[-3.0, 4.0]], [[-1.0, -2.0]]])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(2, 1, 4)
    # 0 and 4 become 0 and 1, then 0, .25, .75, 1 over four columns; without a positive value nothing is left.
    expected = torch.tensor([[[0.0, 0.5, 2.25, 4.0]], [[0.0, 0.0, 0.0, 0.0]]])
    assert torch.equal(cam_times_saliency(cam, weight), expected)


def test_the_product_is_made_of_the_merged_maps(model: InferenceModel, images: Tensor) -> None:
    enlarged = torch.nn.functional.interpolate(images, size=(73, 73))
    maps = NetworkLocalizer(model, localizers=["saliency", "cam*saliency", "cam"], views=Views(ten_crop=True))(
        enlarged, LABELS
    ).maps
    torch.testing.assert_close(maps["cam*saliency"], cam_times_saliency(maps["cam"], maps["saliency"]))
    alone = NetworkLocalizer(model, localizers=["cam*saliency"], views=Views(ten_crop=True))(enlarged, LABELS).maps
    assert list(alone) == ["cam*saliency"] and torch.equal(alone["cam*saliency"], maps["cam*saliency"])


def test_an_unknown_class_is_the_predicted_one(model: InferenceModel, images: Tensor) -> None:
    localizer = NetworkLocalizer(model, localizers=["cam", "grad-cam"], views=Views(flip=True))
    predicted = localizer(images, LABELS).probabilities_bk.argmax(dim=1)
    other = (predicted[0] + 1) % 3
    labels = torch.tensor([-1, int(other), -1])
    found = localizer(images, labels)
    assert found.classes_b.tolist() == [int(predicted[0]), int(other), int(predicted[2])]
    expected = localizer(images, found.classes_b)
    assert all(torch.equal(found.maps[name], expected.maps[name]) for name in found.maps)


def test_no_localizer_gives_the_scores_alone(model: InferenceModel, images: Tensor) -> None:
    assert NetworkLocalizer(model, localizers=[])(images, LABELS).maps == {}


@pytest.mark.parametrize("views", KINDS_OF_VIEWS.values(), ids=KINDS_OF_VIEWS)
def test_one_image_or_several_make_no_difference(model: InferenceModel, views: Views) -> None:
    localizer = NetworkLocalizer(model, localizers=tuple(LOCALIZERS), views=views)
    torch.manual_seed(2)
    several = torch.rand(3, 3, localizer.image_side_px, localizer.image_side_px)
    together = localizer(several, LABELS)
    for row in range(3):
        alone = localizer(several[row : row + 1], LABELS[row : row + 1])
        torch.testing.assert_close(alone.probabilities_bk[0], together.probabilities_bk[row], atol=1e-5, rtol=0)
        for name, maps in together.maps.items():
            scale = float(maps[row].abs().max())
            torch.testing.assert_close(alone.maps[name][0] / scale, maps[row] / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("views", KINDS_OF_VIEWS.values(), ids=KINDS_OF_VIEWS)
def test_probabilities_are_the_mean_of_softmax_over_the_views(model: InferenceModel, views: Views) -> None:
    localizer = NetworkLocalizer(model, localizers=[], views=views)
    side = localizer.image_side_px
    torch.manual_seed(2)
    several = torch.rand(3, 3, side, side)
    if views.ten_crop:
        last, middle = side - SIDE_PX, (side - SIDE_PX) // 2
        places = [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]
        shown = [several[:, :, top : top + SIDE_PX, left : left + SIDE_PX] for top, left in places]
    else:
        shown = [
            torch.nn.functional.interpolate(several, size=(size, size), mode="bilinear", antialias=True)
            for size in (round(SIDE_PX * scale) for scale in views.scales)
        ]
    if views.flip or views.ten_crop:
        shown += [window.flip(3) for window in shown]
    with torch.no_grad():
        expected = torch.stack([model.network(window).scores.softmax(dim=1) for window in shown]).mean(dim=0)
    found = localizer(several, LABELS)
    assert_near(found.probabilities_bk, expected)
    assert_near(found.scores_bk.exp(), expected)


@pytest.mark.parametrize("name", ["flip", "scales"])
def test_a_mirrored_image_has_the_mirrored_map(model: InferenceModel, name: str) -> None:
    localizer = NetworkLocalizer(model, localizers=tuple(LOCALIZERS), views=KINDS_OF_VIEWS[name])
    torch.manual_seed(2)
    several = torch.rand(3, 3, localizer.image_side_px, localizer.image_side_px)
    plain, mirrored = localizer(several, LABELS), localizer(several.flip(3), LABELS)
    assert_near(mirrored.probabilities_bk, plain.probabilities_bk)
    for localizer_name, maps in plain.maps.items():
        assert_near(mirrored.maps[localizer_name].flip(2), maps)


def test_classes_are_told_apart_where_probabilities_round_to_nothing(model: InferenceModel, images: Tensor) -> None:
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        network.classifier.linear.weight.zero_()
        network.classifier.linear.bias.copy_(torch.tensor([1000.0, 0.0, 500.0]))
    sure = InferenceModel(
        network=network, device=torch.device("cpu"), config=model.config, step=1, source=Path("made.pt")
    )
    found = NetworkLocalizer(sure, localizers=[], views=Views(flip=True))(images, LABELS)
    assert found.probabilities_bk[0].tolist() == [1, 0, 0]
    assert found.scores_bk[0].tolist() == [0, -1000, -500]


def test_bytes_and_floats_are_the_same_images(model: InferenceModel) -> None:
    pixels = torch.randint(0, 256, (2, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    localizer = NetworkLocalizer(model, localizers=["cam", "saliency"])
    of_bytes, of_floats = localizer(pixels, LABELS[:2]), localizer(pixels.double() / 255, LABELS[:2])
    for name, maps in of_bytes.maps.items():
        assert_near(of_floats.maps[name], maps)


def test_mixed_precision_is_near_and_its_scores_do_not_tie(model: InferenceModel, images: Tensor) -> None:
    exact = NetworkLocalizer(model, localizers=tuple(LOCALIZERS))(images, LABELS)
    mixed = NetworkLocalizer(model, localizers=tuple(LOCALIZERS), precision="bf16")(images, LABELS)
    assert mixed.scores_bk.dtype == torch.float32
    assert not torch.equal(mixed.scores_bk, mixed.scores_bk.bfloat16().float())
    for name, maps in mixed.maps.items():
        assert maps.dtype == torch.float32 and not torch.equal(maps, exact.maps[name])
        torch.testing.assert_close(maps, exact.maps[name], atol=0.05 * float(exact.maps[name].abs().max()), rtol=0)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"localizers": ["score-cam"]}, r"localizer 'score-cam', expected one of cam, grad-cam, saliency, cam\*sal"),
        ({"localizers": ["cam", "cam"]}, "each once"),
        ({"localizers": ["cam"], "precision": "fp16"}, "precision 'fp16', expected one of fp32, bf16"),
        ({"localizers": ["cam"], "views": Views(scales=(0.5,))}, "a view of 32 pixels"),
    ],
)
def test_localizers_without_a_meaning_are_refused(model: InferenceModel, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkLocalizer(model, **options)


def test_a_network_in_training_mode_is_refused(model: InferenceModel) -> None:
    with pytest.raises(ValueError, match="training mode"):
        NetworkLocalizer(replace_network(model, copy.deepcopy(model.network).train()), localizers=["cam"])


def replace_network(model: InferenceModel, network: LocalizationModel) -> InferenceModel:
    return InferenceModel(
        network=network, device=model.device, config=model.config, step=model.step, source=model.source
    )


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(1, 3, 72, 72), torch.tensor([0]), r"expected \(B, 3, 64, 64\) with B at least 1"),
        (torch.zeros(0, 3, 64, 64), torch.zeros(0, dtype=torch.int64), "with B at least 1"),
        (torch.zeros(1, 64, 64, 3), torch.tensor([0]), r"expected \(B, 3, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.int64), torch.tensor([0]), "expected uint8, or floating point"),
        (torch.zeros(1, 3, 64, 64), torch.tensor([0, 1]), r"labels of shape \(2,\).*expected \(1,\) int64"),
        (torch.zeros(1, 3, 64, 64), torch.tensor([0.0]), r"expected \(1,\) int64"),
        (torch.zeros(2, 3, 64, 64), torch.tensor([1, 3]), "labels from 1 to 3, expected -1 or 0 to 2"),
        (torch.zeros(1, 3, 64, 64), torch.tensor([-2]), "labels from -2 to -2"),
    ],
)
def test_other_images_and_labels_are_refused(
    model: InferenceModel, pixels: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkLocalizer(model, localizers=["cam"])(pixels, labels)
