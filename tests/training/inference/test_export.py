import copy
import importlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.counts import full
from tests.training.training_runs import SIDE_PX, SMALL, tiny_networks
from training.config import CropConfig
from training.inference.export import INPUT_NAME, METADATA_FILE, OUTPUT_NAMES, export_onnx, export_torch
from training.inference.localizers import InferenceModel
from training.networks.model import LocalizationModel

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REPOSITORY = Path(__file__).parents[3]
NAMES = ["blue", "green", "red"]


def make_model(arch: str, *, decoder: bool = False, side: int = SIDE_PX) -> InferenceModel:
    torch.manual_seed(0)
    network = LocalizationModel(arch, len(NAMES), decoder=decoder)
    torch.nn.init.normal_(network.classifier.linear.weight)
    torch.nn.init.normal_(network.classifier.linear.bias)
    network.train()(torch.rand(4, 3, side, side))  # moves the running statistics
    return InferenceModel(
        network=network.eval().requires_grad_(False),
        device=torch.device("cpu"),
        config=replace(SMALL, arch=arch, crop=CropConfig(input_size=side)).as_json(),
        step=7,
        source=Path("made.pt"),
    )


def make_tiny_model() -> InferenceModel:
    with tiny_networks():
        return make_model("alexnet-gap", decoder=True)


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return make_tiny_model()


EXPORTS = {"one.onnx": export_onnx, "one.pt2": export_torch}
OPTIONS: dict[str, Any] = {"classes": [2, 0], "class_names": NAMES}


@pytest.fixture(scope="module")
def exported(model: InferenceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model in both formats, made with OPTIONS: tracing takes seconds."""
    pytest.importorskip("onnx", reason="needs the extra 'export'")
    folder = tmp_path_factory.mktemp("exported")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    for name, export in EXPORTS.items():
        export(model, folder / name, **OPTIONS)
    assert sorted(path.name for path in folder.iterdir()) == list(EXPORTS)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert not model.network.training
    return folder


def expected(model: InferenceModel, images: torch.Tensor, classes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        wanted = torch.tensor(classes).expand(len(images), -1)
        output = model.network(images, with_saliency=False, cam_classes=wanted)
    return output.scores, output.activation_maps


def assert_near(found: Any, wanted: torch.Tensor) -> None:
    """Equal up to the rounding of sums of many terms, whose size is that of the largest value."""
    np.testing.assert_allclose(np.asarray(found), wanted.numpy(), atol=1e-4 * float(wanted.abs().max()), rtol=0)


def run_onnx(path: Path, images: torch.Tensor) -> list[np.ndarray]:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(list(OUTPUT_NAMES), {INPUT_NAME: images.numpy()})


def run_torch(path: Path, images: torch.Tensor) -> list[torch.Tensor]:
    return torch.export.load(str(path)).module()(images)


# Tracing the layers takes seconds; by default large networks go through one of the two exporters.
@pytest.mark.parametrize(
    "arch",
    ["googlenet-gap", "timm:test_efficientnet", "resnet50-gap", "alexnet-gap-plus", "alexnet-gap"][: full(2, 5)],
)
def test_onnx_computes_what_the_network_does(tmp_path: Path, arch: str) -> None:
    pytest.importorskip("onnx", reason="needs the extra 'export'")
    model = make_model(arch)
    export_onnx(model, tmp_path / "one.onnx")
    for batch in (1, 2, 5):
        images = torch.rand(batch, 3, SIDE_PX, SIDE_PX)
        found = run_onnx(tmp_path / "one.onnx", images)
        for one, other in zip(found, expected(model, images, [0, 1, 2]), strict=True):
            assert_near(one, other)


@pytest.mark.full
@pytest.mark.parametrize("arch", ["timm:test_vit", "alexnet-gap", "googlenet-gap", "resnet50-gap"])
def test_a_torch_program_computes_what_the_network_does(tmp_path: Path, arch: str) -> None:
    model = make_model(arch)
    export_torch(model, tmp_path / "one.pt2")
    for batch in (1, 2, 5):
        images = torch.rand(batch, 3, SIDE_PX, SIDE_PX)
        found = run_torch(tmp_path / "one.pt2", images)
        for one, other in zip(found, expected(model, images, [0, 1, 2]), strict=True):
            assert_near(one, other)


def test_a_network_that_pools_by_its_saliency_takes_its_decoder_along(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra 'export'")
    with tiny_networks():
        # 70 pixels give 9 rows of features: areas of 7 and of 8 pixels.
        plain = make_model("alexnet-gap", decoder=True, side=70)
    torch.nn.init.normal_(plain.network.decoder.head.weight)
    model = replace(plain, network=copy.deepcopy(plain.network))
    model.network.pools_by_saliency = True
    images = torch.rand(3, 3, 70, 70)
    wanted = expected(model, images, [0, 1, 2])
    assert not torch.allclose(wanted[0], expected(plain, images, [0, 1, 2])[0], rtol=1e-2)
    export_onnx(model, tmp_path / "one.onnx")
    export_torch(model, tmp_path / "one.pt2")
    for found in (run_onnx(tmp_path / "one.onnx", images), run_torch(tmp_path / "one.pt2", images)):
        for one, other in zip(found, wanted, strict=True):
            assert_near(one, other)


def test_chosen_classes_come_in_the_order_wanted(exported: Path, model: InferenceModel) -> None:
    for batch in (1, 2, 5):
        images = torch.rand(batch, 3, SIDE_PX, SIDE_PX)
        for found in (run_onnx(exported / "one.onnx", images), run_torch(exported / "one.pt2", images)):
            for one, other in zip(found, expected(model, images, [2, 0]), strict=True):
                assert_near(one, other)


def check_metadata(metadata: dict[str, Any], model: InferenceModel) -> None:
    assert metadata["package"] == "saliency-aware-wsol" and metadata["package_version"]
    assert metadata["architecture"] == "alexnet-gap" and metadata["weights_sha256_prefix"] == model.digest
    assert metadata["training_step"] == 7 and metadata["input_size_px"] == SIDE_PX
    assert metadata["activation_map_classes"] == [2, 0] and metadata["class_names"] == NAMES
    assert metadata["normalisation_inside"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def exported_elements(model: InferenceModel) -> int:
    """Numbers of encoder and classifier and of the maps' weights of two classes; the decoder stays out."""
    sizes = {name: value.numel() for name, value in model.network.state_dict().items()}
    assert sum(size for name, size in sizes.items() if name.startswith("decoder.")) > 100
    return sum(size for name, size in sizes.items() if not name.startswith("decoder.")) + 2 * 16


def test_onnx_says_what_it_is(exported: Path, model: InferenceModel) -> None:
    graph = importlib.import_module("onnx").load(str(exported / "one.onnx"))
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    plain = ("package", "package_version", "torch_version", "architecture", "weights_sha256_prefix", "input")
    metadata = {name: value if name in plain else json.loads(value) for name, value in properties.items()}
    check_metadata(metadata, model)

    def shape(value: Any) -> list[int | str]:
        return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]

    assert [(value.name, shape(value)) for value in graph.graph.input] == [(INPUT_NAME, ["batch", 3, SIDE_PX, SIDE_PX])]
    assert [value.name for value in graph.graph.output] == list(OUTPUT_NAMES)
    assert shape(graph.graph.output[0]) == ["batch", 3]
    # Batch norm is folded, and the normalisation comes along.
    found = sum(math.prod(weights.dims) for weights in graph.graph.initializer)
    assert found <= exported_elements(model) + 2 * 3


def test_a_torch_program_says_what_it_is(exported: Path, model: InferenceModel) -> None:
    extra = {METADATA_FILE: ""}
    program = torch.export.load(str(exported / "one.pt2"), extra_files=extra)
    check_metadata(json.loads(extra[METADATA_FILE]), model)
    found = sum(value.numel() for value in program.state_dict.values())
    assert found == exported_elements(model)


def test_the_same_network_gives_the_same_bytes_without_local_paths(exported: Path, tmp_path: Path) -> None:
    model = make_tiny_model()
    for name, export in EXPORTS.items():
        export(model, tmp_path / name, **OPTIONS)
        encoded = (tmp_path / name).read_bytes()
        assert encoded == (exported / name).read_bytes()
        assert str(REPOSITORY).encode() not in encoded


@pytest.mark.parametrize("classes", [[], [3], [-1], [0, 0]])
def test_other_classes_are_refused(tmp_path: Path, model: InferenceModel, classes: list[int]) -> None:
    with pytest.raises(ValueError, match="expected at least one, each once, from 0 to 2"):
        export_torch(model, tmp_path / "one.pt2", classes=classes)


def test_other_numbers_of_names_are_refused(tmp_path: Path, model: InferenceModel) -> None:
    with pytest.raises(ValueError, match="2 class names, expected 3"):
        export_torch(model, tmp_path / "one.pt2", class_names=NAMES[:2])
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_error_says_what_to_install(
    tmp_path: Path, model: InferenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ValueError, match=r"pip install 'saliency-aware-wsol\[export\]'"):
        export_onnx(model, tmp_path / "one.onnx")
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_old_file(
    tmp_path: Path, model: InferenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.pt2"
    path.write_bytes(b"old")
    failing = [True]

    def save(_program: Any, buffer: io.BytesIO, **_options: Any) -> None:
        buffer.write(b"half")
        if failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "export", lambda *_, **__: SimpleNamespace(graph=SimpleNamespace(nodes=[])))
    monkeypatch.setattr(torch.export, "save", save)
    with pytest.raises(OSError, match="No space"):
        export_torch(model, path)
    assert path.read_bytes() == b"old" and [one.name for one in tmp_path.iterdir()] == ["one.pt2"]
    failing.clear()
    with pytest.raises(OSError, match="absent"):
        export_torch(model, tmp_path / "absent" / "one.pt2")
