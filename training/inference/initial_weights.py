"""Weights that a training starts from: ImageNet's, a file of torchvision's, or an earlier network of ours."""

from collections.abc import Mapping
from pathlib import Path

from training.class_names import ClassNames, match_classes
from training.inference.localizers import load_for_inference, select_classes
from training.networks.model import LocalizationModel
from training.networks.registry import TIMM_PREFIX
from training.networks.weights import (
    IMAGENET,
    RANDOM,
    LoadReport,
    WeightsError,
    initialise_from_imagenet,
    weights_identity,
)
from training.run_folder.checkpoints import CHECKPOINT_FORMAT, CheckpointFolder, read_tensors


def initialise(model: LocalizationModel, weights: str, *, arch: str, names: ClassNames) -> str:
    """Load weights into a new network in place; what was loaded, in a line or two.

    ``weights`` is ``imagenet``, the path of torchvision's state dict of the same architecture, or that of a checkpoint
    of ``wsol-train`` or of the folder of its run. From a checkpoint come encoder and, where both networks have one,
    decoder, and the classifier where the checkpoint knows all classes ``names``; else it stays random.

    Raises
    ------
    WeightsError
        The file is missing, damaged or of another network; tensors that do not fit are named.
    CheckpointError
        A checkpoint that cannot be read, or a folder without one.
    """
    path = Path(weights)
    if weights != IMAGENET and _is_ours(path):
        return _initialise_from_run(model, path, arch=arch, names=names).describe()
    if weights != IMAGENET and arch.startswith(TIMM_PREFIX):
        raise WeightsError(
            f"{path}: expected a checkpoint of wsol-train; timm's own weights are given as --arch {arch}@FILE --init "
            f"{IMAGENET}"
        )
    linear = model.classifier.linear
    return initialise_from_imagenet(model.encoder, weights=weights, linear=linear, wnids=names.wnids).describe()


def initial_weights_identity(weights: str) -> str:
    """What a checkpoint remembers of ``weights``: the name, or the SHA-256 of the file or of the newest checkpoint."""
    if weights in (IMAGENET, RANDOM):
        return weights
    folder = CheckpointFolder(weights)
    steps = folder.steps()
    return weights_identity(str(folder.path(steps[-1])) if steps else weights)


def _is_ours(path: Path) -> bool:
    """Whether a path is a folder or holds a checkpoint of ours; other files are left to the reader of state dicts."""
    if not path.is_file():
        return path.is_dir()
    try:
        loaded = read_tensors(path.read_bytes())
    except ValueError:
        return False
    return isinstance(loaded, Mapping) and loaded.get("format") == CHECKPOINT_FORMAT


def _initialise_from_run(model: LocalizationModel, path: Path, *, arch: str, names: ClassNames) -> LoadReport:
    trained = load_for_inference(path)
    if trained.arch != arch:
        raise WeightsError(f"{trained.source}: a checkpoint of {trained.arch}, expected one of {arch} (--arch)")
    parts = ["encoder", *(["decoder"] if trained.network.decoder is not None and model.decoder is not None else [])]
    try:
        match = match_classes(trained.names, names, classes=trained.classes, source=trained.source)
    except ValueError:
        note = f"a new classifier: the checkpoint's {trained.classes} classes lack some of the {len(names.wnids)} here"
    else:
        note = match.note
        trained = trained if match.columns is None else select_classes(trained, match.columns)
        parts.append("classifier")
    for part in parts:
        try:
            getattr(model, part).load_state_dict(getattr(trained.network, part).state_dict())
        except RuntimeError as error:
            # torch lists every weight that does not fit, a line each; the first two say what is wrong.
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise WeightsError(f"{trained.source}: give --no-batch-norm as it was there; {reason}") from error
    return LoadReport(source=str(trained.source), loaded=tuple(parts), random=(), notes=(note,) if note else ())
