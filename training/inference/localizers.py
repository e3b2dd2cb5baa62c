"""Trained network at test time: loaded from a checkpoint, images to class scores and maps.

A localizer is a rule that makes one map of the whole image for one class; ``LOCALIZERS`` names them. Threshold,
box and overlap are the evaluator's.

Shapes: B batch, K classes, V views, C channels, R side in pixels of the images given, h w rows and columns of a map.
"""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.class_names import NO_NAMES, ClassNames, stored_names
from training.config import Precision
from training.inference.config import LOCALIZERS, Views
from training.inference.grad_cam import grad_cam
from training.inference.views import merge_maps, show
from training.networks.classifier import normalised_cam
from training.networks.model import LocalizationModel
from training.networks.parts import UndrawnWeights
from training.networks.registry import TIMM_PREFIX
from training.networks.timm_networks import imagenet_classifier
from training.run_folder.checkpoints import CheckpointError, CheckpointFolder, load_checkpoint

_OF_THE_DECODER = frozenset({"saliency", "cam*saliency"})
_DIGEST_CHARACTERS = 12
"""48 bits: enough to tell weights apart in a report."""
UNKNOWN_CLASS = -1
"""Label of an image whose class is unknown: the predicted class takes its place."""


@dataclass(frozen=True, kw_only=True)
class InferenceModel:
    """A trained network in evaluation mode."""

    network: LocalizationModel
    """In evaluation mode, without gradients to its weights, with a decoder when the checkpoint has one."""
    device: torch.device
    """Where the network is."""
    config: Mapping[str, Any]
    """Configuration of the training run, as ``TrainConfig.as_json`` gives it."""
    step: int
    """Steps of the optimiser behind the weights."""
    source: Path
    """The checkpoint file, or ``timm:NAME`` as it was given."""
    names: ClassNames = NO_NAMES
    """Names of the K classes, as the training's data set knew them; empty where the checkpoint has none."""
    images_sha256: str | None = None
    """``images_digest`` of the training images; None where the checkpoint has none."""
    digest: str = field(init=False)
    """First 12 hexadecimal digits of the SHA-256 of all weights and their names."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _weights_digest(self.network))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Human-readable names of the K classes, wnids where there are none, empty where both are unknown."""
        return self.names.words or self.names.wnids

    @property
    def arch(self) -> str:
        """Architecture, a name of ``training.networks.registry``."""
        return str(self.config["arch"])

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return int(self.config["classes"])

    @property
    def input_size_px(self) -> int:
        """Side in pixels of the square that the network was trained on."""
        return int(self.config["crop"]["input_size"])


def load_for_inference(
    path: str | os.PathLike[str], *, device: torch.device | str = "cpu", require_decoder: bool = False
) -> InferenceModel:
    """Read a trained network, in evaluation mode; nothing in the file is executed.

    ``path`` is a checkpoint file of ``wsol-train``, or the folder of a run: then its newest checkpoint that can be
    read, with DamagedCheckpointWarning where a newer one cannot. ``timm:NAME`` or ``timm:NAME@FILE`` is the network
    that ``imagenet_classifier`` gives, at step 0. ``require_decoder`` refuses a network without decoder before any
    image is looked at.

    Raises
    ------
    CheckpointError
        Nothing is there, the folder holds no checkpoint, the file is damaged or of another program, its weights do
        not fit its configuration, or a decoder is required and missing.
    ValueError
        What ``imagenet_classifier`` refuses.
    """
    if os.fspath(path).startswith(TIMM_PREFIX):
        return _load_published(os.fspath(path), device=device, require_decoder=require_decoder)
    source, state = _find_state(Path(path))
    missing = [name for name in ("model", "config", "step") if name not in state]
    if missing:
        raise CheckpointError(
            f"{source}: a checkpoint without {', '.join(missing)}, expected one that wsol-train wrote in a run's folder"
        )
    config, weights = state["config"], state["model"]
    has_decoder = any(name.startswith("decoder.") for name in weights)
    if require_decoder and not has_decoder:
        raise _lacks_decoder(source, method=config.get("method"))
    try:
        with UndrawnWeights():
            network = LocalizationModel(
                config["arch"],
                config["classes"],
                batch_norm=config["batch_norm"],
                decoder=has_decoder,
                # Checkpoints from before there was a choice have none.
                pools_by_saliency=config.get("pooling") == "saliency",
                output_stride=config.get("output_stride"),
            )
        _check_input_size(config["crop"]["input_size"])
        names = stored_names(state)
        for stored in filter(None, names):
            if len(stored) != config["classes"]:
                raise ValueError(f"{len(stored)} class names, expected {config['classes']}")
        network.load_state_dict(weights, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # torch lists every weight that does not fit, a line each; the first two say what is wrong.
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise CheckpointError(
            f"{source}: its weights and its configuration make no network: {type(error).__name__}: {reason}; use the "
            "version of the program that wrote it"
        ) from error
    network.eval().requires_grad_(False)
    return InferenceModel(
        network=network.to(device),
        device=torch.device(device),
        config=config,
        step=int(state["step"]),
        source=source,
        names=names,
        images_sha256=state.get("images_sha256"),
    )


def _load_published(spec: str, *, device: torch.device | str, require_decoder: bool) -> InferenceModel:
    if require_decoder:
        raise _lacks_decoder(spec, method="gap")
    found = imagenet_classifier(spec)
    return InferenceModel(
        network=found.network.to(device),
        device=torch.device(device),
        config={
            "arch": found.arch,
            "classes": len(found.names.wnids),
            "method": "gap",
            "crop": {"input_size": found.input_size_px},
        },
        step=0,
        source=Path(spec),
        names=found.names,
    )


def _lacks_decoder(source: str | Path, *, method: object) -> CheckpointError:
    return CheckpointError(
        f"{source}: a network without decoder (method {method!r}), which has no saliency map; "
        "expected one of method 'saliency', or use the localizers cam and grad-cam"
    )


def select_classes(model: InferenceModel, columns: Sequence[int]) -> InferenceModel:
    """The network with the scores of ``columns`` alone, labels of its classes, in their order; its digest is another.

    The network of ``model`` itself is changed.
    """
    linear = model.network.classifier.linear
    chosen = torch.tensor(columns, device=model.device)
    linear.weight = nn.Parameter(linear.weight[chosen], requires_grad=False)
    linear.bias = nn.Parameter(linear.bias[chosen], requires_grad=False)
    linear.out_features = len(columns)
    names = ClassNames(*(tuple(known[column] for column in columns) if known else () for known in model.names))
    return replace(model, config={**model.config, "classes": len(columns)}, names=names)


def _find_state(path: Path) -> tuple[Path, dict[str, Any]]:
    if path.is_dir():
        found = CheckpointFolder(path).latest()
        if found is None:
            raise CheckpointError(
                f"{path}: a folder without checkpoint-<step>.pt, expected the --out folder of wsol-train or a "
                "checkpoint file in it"
            )
        return found.path, found.state
    if not path.exists():
        raise CheckpointError(f"{path}: nothing is there, expected a checkpoint file or the folder of a run")
    return path, load_checkpoint(path)


def _check_input_size(side_px: object) -> None:
    if not isinstance(side_px, int) or side_px < 1:
        raise ValueError(f"input size {side_px!r}, expected pixels")


def _weights_digest(network: LocalizationModel) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # As bytes because numpy knows no bfloat16.
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


def available_localizers(model: InferenceModel) -> tuple[str, ...]:
    """Names from ``LOCALIZERS`` that this network can give: those of the decoder only where it has one."""
    return tuple(name for name in LOCALIZERS if name not in _OF_THE_DECODER or model.network.decoder is not None)


@dataclass(frozen=True, kw_only=True)
class Localization:
    """Output for a batch of images, on the network's device."""

    scores_bk: Tensor
    """(B, K) float32, natural logarithm of the probabilities; tells classes apart where these round to 0 or 1."""
    probabilities_bk: Tensor
    """(B, K) float32, softmax of the class scores, averaged over the views."""
    classes_b: Tensor
    """(B,) int64, the class that each image's maps are of: its label, or the predicted class where that is unknown."""
    maps: dict[str, Tensor]
    """For each localizer (B, h, w) float32: a map of the whole image, of any size and scale, rows and columns spread
    evenly over it."""


class NetworkLocalizer:
    """Class scores and maps of images, for names from ``available_localizers(model)``, each once; none: scores alone.

    With the precision ``bf16``, encoder and decoder run under autocast; scores and class activation maps are computed
    in float32 from the features in both cases. On CUDA, torch's own setting decides whether float32 convolutions use
    TF32.

    Raises
    ------
    ValueError
        A localizer that is unknown, named twice, or that this network cannot give; a network in training mode; a
        view too small; another precision.
    """

    def __init__(
        self,
        model: InferenceModel,
        *,
        localizers: Sequence[str],
        views: Views | None = None,
        precision: Precision = "fp32",
    ) -> None:
        for name in localizers:
            if name not in LOCALIZERS:
                raise ValueError(f"localizer {name!r}, expected one of {', '.join(LOCALIZERS)}")
            if name not in available_localizers(model):
                raise ValueError(
                    f"localizer {name!r} needs a decoder, and {model.source} has none: use a network trained with "
                    f"--method saliency, or one of {', '.join(available_localizers(model))}"
                )
        if len(set(localizers)) != len(localizers):
            raise ValueError(f"localizers {', '.join(localizers)}, expected each once")
        if precision not in get_args(Precision):
            raise ValueError(f"precision {precision!r}, expected one of {', '.join(get_args(Precision))}")
        if model.network.training:
            raise ValueError("the network is in training mode, where images of a batch see one another: call eval()")
        self._model = model
        self._localizers = tuple(localizers)
        self._plan = (views or Views()).plan(model.input_size_px)
        self._precision = precision
        self.image_side_px = (views or Views()).image_side_px(model.input_size_px)
        """Side R in pixels of the images that are expected."""

    def __call__(self, images_bchw: Tensor, labels_b: Tensor) -> Localization:
        """Look at a batch; the result is equal, up to rounding, for any way of cutting the images into batches.

        The predicted class has the largest mean of softmax over the views, as in the CAM release (``scoresMean`` of
        its ``ILSVRC_generate_heatmap.m``).

        ``images[B, 3, R, R]`` are RGB with R = ``image_side_px`` and B at least 1, on any device: uint8, or floating
        point in 0..1; the whole image squashed, or the part of it that the maps shall show. ``labels[B]`` int64 with
        ``0 <= label < K`` are the classes whose maps are wanted; -1 for the predicted class. ValueError otherwise.
        """
        self._check(images_bchw, labels_b)
        with torch.no_grad():
            images01_bchw = self._to_unit(images_bchw)
            looks = [self._look(show(images01_bchw, view)) for view in self._plan]
            log_probabilities = torch.stack([look.scores_bk.log_softmax(dim=1) for look in looks])
            scores_bk = log_probabilities.logsumexp(dim=0) - math.log(len(looks))
            labels_b = labels_b.to(self._model.device)
            classes_b = torch.where(labels_b == UNKNOWN_CLASS, scores_bk.argmax(dim=1), labels_b)
            return Localization(
                scores_bk=scores_bk,
                probabilities_bk=scores_bk.exp(),
                classes_b=classes_b,
                maps=self._maps(looks, classes_b),
            )

    def _check(self, images: Tensor, labels: Tensor) -> None:
        side = self.image_side_px
        if images.dim() != 4 or images.shape[1:] != (3, side, side) or not len(images):
            raise ValueError(
                f"images of shape {tuple(images.shape)}, expected (B, 3, {side}, {side}) with B at least 1"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images of dtype {images.dtype}, expected uint8, or floating point in 0..1")
        if labels.shape != (len(images),) or labels.dtype != torch.int64:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} and dtype {labels.dtype}, expected ({len(images)},) int64"
            )
        low, high = (int(value) for value in labels.aminmax())
        if low < UNKNOWN_CLASS or high >= self._model.classes:
            raise ValueError(
                f"labels from {low} to {high}, expected -1 or 0 to {self._model.classes - 1}: the network knows "
                f"{self._model.classes} classes"
            )

    def _to_unit(self, images: Tensor) -> Tensor:
        integers = images.dtype == torch.uint8
        images = images.to(self._model.device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
        return images / 255 if integers else images

    def _look(self, images01_bchw: Tensor) -> "_Look":
        wanted = not _OF_THE_DECODER.isdisjoint(self._localizers)
        device_type = self._model.device.type
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=self._precision == "bf16"):
            output = self._model.network(images01_bchw, with_saliency=wanted)
        # Again from float32 features: in bfloat16 neighbouring scores are up to 1 % apart, and classes tie.
        features_bchw = output.features.float()
        saliency_bhw = None if output.saliency is None else output.saliency.float()
        weights_bhw = saliency_bhw if self._model.network.pools_by_saliency else None
        scores_bk = self._model.network.classifier(features_bchw, weights_bhw)
        return _Look(scores_bk, features_bchw, saliency_bhw, weights_bhw)

    def _maps(self, looks: "Sequence[_Look]", classes_b: Tensor) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        classifier = self._model.network.classifier
        if not {"cam", "cam*saliency"}.isdisjoint(self._localizers):
            of_classes = classes_b[:, None]
            made["cam"] = self._merge(
                [classifier.class_activation_maps(look.features_bchw, of_classes)[:, 0] for look in looks]
            )
        if "grad-cam" in self._localizers:
            made["grad-cam"] = self._merge(
                [
                    grad_cam(look.features_bchw, partial(classifier, weights_bhw=look.weights_bhw), classes_b)
                    for look in looks
                ]
            )
        if not _OF_THE_DECODER.isdisjoint(self._localizers):
            saliency = [look.saliency_bhw for look in looks if look.saliency_bhw is not None]
            made["saliency"] = self._merge(saliency)
        if "cam*saliency" in self._localizers:
            made["cam*saliency"] = cam_times_saliency(made["cam"], made["saliency"])
        return {name: made[name] for name in self._localizers}

    def _merge(self, maps_bhw: Sequence[Tensor]) -> Tensor:
        return merge_maps(maps_bhw, self._plan, side_px=self.image_side_px)


@dataclass(frozen=True)
class _Look:
    """Output of the network for one view of a batch."""

    scores_bk: Tensor
    features_bchw: Tensor
    saliency_bhw: Tensor | None
    weights_bhw: Tensor | None
    """Weights of the classifier's mean."""


def cam_times_saliency(cam_bhw: Tensor, saliency_bhw: Tensor) -> Tensor:
    """(B, H, W): ``cam[B, h, w]``, clipped at 0, divided by its maximum, resized bilinear, times ``saliency[B, H, W]``.

    A map without a positive value gives zeros.
    """
    size = (saliency_bhw.shape[1], saliency_bhw.shape[2])
    share_b1hw = normalised_cam(cam_bhw)[:, None]
    enlarged = functional.interpolate(share_b1hw, size=size, mode="bilinear", align_corners=False)
    return enlarged[:, 0] * saliency_bhw
