"""Export of a trained network into one file for other programs: ONNX, or a program of ``torch.export``.

The file holds encoder and classifier alone (section 2.1 of the paper drops the rest at test time), and the decoder
where the classifier pools by its saliency; it needs none of this package's code. Input ``images01`` (B, 3, S, S)
float32 RGB in 0..1, the normalisation is inside; outputs ``scores`` (B, K) before softmax and ``activation_maps``
(B, k, h, w), neither clipped nor scaled. Any B.

Shapes: B batch, K classes, k classes whose maps are given, S side in pixels of the input, h w rows and columns.
"""

import copy
import importlib
import inspect
import io
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudo_maps import __version__
from pseudo_maps.files import write_atomically
from training.inference.localizers import InferenceModel

INPUT_NAME = "images01"
"""Name of the input in the file."""
OUTPUT_NAMES = ("scores", "activation_maps")
"""Names of the outputs in the file, in their order."""
METADATA_FILE = "metadata.json"
"""Extra file of a ``torch.export`` archive: all of the metadata as JSON."""
ONNX_OPSET = 17
"""Known to ONNX 1.12 and newer (2022); every operator here is older."""
_EXAMPLE_BATCH = 2
"""torch.export takes a batch of one for a constant."""


def export_onnx(
    model: InferenceModel,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write encoder and classifier as an ONNX file; the same weights, classes and versions give the same bytes.

    The exporter that works on TorchScript is used because it is in every supported version of torch, needs no
    onnxscript, and leaves no stack traces with local paths in the file.

    Parameters
    ----------
    path
        Target, usually ``*.onnx``; its folder has to exist. It is replaced in one step, or OSError leaves it as it was.
    classes
        Classes whose activation maps are given, in the order wanted, each once, ``0 <= class < K``. None: all.
    class_names
        Names of all K classes for the metadata (``metadata_props``, each value a string or JSON), if any.

    Raises
    ------
    ValueError
        Classes or names that do not fit, or the ``export`` extra is not installed.
    """
    onnx = _import_onnx()
    network = _ExportedNetwork(model, classes)
    metadata = _metadata(model, network, class_names)
    # The argument appeared in torch 2.5, the other exporter became its default in 2.9.
    choice = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    options: dict[str, Any] = {
        **choice,
        "opset_version": ONNX_OPSET,
        "input_names": [INPUT_NAME],
        "output_names": list(OUTPUT_NAMES),
        "dynamic_axes": {name: {0: "batch"} for name in (INPUT_NAME, *OUTPUT_NAMES)},
    }
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecation of this exporter, and remarks on checks of shapes, which are constants here.
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (_example(model),), buffer, **options)
    graph = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(
        graph, {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    )
    onnx.checker.check_model(graph)
    write_atomically(Path(path), graph.SerializeToString(deterministic=True))


def export_torch(
    model: InferenceModel,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write encoder and classifier as a program of ``torch.export``, to be read by ``torch.export.load``.

    Parameters and errors are those of ``export_onnx``, without its extra; ``path`` is usually ``*.pt2``. Metadata are
    the extra file ``metadata.json``. The program is computed on the CPU unless it is moved.
    """
    network = _ExportedNetwork(model, classes)
    metadata = _metadata(model, network, class_names)
    shapes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(network, (_example(model),), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        # Stack traces name folders of the machine that exported.
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch 2.15 warns of tensors that share storage, of which there is nothing to tell.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(metadata, indent=2)})
    write_atomically(Path(path), buffer.getbuffer())


class _ExportedNetwork(nn.Module):
    """Encoder, classifier and the class weights of the maps; one tensor in, a plain tuple out.

    Neither exporter keeps named tuples. Copied to the CPU in float32.
    """

    weights_kc: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, model: InferenceModel, classes: Sequence[int] | None) -> None:
        super().__init__()
        self.map_classes = list(range(model.classes)) if classes is None else [int(index) for index in classes]
        outside = [index for index in self.map_classes if not 0 <= index < model.classes]
        if outside or not self.map_classes or len(set(self.map_classes)) != len(self.map_classes):
            raise ValueError(
                f"classes {self.map_classes[:10]}, expected at least one, each once, from 0 to {model.classes - 1}"
            )
        network = model.network
        self.normalisation, self.encoder, self.classifier = copy.deepcopy(
            (network.normalisation, network.encoder, network.classifier)
        )
        self.decoder = copy.deepcopy(network.decoder) if network.pools_by_saliency else None
        self.cpu().float().eval().requires_grad_(False)
        self.side = model.input_size_px
        if self.decoder is not None:
            with torch.no_grad():
                height, width = self.encoder(torch.zeros(1, 3, self.side, self.side)).features.shape[2:]
            # What area interpolation does, as products: ONNX has no pooling of areas of several sizes.
            for name, cells in (("columns", width), ("rows", height)):
                self.register_buffer(name, functional.adaptive_avg_pool1d(torch.eye(self.side), cells))
        self.register_buffer("weights_kc", self.classifier.linear.weight.detach()[self.map_classes].clone())

    def forward(self, images01: Tensor) -> tuple[Tensor, Tensor]:
        features_bchw, skips = self.encoder(self.normalisation(images01))
        weights_bhw = None
        if self.decoder is not None:
            saliency_bhw = self.decoder(features_bchw, skips, size=(self.side, self.side)).sigmoid()
            weights_bhw = self.rows.T @ saliency_bhw @ self.columns
        scores_bk = self.classifier(features_bchw, weights_bhw)
        return scores_bk, torch.einsum("bchw,kc->bkhw", features_bchw, self.weights_kc)


def _example(model: InferenceModel) -> Tensor:
    return torch.zeros(_EXAMPLE_BATCH, 3, model.input_size_px, model.input_size_px)


def _metadata(model: InferenceModel, network: _ExportedNetwork, class_names: Sequence[str] | None) -> dict[str, Any]:
    """What a reader of the file has to know; values are strings or JSON."""
    metadata: dict[str, Any] = {
        "package": "saliency-aware-wsol",
        "package_version": __version__,
        "torch_version": str(torch.__version__),
        "architecture": model.arch,
        "weights_sha256_prefix": model.digest,
        "training_step": model.step,
        "input_size_px": model.input_size_px,
        "input": "RGB, whole image squashed to a square, float32 in 0..1, NCHW",
        "normalisation_inside": {"mean": list(network.encoder.mean), "std": list(network.encoder.std)},
        "activation_map_classes": network.map_classes,
    }
    if class_names is not None:
        if len(class_names) != model.classes:
            raise ValueError(f"{len(class_names)} class names, expected {model.classes}")
        metadata["class_names"] = list(class_names)
    return metadata


def _import_onnx() -> ModuleType:
    try:
        return importlib.import_module("onnx")
    except ImportError:
        raise ValueError("export to ONNX needs the extra: pip install 'saliency-aware-wsol[export]'") from None
