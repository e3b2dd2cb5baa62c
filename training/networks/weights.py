"""Weights, torchvision's, timm's or our own: load a perceptual network, initialise an encoder.

Files are read with ``weights_only``, so a file can hold tensors but run nothing. Nothing falls back to random
weights: those have to be asked for by name.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from pseudo_maps.files import file_sha256
from training.networks.parts import ConvUnit, Encoder, ImportedLayer, UndrawnWeights, conv_units
from training.networks.perceptual import PerceptualNetwork
from training.networks.registry import TIMM_PREFIX, build_encoder, check_arch
from training.networks.resnet import Bottleneck, ResNet50Encoder
from training.networks.timm_networks import TimmEncoder, first_line, initialise, pretrained_encoder, weights_file
from training.run_folder.checkpoints import CHECKPOINT_FORMAT, read_tensors

IMAGENET = "imagenet"
"""Name that stands for torchvision's published ImageNet weights."""

RANDOM = "random"
"""Name that stands for random weights, for trying things out."""

_PERCEPTUAL_OPTION = "--perceptual-weights"
_INIT_OPTION = "--init"
"""Options of ``wsol-train`` that take the path of a weights file, for error messages."""

_RESNET50 = "resnet50-gap"
"""Architecture of the paper's F, and of a checkpoint that does not name its own."""

_OUR_PREFIX = "encoder."
"""Keys of a ``LocalizationModel``'s encoder begin with it; no torchvision key does."""

_PARALLEL_PREFIX = "module."
"""Put before every key by ``DataParallel`` and ``DistributedDataParallel``."""

_RANDOM_BRANCH_SCALE = 0.25
"""Last batch norm factor of each of the 16 blocks of a random ResNet-50 (1 / sqrt 16): without statistics of
its own batch norm does nothing, and the variance would double in every block."""

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")
"""Beginning of the SHA-256 in the name of a file that torchvision publishes: ``resnet50-11ad3fa6.pth``."""

_NAMED_AT_MOST = 4
"""Problems that an error lists by name."""


class WeightsError(ValueError):
    """Weights that cannot be had, read or used; the message says which, and what to do."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Which layers of an encoder were loaded, and which kept their random weights."""

    source: str
    """Name or path of the weights."""
    loaded: tuple[str, ...]
    """Layers that were loaded, in the order of the network."""
    random: tuple[str, ...]
    """Layers of the encoder that were not, in the order of the network. The decoder is never loaded."""
    notes: tuple[str, ...] = ()
    """What else a reader of the log should know."""

    def describe(self) -> str:
        """One or two lines for a log."""
        rest = ", ".join((*self.random, *(part for part in ("classifier", "decoder") if part not in self.loaded)))
        lines = (f"initialised from {self.source}: {', '.join(self.loaded)}; random: {rest}", *self.notes)
        return "\n".join(lines)


def load_perceptual_network(weights: str, *, seed: int = 0) -> PerceptualNetwork:
    """Load the fixed network F.

    ``weights`` is ``"imagenet"``: torchvision's ResNet-50 (``IMAGENET1K_V2``), from torch.hub's cache or downloaded
    into it; ``"random"``, drawn from ``seed`` without moving the global generator; ``timm:NAME`` or ``timm:NAME@FILE``,
    see ``pretrained_network``; or the path of a torchvision state dict of a ResNet-50, or of a checkpoint of our own
    trainer, of any architecture.

    Raises
    ------
    WeightsError
        The download failed (the message says which file to put where), or the file is missing, damaged,
        holds something else, or tensors that are missing, of other shapes or not finite.
    ValueError
        What ``pretrained_network`` refuses.
    """
    if weights == RANDOM:
        return PerceptualNetwork(_random_trunk(seed=seed))
    if weights.startswith(TIMM_PREFIX):
        return PerceptualNetwork(pretrained_encoder(weights))
    loaded, where = _load(weights, published=ResNet50Encoder.published_weights, path_option=_PERCEPTUAL_OPTION)
    state = _state_dict(loaded, where=where)
    if any(key.startswith(_OUR_PREFIX) for key in state):
        return PerceptualNetwork(_trunk_of_our_checkpoint(loaded, state, where=where))
    with UndrawnWeights():
        trunk = build_encoder(_RESNET50)
    _import_layers(trunk, state, where=where, network="a torchvision ResNet-50")
    return PerceptualNetwork(trunk)


def weights_identity(weights: str) -> str:
    """What a checkpoint remembers of F's weights: SHA-256 of the file; the name where there is none."""
    path = Path(weights_file(weights) if weights.startswith(TIMM_PREFIX) else weights)
    return file_sha256(path) if path.is_file() else weights


def initialise_from_imagenet(
    encoder: Encoder, *, weights: str = IMAGENET, linear: nn.Linear | None = None, wnids: Sequence[str] = ()
) -> LoadReport:
    """Load what torchvision has into an encoder, in place; the rest keeps its weights.

    A network of timm gets all of its published weights; ``linear``, the last layer of the classifier, too where the
    classes ``wnids`` are those of ILSVRC.

    In evaluation mode the loaded layers compute what torchvision's do. Batch norm that torchvision lacks (AlexNet)
    starts as the identity with the bias as its shift; batch norm that the encoder lacks is folded in.
    ``weights`` is ``"imagenet"`` or the path of a file with the same content. WeightsError as
    ``load_perceptual_network``.
    """
    if isinstance(encoder, TimmEncoder):
        parts = initialise(encoder, linear=linear, wnids=wnids)
        return LoadReport(source=weights_file(encoder.name) or f"timm's {encoder.name}", loaded=parts, random=())
    published = encoder.published_weights
    loaded, where = _load(weights, published=published, path_option=_INIT_OPTION)
    layers = encoder.imported_layers()
    network = f"a torchvision {published.partition('_')[0]}"
    _import_layers(encoder, _state_dict(loaded, where=where), where=where, network=network)
    notes = encoder.adapt_to_imported_weights()
    units = conv_units(encoder)
    if any(units[name].norm is not None for name, layer in layers.items() if layer.norm is None):
        notes += (
            "the weights have no batch norm: it starts as the identity, and the first training step replaces "
            "that by the batch's statistics; without batch norm the network starts as it was trained",
        )
    return LoadReport(
        source=where,
        loaded=tuple(name for name in units if name in layers),
        random=tuple(name for name in units if name not in layers),
        notes=notes,
    )


def _random_trunk(*, seed: int) -> ResNet50Encoder:
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the accelerators' generators as well.
        torch.default_generator.manual_seed(seed)
        trunk = ResNet50Encoder(batch_norm=True)
    for block in trunk.modules():
        if isinstance(block, Bottleneck) and block.expand.norm is not None:
            nn.init.constant_(block.expand.norm.weight, _RANDOM_BRANCH_SCALE)
    return trunk


def _load(weights: str, *, published: str, path_option: str) -> tuple[Any, str]:
    """What a file holds, and how messages call it; ``path_option``: the option that takes the path of a file."""
    if weights == IMAGENET:
        return _download(published, path_option=path_option), published
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected {path_option} {IMAGENET} or the path of a weights file")
    try:
        loaded = read_tensors(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a file of tensors that torch.save made, or damaged or truncated ({first_line(error)})"
        ) from error
    if isinstance(loaded, Mapping) and loaded.get("format") == CHECKPOINT_FORMAT:
        return loaded.get("state"), str(path)
    return loaded, str(path)


def _download(published: str, *, path_option: str) -> Any:
    # torchvision takes a second to import and nothing else here needs it.
    from torchvision.models import get_weight  # type: ignore[import-untyped]

    entry = get_weight(published)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    target = folder / PurePosixPath(urlsplit(entry.url).path).name
    was_there = target.is_file()
    if was_there:
        _check_hash(target, url=entry.url)
    try:
        return entry.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
    except MemoryError:
        raise
    except Exception as error:
        # urllib's, the hash check's, the disk's and torch.load's errors have nothing in common.
        if was_there:
            raise WeightsError(_replace_file(target, entry.url, first_line(error))) from error
        size_mb = entry.meta.get("_file_size")
        size = "" if size_mb is None else f" ({size_mb:.0f} MB)"
        raise WeightsError(
            f"cannot download the ImageNet weights {published} ({first_line(error)}). Where there is no network, "
            f"fetch {entry.url}{size} elsewhere and put it into {folder} as {target.name}, or pass its path: "
            f"{path_option} PATH"
        ) from error


def _check_hash(path: Path, *, url: str) -> None:
    """Compare a file that lay in the cache with the hash in its name; torch.hub does so after a download only."""
    stated = _HASH_IN_NAME.search(path.name)
    if stated is None:
        return
    found = file_sha256(path)
    if not found.startswith(stated[1]):
        raise WeightsError(_replace_file(path, url, f"its SHA-256 begins with {found[: len(stated[1])]}"))


def _replace_file(path: Path, url: str, reason: str) -> str:
    return f"{path}: damaged or another file ({reason}); delete it and try again, or put {url} in its place"


def _state_dict(loaded: Any, *, where: str) -> dict[str, Tensor]:
    """The tensors of a state dict, bare or under ``model`` or ``state_dict``."""
    inner = loaded
    if isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in ("model", "state_dict") if isinstance(loaded.get(key), Mapping)), loaded)
    state = (
        {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if isinstance(inner, Mapping)
        else {}
    )
    if not state:
        raise WeightsError(f"{where}: holds no named tensors, expected a state dict")
    if all(key.startswith(_PARALLEL_PREFIX) for key in state):
        state = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
    return state


def _trunk_of_our_checkpoint(loaded: Any, state: dict[str, Tensor], *, where: str) -> Encoder:
    stored = loaded.get("config") if isinstance(loaded, Mapping) else None
    config = stored if isinstance(stored, Mapping) else {}
    arch = config.get("arch", _RESNET50)
    try:
        check_arch(arch)
    except ValueError as error:
        raise WeightsError(f"{where}: a checkpoint of another program: {error}") from None
    ours = {key.removeprefix(_OUR_PREFIX): value for key, value in state.items() if key.startswith(_OUR_PREFIX)}
    with UndrawnWeights():
        batch_norm, stride = any(key.endswith(".norm.weight") for key in ours), config.get("output_stride")
        trunk = build_encoder(arch, batch_norm=batch_norm, output_stride=stride)
    wanted = {name: (value.shape, value.is_floating_point()) for name, value in trunk.state_dict().items()}
    problems = [_problem(ours, name, shape) for name, (shape, floating) in wanted.items() if floating]
    _refuse(problems, where=where, network=f"a checkpoint of {arch}")
    trunk.load_state_dict(ours)
    return trunk


def _import_layers(target: Encoder, state: Mapping[str, Tensor], *, where: str, network: str) -> None:
    """Load all of torchvision's layers or, when anything is wrong with one, none."""
    units = conv_units(target)
    problems: list[str | None] = []
    sources: dict[str, ConvUnit] = {}
    for name, layer in target.imported_layers().items():
        source = _unit_of(layer, like=units[name])
        named = {"conv": layer.conv, "norm": layer.norm}
        for key, value in source.state_dict().items():
            part, _, tensor = key.partition(".")
            if tensor != "num_batches_tracked":
                theirs = f"{named[part]}.{tensor}"
                problems.append(_problem(state, theirs, value.shape))
                if problems[-1] is None:
                    value.copy_(state[theirs])
        sources[name] = source
    _refuse(problems, where=where, network=network)
    for name, source in sources.items():
        units[name].copy_from(source)


def _unit_of(layer: ImportedLayer, *, like: ConvUnit) -> ConvUnit:
    """A unit of the geometry that torchvision has in place of ``like``, without values."""
    # torchvision's GoogLeNet has 3x3 kernels where Inception v1 and we have 5x5.
    kernel = like.conv.weight.shape[-1] - (2 if layer.centred else 0)
    with UndrawnWeights():
        return ConvUnit(
            like.conv.in_channels,
            like.conv.out_channels,
            kernel=kernel,
            batch_norm=layer.norm is not None,
            norm_eps=like.norm_eps,
        )


def _problem(state: Mapping[str, Tensor], key: str, shape: Sequence[int]) -> str | None:
    """What is wrong with a tensor of a state dict; None when it can be used."""
    found = state.get(key)
    if found is None:
        return f"{key} is missing"
    if tuple(found.shape) != tuple(shape):
        return f"{key} has shape {tuple(found.shape)}, expected {tuple(shape)}"
    if found.is_meta or not found.is_floating_point() or not bool(torch.isfinite(found).all()):
        return f"{key} holds something else than finite floating-point numbers"
    return None


def _refuse(found: Sequence[str | None], *, where: str, network: str) -> None:
    problems = [problem for problem in found if problem is not None]
    if problems:
        named = "; ".join(problems[:_NAMED_AT_MOST])
        more = f"; and {len(problems) - _NAMED_AT_MOST} more" if len(problems) > _NAMED_AT_MOST else ""
        raise WeightsError(f"{where}: expected the weights of {network}: {named}{more}")
