import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.counts import full
from tests.training.training_runs import tiny_networks
from training.networks.model import LocalizationModel
from training.networks.perceptual import PerceptualNetwork
from training.networks.registry import ARCHITECTURES

torch.set_num_threads(1)

SIDES = {"alexnet-gap": 13, "alexnet-gap-plus": 11, "googlenet-gap": 14, "vgg16-gap": 14, "resnet50-gap": 7}


def tiny_model(**options: Any) -> LocalizationModel:
    """For what any network will do."""
    with tiny_networks():
        return LocalizationModel("alexnet-gap", 5, **options)


@functools.cache
def without_numbers(arch: str, *, decoder: bool = True) -> LocalizationModel:
    """Shapes and names alone."""
    with torch.device("meta"):
        return LocalizationModel(arch, 10, decoder=decoder).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("height", "width"), [(224, 224), (65, 97)])
def test_shapes(arch: str, height: int, width: int) -> None:
    model = without_numbers(arch)
    raised: list[torch.Size] = []
    skips: list[torch.Size] = []
    hooks = [
        block.up.register_forward_hook(lambda _module, _inputs, output: raised.append(output.shape[2:]))
        for block in model.decoder.blocks
    ]
    hooks.append(model.encoder.register_forward_hook(lambda *call: skips.extend(x.shape[2:] for x in call[-1].skips)))
    with torch.device("meta"):
        output = model(torch.empty(2, 3, height, width), cam_classes=torch.zeros(2, 3, dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    assert output.scores.shape == (2, 10)
    assert output.saliency.shape == output.saliency_logits.shape == (2, height, width)
    assert output.activation_maps.shape == (2, 3, *output.features.shape[2:])
    if height == 224:
        assert output.features.shape[2:] == (SIDES[arch], SIDES[arch])
        assert raised == skips, "a block of the decoder does not land on its skip"


def test_only_what_was_asked_for_is_made() -> None:
    with torch.device("meta"):
        images = torch.empty(2, 3, 64, 64)
        with_decoder, without = LocalizationModel("alexnet-gap", 5), LocalizationModel("alexnet-gap", 5, decoder=False)
        for output in (with_decoder(images, with_saliency=False), without(images)):
            assert output.saliency is None and output.saliency_logits is None and output.activation_maps is None


def test_encoder_and_classifier_start_the_same_with_and_without_decoder() -> None:
    images = torch.rand(2, 3, 64, 64)
    outputs = []
    for decoder in (True, False):
        torch.manual_seed(7)
        model = LocalizationModel("googlenet-gap", 5, decoder=decoder)
        torch.manual_seed(8)
        outputs.append(model.train()(images))
    assert outputs[0].saliency is not None and outputs[1].saliency is None
    assert torch.equal(outputs[0].scores, outputs[1].scores)


def test_saliency_is_the_sigmoid_of_its_logits_and_differs_over_pixels_and_images() -> None:
    torch.manual_seed(0)
    output = tiny_model()(torch.rand(2, 3, 64, 70))
    torch.testing.assert_close(output.saliency, 1 / (1 + torch.exp(-output.saliency_logits)))
    assert output.saliency.std() > 0 and not torch.equal(output.saliency[0], output.saliency[1])


def test_the_decoder_s_saliency_weights_the_features_whether_it_is_asked_for_or_not() -> None:
    torch.manual_seed(0)
    model = tiny_model(pools_by_saliency=True).eval()
    images = torch.rand(2, 3, 64, 70)
    output = model(images)
    expected = model.classifier(output.features, output.saliency)
    assert torch.equal(output.scores, expected) and torch.equal(model(images, with_saliency=False).scores, expected)
    assert not torch.equal(expected, model.classifier(output.features))
    # Through the weights nothing reaches the decoder.
    output.scores.sum().backward()
    assert all(weights.grad is None for weights in model.decoder.parameters())
    with pytest.raises(ValueError, match="pooling by the saliency needs the decoder"):
        tiny_model(pools_by_saliency=True, decoder=False)


def test_maps_that_are_given_weight_the_features() -> None:
    model = tiny_model(decoder=False).eval()
    images, maps = torch.rand(2, 3, 64, 64), torch.rand(2, 64, 64)
    output = model(images, pooling_maps=maps)
    assert torch.equal(output.scores, model.classifier(output.features, maps))
    assert not torch.equal(output.scores, model(images).scores)


@pytest.mark.parametrize("arch", ["googlenet-gap", "alexnet-gap"])
def test_images_are_normalised_inside(arch: str) -> None:
    torch.manual_seed(0)
    model = LocalizationModel(arch, 5, decoder=False).eval()
    images = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = (images - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(model(images).features, model.encoder(by_hand).features)


@pytest.mark.parametrize("arch", list(ARCHITECTURES)[: full(1, len(ARCHITECTURES))])
def test_decoder_and_perceptual_network_cost_nothing_at_test_time(arch: str) -> None:
    model, plain = without_numbers(arch), without_numbers(arch, decoder=False)
    with torch.device("meta"):
        images, classes = torch.empty(1, 3, 64, 64), torch.zeros(1, 10, dtype=torch.int64)
        with FlopCounterMode(display=False) as flops_model, torch.no_grad():
            model(images, with_saliency=False, cam_classes=classes)
        with FlopCounterMode(display=False) as flops_plain, torch.no_grad():
            plain(images, cam_classes=classes)
    assert count(model) > count(plain) == count(model.encoder) + count(model.classifier)
    assert flops_model.get_total_flops() == flops_plain.get_total_flops()
    assert not any(isinstance(part, PerceptualNetwork) for part in model.modules())
    assert {key.split(".")[0] for key in plain.state_dict()} == {"encoder", "classifier"}


def test_only_alexnet_plus_drops_features() -> None:
    dropped = {arch: without_numbers(arch, decoder=False).classifier.dropout.p for arch in ARCHITECTURES}
    assert dropped == {**dict.fromkeys(ARCHITECTURES, 0), "alexnet-gap-plus": 0.5}


@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_parameter_gets_a_gradient_in_mixed_precision(batch_norm: bool) -> None:
    torch.manual_seed(0)
    model = tiny_model(batch_norm=batch_norm)
    assert any(isinstance(part, nn.BatchNorm2d) for part in model.modules()) == batch_norm
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.rand(2, 3, 64, 64))
    assert output.features.dtype == torch.bfloat16 and output.saliency.dtype == torch.float32
    weights = torch.randn(2, 64, 64)
    (output.scores.float().square().sum() + (output.saliency * weights).sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = tiny_model().to(dtype)
    output = model(torch.rand(2, 3, 64, 64, dtype=dtype))
    assert output.scores.dtype == dtype
    assert output.saliency.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 63, 200), "63x200 pixels, expected at least 64"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "divide uint8 by 255"),
        (torch.zeros(3, 64, 64), r"expected \(B, 3, H, W\)"),
    ],
)
def test_what_is_no_image_is_refused(images: torch.Tensor, message: str) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=message):
        model(images)


def test_training_runs_as_one_graph() -> None:
    torch.manual_seed(0)
    model = tiny_model().eval()
    images, classes = torch.rand(2, 3, 64, 64), torch.tensor([[1], [2]])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected, found = model(images, cam_classes=classes), compiled(images, cam_classes=classes)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
