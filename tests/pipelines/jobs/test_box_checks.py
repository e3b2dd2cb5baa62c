"""Boxes that do not belong to the files that are there: refused, or named with their number."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.maps import open_stored_maps
from pipelines.datasets import DatasetError, open_dataset
from pipelines.jobs.box_checks import COMPARED_FILES, check_map_shapes
from pipelines.jobs.evaluation_set import load_evaluation_set
from tests.integration.eval_command import evaluate, evaluated, make_listed_data, result_of
from tests.integration.prep_command import prep

WIDTH, HEIGHT = 80, 40
NAMES = [f"{number:02d}" for number in range(1, 13)]
BOXES = {
    name: (4.0 + 2 * number, 4.0 + number, 34.0 + 2 * number, 24.0 + number)
    for number, name in enumerate(NAMES, start=1)
}
"""One object in each of twelve images, from the upper left to the lower right."""


def make_lists(root: Path, *, sizes: bool = True, change: Callable[..., tuple[float, ...]] | None = None) -> Path:
    boxes = {name: change(*box) if change else box for name, box in BOXES.items()}
    listed = {name: [box] for name, box in boxes.items()}
    return make_listed_data(root, listed, sizes=sizes, size_wh=(WIDTH, HEIGHT))  # type: ignore[arg-type]


def make_perfect_maps(folder: Path) -> Path:
    for name, (x0, y0, x1, y1) in BOXES.items():
        map_hw = np.zeros((HEIGHT, WIDTH), np.float32)
        map_hw[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = 1
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", map_hw)
    return folder


def exchange_sizes(root: Path, *, lines: int = len(NAMES)) -> None:
    path = root / "image_sizes.txt"
    rows = path.read_text().splitlines()
    exchanged = [row.replace(f"{WIDTH},{HEIGHT}", f"{HEIGHT},{WIDTH}") for row in rows[:lines]]
    path.write_text("\n".join(exchanged + rows[lines:]) + "\n")


def as_sizes(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    return x0, y0, x1 - x0 + 1, y1 - y0 + 1


def as_centres(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def as_shares(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    return x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT


def enlarged(*box: float) -> tuple[float, ...]:
    return tuple(2 * side for side in box)


def reduced(*box: float) -> tuple[float, ...]:
    return tuple(side / 3 for side in box)


def warnings_of(root: Path) -> tuple[str, ...]:
    return load_evaluation_set(open_dataset(root, split="val")).warnings


# --- perfect maps give 100, or the boxes are refused


@pytest.mark.parametrize("sizes", [True, False], ids=["lists state sizes", "files alone"])
def test_perfect_maps_score_100(tmp_path: Path, sizes: bool) -> None:
    root = make_lists(tmp_path / "data", sizes=sizes)
    metrics = evaluated(
        tmp_path / "out", "maps", make_perfect_maps(tmp_path / "maps"), "--data", root, "--protocol", "cam"
    )
    assert result_of(metrics, "pseudo-map", "cam")["gt_known_loc"]["rate"] == 1
    assert metrics["counts"]["notes"] == {} and warnings_of(root) == ()


@pytest.mark.parametrize(
    ("change", "sizes", "found"),
    [
        (as_sizes, True, "x, y, width, height"),
        (as_sizes, False, "x, y, width, height"),
        (enlarged, True, f"beyond {WIDTH} x {HEIGHT} pixels"),
        (enlarged, False, f"beyond {WIDTH} x {HEIGHT} pixels"),
        (reduced, False, "smaller version"),
        (as_centres, True, "corners out of order, which were put in order: 7 of 12 images"),
        (as_shares, True, "shares of the sides"),
        (as_shares, False, "shares of the sides"),
    ],
)
def test_boxes_of_another_convention_or_version_are_refused(
    tmp_path: Path, change: Callable[..., tuple[float, ...]], sizes: bool, found: str
) -> None:
    root = make_lists(tmp_path / "data", sizes=sizes, change=change)
    maps = make_perfect_maps(tmp_path / "maps")
    result = evaluate("maps", maps, "--data", root, "--protocol", "cam", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert found in result.stderr and "val/0" in result.stderr
    assert not (tmp_path / "out").exists()


def test_exchanged_width_and_height_are_refused(tmp_path: Path) -> None:
    root = make_lists(tmp_path / "data")
    exchange_sizes(root)
    with pytest.raises(DatasetError, match=r"12 of 12 images .* 40 x 80 pixels, the file has 80 x 40, .*exchanged"):
        warnings_of(root)


def test_boxes_scale_with_a_larger_version_that_the_lists_state(tmp_path: Path) -> None:
    root = make_lists(tmp_path / "data", change=enlarged)
    sizes = root / "image_sizes.txt"
    sizes.write_text(sizes.read_text().replace(f"{WIDTH},{HEIGHT}", f"{2 * WIDTH - 1},{2 * HEIGHT}"))
    assert warnings_of(root) == ()


# --- single mistakes are named, and the rest is scored


def test_single_mistakes_are_a_warning_with_number_and_names(tmp_path: Path) -> None:
    root = make_lists(tmp_path / "data")
    boxes = root / "localization.txt"
    boxes.write_text(boxes.read_text() + "val/03.png,10,10,90,20\n")
    boxes.write_text(boxes.read_text() + "val/04.png,30,20,10,10\n")
    exchange_sizes(root, lines=1)
    shape, beyond, swapped = warnings_of(root)
    assert "1 of 12 images" in swapped and "val/04.png" in swapped
    assert "1 of 12 images" in beyond and "val/03.png" in beyond
    assert "1 of 12 images" in shape and "val/01.png" in shape


def test_a_third_mistake_in_twelve_is_more_than_chance(tmp_path: Path) -> None:
    root = make_lists(tmp_path / "data")
    exchange_sizes(root, lines=2)
    assert any("2 of 12" in warning for warning in warnings_of(root))
    exchange_sizes(make_lists(tmp_path / "three"), lines=3)
    with pytest.raises(DatasetError, match="3 of 12"):
        warnings_of(tmp_path / "three")


def test_square_files_are_named_because_they_may_be_crops(tmp_path: Path) -> None:
    root = make_lists(tmp_path / "data")
    for path in (root / "val").glob("*.png"):
        Image.new("RGB", (50, 50)).save(path)
    (warning,) = warnings_of(root)
    assert "12 of 12" in warning and "squeezed" in warning and "cropped" in warning


def test_files_that_are_missing_or_damaged_are_not_compared(tmp_path: Path) -> None:
    root = make_lists(tmp_path / "data")
    exchange_sizes(root, lines=1)
    (root / "val" / "01.png").write_bytes(b"not an image")
    (root / "val" / "02.png").unlink()
    assert warnings_of(root) == ()


def test_a_large_set_is_compared_at_evenly_spaced_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        "pipelines.jobs.box_checks.read_image_size", lambda path: opened.append(path.stem) or (WIDTH, HEIGHT)
    )
    monkeypatch.setattr("pipelines.jobs.box_checks.COMPARED_FILES", 4)
    assert warnings_of(make_lists(tmp_path / "data")) == ()
    assert opened == ["01", "04", "07", "10"] and COMPARED_FILES > 4


def test_a_few_boxes_do_not_tell_corners_from_sizes(tmp_path: Path) -> None:
    root = make_lists(tmp_path / "data", change=as_sizes)
    assert load_evaluation_set(open_dataset(root, split="val"), limit=9).warnings == ()


# --- maps of other tools


def check_shapes(root: Path, folder: Path) -> list[str]:
    records = open_dataset(root, split="val").records
    return check_map_shapes(open_stored_maps(folder, split="val"), folder, records, root=root)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (np.transpose, f"{WIDTH} rows and {HEIGHT} columns, the image has {HEIGHT} and {WIDTH}, transposed"),
        (lambda map_hw: map_hw[:, 20:], f"{HEIGHT} rows and {WIDTH - 20} columns"),
    ],
    ids=["transposed", "cropped"],
)
def test_maps_of_another_shape_than_the_image_are_refused(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], found: str
) -> None:
    root, maps = make_lists(tmp_path / "data"), make_perfect_maps(tmp_path / "maps")
    files = sorted(maps.iterdir())
    np.save(files[0], change(np.load(files[0])))
    (warning,) = check_shapes(root, maps)
    assert "1 of 12 images" in warning and f"'val/01.png': {found}" in warning
    for path in files[1:]:
        np.save(path, change(np.load(path)))
    for command in ((evaluate, "maps"), (prep, "import")):
        result = command[0](command[1], maps, "--data", root, "--split", "val", "--out", tmp_path / "out")
        assert result.exit_code == 1 and f"12 of 12 images compared, such as 'val/01.png': {found}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_maps_of_one_size_are_of_squeezed_images(tmp_path: Path) -> None:
    root, maps = make_lists(tmp_path / "data", sizes=False), make_perfect_maps(tmp_path / "maps")
    for path in maps.iterdir():
        np.save(path, np.ones((14, 14)))
    assert check_shapes(root, maps) == []
    for path in maps.iterdir():
        np.save(path, np.ones((24, 32)))
    with pytest.raises(DatasetError, match="12 of 12 images"):
        check_shapes(root, maps)
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "val" / "01.png")
    assert check_shapes(root, maps) == []


# --- the class that a file names for each box


def make_tree(root: Path, *, rows: str, xml: dict[str, list[str]] | None = None) -> Path:
    """A CLS-LOC tree of val images a, b, ... of two classes; ``xml`` has the name of each object."""
    names = [row.partition(",")[0] for row in rows.splitlines()]
    for folder in ("ImageSets/CLS-LOC", "Data/CLS-LOC/val"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/CLS-LOC/val.txt").write_text("".join(f"{name} 1\n" for name in names))
    (root / "LOC_synset_mapping.txt").write_text("n00000001 tench, Tinca tinca\nn00000002 crane\nn00000003 crane\n")
    (root / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{rows}")
    for name in names:
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"Data/CLS-LOC/val/{name}.JPEG", format="JPEG")
    for name, classes in (xml or {}).items():
        path = root / f"Annotations/CLS-LOC/val/{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
        objects = "".join(f"<object><name>{one}</name>{box}</object>" for one in classes)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        path.write_text(f"<annotation>{size}{objects}</annotation>")
    return root


def boxes_by_image(root: Path) -> list[int]:
    return [len(image.boxes_xyxy) for image in load_evaluation_set(open_dataset(root, split="val")).images]


TWO = "n00000001 5 5 20 20 n00000002 40 5 70 30\n"


def test_boxes_of_another_class_in_a_csv_are_left_out_and_counted(tmp_path: Path) -> None:
    root = make_tree(tmp_path, rows=f"a,{TWO}b,{TWO}c,n00000002 40 5 70 30\n")
    assert boxes_by_image(root) == [1, 1, 1]
    (warning,) = warnings_of(root)
    assert "2 boxes" in warning and "2 images" in warning and "class" in warning


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("n00000001", 1),
        ("N00000001", 1),
        ("Tinca tinca", 1),
        ("n00000002", 0),
        ("n99999999", 0),
        ("crane", 1),
        ("fish", 1),
        ("", 1),
    ],
)
def test_a_name_in_xml_counts_where_it_is_that_of_a_class(tmp_path: Path, name: str, kept: int) -> None:
    root = make_tree(tmp_path, rows="a,n00000001 5 5 20 20\n", xml={"a": ["n00000001", name]})
    assert boxes_by_image(root) == [1 + kept]


def test_boxes_that_csv_and_xml_give_otherwise_are_named(tmp_path: Path) -> None:
    rows = "a,n00000001 1 2 30 20\nb,n00000001 1 2 30 21\n"
    root = make_tree(tmp_path, rows=rows, xml={"a": ["n00000001"], "b": ["n00000001"]})
    (warning,) = warnings_of(root)
    assert (
        warning
        == "boxes in LOC_val_solution.csv and in XML differ: 1 of 2 images compared, such as 'b': the XML file counts"
    )


def test_classes_and_boxes_of_other_images_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"{name},n00000001 5 5 20 20\n" for name in "abcd")
    root = make_tree(tmp_path, rows=rows, xml={name: ["n00000002"] for name in "abcd"})
    with pytest.raises(DatasetError, match=r"another class.* 4 of 4 images .*'a'"):
        load_evaluation_set(open_dataset(root, split="val"), need_boxes=False)
