import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals import ProposalConfig, propose
from pseudo_maps.proposals.detectors import detect_boundaries

Bytes = npt.NDArray[np.uint8]

needs_ximgproc = pytest.mark.skipif(not hasattr(cv2, "ximgproc"), reason="this OpenCV has no ximgproc")

# A forest as small as OpenCV's format allows: two equal trees of one split and two leaves.
PATCH_PX, INNER_PX, SHRINK, STRIDE, ORIENTATIONS = 32, 16, 2, 2, 4
CELLS = PATCH_PX // SHRINK
GRADIENT_CHANNEL = 3  # after L, u and v
CENTRE_GRADIENT = GRADIENT_CHANNEL * CELLS * CELLS + CELLS // 2 * CELLS + CELLS // 2
MARKED = range(5, 11)
"""Rows and columns of the 16x16 patch that a leaf on an edge marks."""


def write_forest(path: Path, *, without: str = "") -> Path:
    """A forest that marks the middle of every patch on whose centre the normalised gradient is above 0.5."""
    marks = [y * INNER_PX + x for y in MARKED for x in MARKED]
    options = {
        "stride": STRIDE,
        "shrinkNumber": SHRINK,
        "patchSize": PATCH_PX,
        "patchInnerSize": INNER_PX,
        "numberOfGradientOrientations": ORIENTATIONS,
        "gradientSmoothingRadius": 0,
        "regFeatureSmoothingRadius": 2,
        "ssFeatureSmoothingRadius": 8,
        "gradientNormalizationRadius": 4,
        "selfsimilarityGridSize": 5,
        "numberOfTrees": 2,
        "numberOfTreesToEvaluate": 1,
    }
    marks_end = len(marks)
    tables: dict[str, list[list[int]] | list[list[float]]] = {
        "childs": [[2, 0, 0]] * 2,  # node 0 leads to nodes 1 and 2, which are leaves
        "featureIds": [[CENTRE_GRADIENT, 0, 0]] * 2,
        "thresholds": [[0.5, 0.0, 0.0]] * 2,
        # Of every node where its marks begin; those of the last one end at the last number.
        "edgeBoundaries": [[0, 0, 0], [marks_end, marks_end, marks_end, 2 * marks_end]],
        "edgeBins": [marks, marks],
    }
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    if without != "options":
        storage.startWriteStruct("options", cv2.FileNode_MAP)
        for name, value in options.items():
            storage.write(name, value)
        storage.endWriteStruct()
    for name, rows in tables.items():
        if name == without:
            continue
        storage.startWriteStruct(name, cv2.FileNode_SEQ)
        for row in rows:
            storage.startWriteStruct("", cv2.FileNode_SEQ + cv2.FileNode_FLOW)
            for number in row:
                storage.write("", number)
            storage.endWriteStruct()
        storage.endWriteStruct()
    storage.release()
    return path


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_forest(tmp_path_factory.mktemp("forest") / "tiny.yml"))


@pytest.fixture
def picture() -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """A plain rectangle on plain ground, and where it is."""
    inside = np.zeros((100, 140), dtype=np.bool_)
    inside[30:70, 40:100] = True
    return np.where(inside[..., None], (200, 60, 40), (20, 30, 60)).astype(np.uint8), inside


@needs_ximgproc
def test_a_real_forest_draws_the_outline(forest: str, picture: tuple[Bytes, npt.NDArray[np.bool_]]) -> None:
    image, inside = picture
    boundaries = detect_boundaries(image, detector="structured-forest", model=forest)
    left_of_pair, _ = boundaries.weight_maps[0]
    thick = np.zeros(inside.shape)
    thick[:, :-1] = left_of_pair
    # Every second patch in both directions marks 6x6 pixels with 2 * stride^2 / inner^2, so 9 marks at most.
    assert 0.2 < thick.max() <= 9 * 2 * STRIDE**2 / INNER_PX**2 + 1e-6
    outline = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    far = cv2.dilate(outline.astype(np.uint8), np.ones((23, 23), np.uint8)) == 0
    assert not thick[far].any()
    assert np.median(thick[outline]) > 0.1
    # The bias of pixel maps, and the thinned map beside it.
    step_x, _ = boundaries.superpixel_steps(superpixel_count=100)
    assert step_x.min() == np.float32(0.01) and step_x.max() > 0.1
    assert (boundaries.weight_percent, boundaries.weight_exponent) == (25, 1)


@needs_ximgproc
def test_a_compressed_model_is_read_too(
    tmp_path: Path, forest: str, picture: tuple[Bytes, npt.NDArray[np.bool_]]
) -> None:
    packed = str(write_forest(tmp_path / "tiny.yml.gz"))
    found = [detect_boundaries(picture[0], detector="structured-forest", model=m).step_x for m in (packed, forest)]
    assert found[0].tobytes() == found[1].tobytes() and found[0].std() > 0


@needs_ximgproc
def test_saturated_marks_are_cut_at_one(tmp_path: Path, picture: tuple[Bytes, npt.NDArray[np.bool_]]) -> None:
    # All 256 pixels of every patch, and a threshold that every patch passes: 64 patches * 1/32 is 2 in each pixel.
    text = write_forest(tmp_path / "tiny.yml").read_text(encoding="utf-8").replace("[ 0.5, 0., 0. ]", "[ -1., 0., 0. ]")
    head = text[: text.index("edgeBoundaries:")]
    everything = ", ".join(map(str, range(256)))
    tail = f"edgeBoundaries:\n   - [ 0, 0, 0 ]\n   - [ 256, 256, 256, 512 ]\nedgeBins:\n   - [ {everything} ]\n"
    path = tmp_path / "all.yml"
    path.write_text(f"{head}{tail}   - [ {everything} ]\n", encoding="utf-8")
    boundaries = detect_boundaries(picture[0], detector="structured-forest", model=str(path))
    assert boundaries.weight_maps[0][0].max() == 1


@needs_ximgproc
def test_proposals_from_a_real_forest_find_the_object(
    forest: str, picture: tuple[Bytes, npt.NDArray[np.bool_]]
) -> None:
    image, inside = picture
    config = ProposalConfig(boundaries="structured-forest", superpixels=400, seeds=30)
    proposals = propose(image, config=config, boundary_model=forest)
    pixels = proposals.masks[:, proposals.labels]
    overlaps = (pixels & inside).sum(axis=(1, 2)) / (pixels | inside).sum(axis=(1, 2))
    assert overlaps.max() > 0.8


@needs_ximgproc
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (15, 15), (16, 16), (17, 19), (1, 30), (30, 1), (3, 300), (300, 10)])
def test_small_and_narrow_images_have_boundaries_too(forest: str, shape: tuple[int, int]) -> None:
    # OpenCV's forest has no patch to look at where a side is below 16 pixels.
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    boundaries = detect_boundaries(image, detector="structured-forest", model=forest)
    assert boundaries.step_x.shape == (shape[0], shape[1] - 1)
    assert boundaries.step_y.shape == (shape[0] - 1, shape[1])
    assert np.isfinite(boundaries.step_x).all() and np.isfinite(boundaries.step_y).all()


# --- bad models


@needs_ximgproc
@pytest.mark.parametrize(
    "content", [b"", b"hello world", b"\x89PNG\r\n\x1a\n" + bytes(50), b"%YAML:1.0\n---\noptions: [1, 2"]
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.yml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"boundary model .*wrong\.yml: not a structured forest model"):
        detect_boundaries(np.zeros((40, 40, 3), np.uint8), detector="structured-forest", model=str(path))


@needs_ximgproc
def test_a_file_of_the_right_kind_without_a_forest_does_not_end_the_process(tmp_path: Path) -> None:
    # Such a file makes OpenCV divide by zero or read beyond its tables: hence the process of its own.
    paths = [tmp_path / "everything.yml"]
    paths[0].write_text("%YAML:1.0\n---\ncamera: 1\n", encoding="utf-8")
    for lacking in ("options", "childs", "edgeBins"):
        paths.append(tmp_path / f"{lacking}.yml")
        write_forest(paths[-1], without=lacking)
    program = (
        "import sys, numpy as np\n"
        "from pseudo_maps.proposals.detectors import detect_boundaries\n"
        "image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        detect_boundaries(image, detector='structured-forest', model=path)\n"
        "    except ValueError as error:\n"
        "        print(error, flush=True)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"exit {ran.returncode} after {ran.stdout}: {ran.stderr[-300:]}"
    told = ran.stdout.splitlines()
    assert len(told) == len(paths)
    for line, path in zip(told, paths, strict=True):
        assert f"{path.name}: not a structured forest model" in line


@needs_ximgproc
@pytest.mark.parametrize("name", ["missing.yml", "."])
def test_a_missing_model_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"boundary model .*: no such file"):
        detect_boundaries(np.zeros((9, 9, 3), np.uint8), detector="structured-forest", model=str(tmp_path / name))


def test_opencv_without_the_module_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(ValueError, match="install opencv-contrib-python-headless"):
        detect_boundaries(
            np.zeros((9, 9, 3), np.uint8), detector="structured-forest", model=str(tmp_path / "unseen.yml")
        )
