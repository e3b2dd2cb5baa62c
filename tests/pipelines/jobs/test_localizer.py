"""``pipelines.Localizer``: images in, class, score, box and heat map out, one at a time or many."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipelines
from pipelines import Localizer
from pipelines.jobs.localizer import Prediction
from pseudo_maps.images import ImageDecodeError
from tests.integration.eval_command import make_checkpoint
from training.run_folder.checkpoints import CheckpointError

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

CLASSES = 7
SIZES = {"wide.png": (100, 30), "tall.png": (20, 90), "tiny.png": (3, 2)}


@pytest.fixture(scope="module")
def localizer(small_networks: None, tmp_path_factory: pytest.TempPathFactory) -> Localizer:
    """With names, and the newest of the checkpoints of a run."""
    folder = tmp_path_factory.mktemp("run")
    make_checkpoint(folder / "checkpoint-00000003.pt", classes=CLASSES)
    names = folder / "names.txt"
    names.write_text("".join(f"class {label}\n" for label in range(CLASSES)))
    return Localizer(folder, class_names=names, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(3)
    paths = {name: folder / name for name in (*SIZES, "broken.png")}
    for name, (width, height) in SIZES.items():
        Image.fromarray(generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)).save(paths[name])
    paths["broken.png"].write_bytes(b"not an image")
    return paths


def content(found: Prediction) -> tuple[object, ...]:
    return found.classes, found.box_xyxy, found.localized_label, found.width, found.height, found.map_hw.tobytes()


def test_a_photo_gives_class_score_box_and_heat_map(localizer: Localizer, files: dict[str, Path]) -> None:
    found = localizer(files["wide.png"])
    assert found.name == f"class {found.label}" and found.label == found.localized_label
    assert found.classes[0].label == found.label and len(found.classes) == 5
    assert 1 / CLASSES < found.score == max(one.probability for one in found.classes) <= 1
    assert found.box_xyxy is not None
    x0, y0, x1, y1 = found.box_xyxy
    assert 0 <= x0 < x1 <= 99 and 0 <= y0 < y1 <= 29
    assert found.heat_hw.shape == (30, 100) and found.heat_hw.dtype == np.uint8
    # The peak of the map lies where the heat is.
    row, column = np.unravel_index(found.map_hw.argmax(), found.map_hw.shape)
    rows, columns = found.map_hw.shape
    assert found.heat_hw[int((row + 0.5) * 30 / rows), int((column + 0.5) * 100 / columns)] > 200


def test_the_same_pixels_as_file_picture_and_array(localizer: Localizer, files: dict[str, Path]) -> None:
    picture = Image.open(files["tall.png"])
    from_file, from_picture = localizer(str(files["tall.png"])), localizer(picture.convert("RGBA"))
    assert content(from_file) == content(from_picture) == content(localizer(np.asarray(picture)))
    assert from_file.image == files["tall.png"]
    np.testing.assert_array_equal(from_file.draw(), from_picture.draw())
    assert from_file.draw().shape == (90, 20, 3) and (from_file.draw() != np.asarray(picture)).any()


def test_another_class_has_another_map(localizer: Localizer, files: dict[str, Path]) -> None:
    best, other = localizer(files["wide.png"]), localizer(files["wide.png"], label=5)
    assert other.localized_label == 5 and other.classes == best.classes
    assert (other.map_hw != best.map_hw).any()


def test_many_files_keep_their_order_in_batches_and_workers(localizer: Localizer, files: dict[str, Path]) -> None:
    paths = [files[name] for name in SIZES] * 2
    alone = [localizer(path) for path in paths]
    for options in ({"batch_size": 4}, {"batch_size": 2, "workers": 1}):
        together = list(localizer.many(paths, **options))
        assert [found.image for found in together] == paths
        for one, found in zip(alone, together, strict=True):
            np.testing.assert_allclose(found.map_hw, one.map_hw, atol=1e-4)
            assert [each.label for each in found.classes] == [each.label for each in one.classes]
    assert list(localizer.many([])) == []


def test_an_image_that_cannot_be_read_is_named(localizer: Localizer, files: dict[str, Path]) -> None:
    for path in (files["broken.png"], Path("nowhere.png")):
        with pytest.raises(ImageDecodeError, match=path.name):
            localizer(path)
    paths = [files["wide.png"], files["broken.png"], files["tall.png"]]
    with pytest.raises(ImageDecodeError, match=r"broken\.png"):
        list(localizer.many(paths))
    first, error, last = localizer.try_many(paths)
    assert isinstance(first, Prediction) and isinstance(last, Prediction) and last.image == paths[2]
    assert isinstance(error, ImageDecodeError) and "broken.png" in str(error)


def test_what_is_no_image_or_class_is_refused(localizer: Localizer, files: dict[str, Path], tmp_path: Path) -> None:
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"expected an RGB array \(H, W, 3\) of uint8"):
            localizer(array)
    with pytest.raises(ValueError, match="expected a picture of 8 bits, found mode I;16"):
        localizer(Image.new("I;16", (8, 8)))
    for label in (CLASSES, -1):
        with pytest.raises(ValueError, match=f"class {label}: expected 0 to {CLASSES - 1}"):
            localizer(files["wide.png"], label=label)
    with pytest.raises(CheckpointError, match="a folder without checkpoint"):
        Localizer(tmp_path)


def test_what_notebooks_print_is_short(localizer: Localizer, files: dict[str, Path]) -> None:
    assert repr(localizer).startswith("Localizer('")
    assert repr(localizer).endswith(
        "checkpoint-00000003.pt': alexnet-gap, 7 classes, localizer cam, protocol cam, on cpu)"
    )
    found = localizer(Image.open(files["tiny.png"]))
    assert repr(found).startswith(f"<class {found.label} ({found.score:.2f}), box ") and len(repr(found)) < 80
    assert repr(found).endswith(" of 3x2 pixels>")
    assert repr(localizer(files["tiny.png"])).startswith(f"<{files['tiny.png']}: class")


def test_the_package_has_no_other_door() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Localiser'"):
        _ = pipelines.Localiser
