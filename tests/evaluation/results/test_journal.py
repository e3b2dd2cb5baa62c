import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluation.image_scores import MAP_NOT_USABLE, ImageScores
from evaluation.results.journal import DamagedResultWarning, ResultJournal
from tests.evaluation.scores_making import Rules, assert_same, random_images

CONFIG = {"protocols": ["sweep", "fixed"], "data": {"root": "x", "split": "val"}}


def journal_in(folder: Path, **changes: Any) -> ResultJournal:
    return ResultJournal(folder, config=CONFIG | changes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_bit_comes_back(tmp_path: Path) -> None:
    images = random_images(100, seed=8)
    assert {image.top_classes is None for image in images} == {True, False}
    journal_in(tmp_path).append(images)
    found = list(journal_in(tmp_path))
    assert len(found) == 100
    for before, after in zip(images, found, strict=True):
        assert_same(before, after)


def test_odd_values_come_back_too(tmp_path: Path) -> None:
    pair = ("cam*saliency", "sweep")
    nan = np.frombuffer(np.array([0x7FF8_0000_0000_0001, 0xFFF8_0000_0000_0002], dtype=np.uint64).tobytes())
    boxes = np.array([[0.0, -0.0, nan[0], nan[1]], [-0.0, 0.0, nan[0], nan[1]], [-0.0, 0.0, nan[1], 1e-320]])
    images = [
        ImageScores(
            index=0, image_id="caf\udce9\n\0", label=-1, wnid="ü", status=f"{MAP_NOT_USABLE}…", notes=("", "é")
        ),
        ImageScores(
            index=10**12,
            image_id="",
            label=2**40,
            wnid="",
            status="scored",
            top_classes=np.array([5, 2**40]),
            top_probabilities=np.array([np.inf, -0.0]),
            true_rank=1,
            iou={pair: np.array([-0.0, 0.0, 1.0])},
            boxes={pair: boxes},
            ground_truth={"sweep": np.zeros((0, 4)), "other": boxes},
        ),
    ]
    journal_in(tmp_path).append(images)
    found = list(journal_in(tmp_path))
    assert [assert_same(a, b) for a, b in zip(images, found, strict=True)] == [None, None]


@settings(max_examples=25, deadline=None)
@given(
    files=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), max_size=6),
    order=st.integers(0, 2**20),
)
def test_images_come_once_and_in_order_however_files_overlap(
    files: list[list[int]], order: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    images = random_images(31, seed=order)
    journal = journal_in(folder)
    for file in files:
        journal.append([images[index] for index in file])
    expected = sorted({index for file in files for index in file})
    assert journal.done() == set(expected)
    found = list(journal)
    assert [image.index for image in found] == expected
    for image in found:
        assert_same(image, images[image.index])


def test_a_second_batch_of_the_same_first_image_loses_nothing(tmp_path: Path) -> None:
    first, second = random_images(6, seed=1), random_images(6, seed=2)
    journal = journal_in(tmp_path)
    journal.append(first[:4])
    journal.append(second[:2])
    found = list(journal)
    assert [image.index for image in found] == [0, 1, 2, 3]
    for image, expected in zip(found, [*second[:2], *first[2:4]], strict=True):
        assert_same(image, expected)


def test_only_files_whose_ranges_overlap_are_held(tmp_path: Path) -> None:
    # Two processes, each with every other image, in 20 files each.
    images = random_images(800, protocols=[Rules(name="s", levels=255, threshold_is_oracle=True)])
    journal = journal_in(tmp_path)
    for part in (images[::2], images[1::2]):
        for start in range(0, 400, 20):
            journal.append(part[start : start + 20])
    total = sum(row.nbytes for image in images for row in image.boxes.values())
    del images
    tracemalloc.start()
    assert [image.index for image in journal] == list(range(800))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < total / 3


def test_a_damaged_file_is_named_and_its_images_are_done_again(tmp_path: Path) -> None:
    images = random_images(30)
    journal = journal_in(tmp_path)
    for start in (0, 10, 20):
        journal.append(images[start : start + 10])
    path = tmp_path / "000000010.npz"
    whole = path.read_bytes()
    kept = [*range(10), *range(20, 30)]
    damaged = [whole[: len(whole) // 2], b"", whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], b"PK" * 500]
    for content in damaged:
        path.write_bytes(content)
        with pytest.warns(DamagedResultWarning, match=r"000000010\.npz: cannot be read .* evaluated again"):
            assert journal.done() == set(kept)
        with pytest.warns(DamagedResultWarning, match=r"000000010\.npz"):
            assert [image.index for image in journal] == kept
    with pytest.warns(DamagedResultWarning):
        journal.append(images[10:20])
    assert path.read_bytes() == whole
    assert journal.done() == set(range(30))


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(place=0.93359375, flip=63)  # The name of an array in the archive's directory: all checksums are right.
def test_no_flipped_byte_gives_other_results(place: float, flip: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("journal")
    images = random_images(5)
    journal = journal_in(folder)
    journal.append(images)
    path = folder / "000000000.npz"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= flip
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedResultWarning)
        done, found = journal.done(), list(journal)
    assert done == {image.index for image in found}
    for image in found:
        assert_same(image, images[image.index])


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name, images in (("a", random_images(20)), ("b", random_images(20)[::-1])):
        journal_in(tmp_path / name).append(images)
    assert (tmp_path / "a" / "000000000.npz").read_bytes() == (tmp_path / "b" / "000000000.npz").read_bytes()


def test_another_configuration_is_refused_by_its_keys(tmp_path: Path) -> None:
    journal_in(tmp_path)
    journal_in(tmp_path, protocols=("sweep", "fixed"))
    with pytest.raises(
        ValueError,
        match=r"another configuration: data\.split: \"val\" stored, \"train\" now; seed: nothing stored, 1 now;",
    ):
        journal_in(tmp_path, data={"root": "x", "split": "train"}, seed=1)
    with pytest.raises(ValueError, match=r"protocols: \[\"sweep\", \"fixed\"\] stored, \[\"sweep\"\] now"):
        journal_in(tmp_path, protocols=["sweep"])


def test_a_flag_that_equals_a_number_is_another_configuration(tmp_path: Path) -> None:
    journal_in(tmp_path, limit=1)
    with pytest.raises(ValueError, match="limit: 1 stored, true now"):
        journal_in(tmp_path, limit=True)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), Path("x")])
def test_a_configuration_that_is_no_json_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="that JSON can hold"):
        journal_in(tmp_path, limit=value)
    assert names(tmp_path) == []


def test_results_without_or_with_a_damaged_configuration_are_refused(tmp_path: Path) -> None:
    journal_in(tmp_path).append(random_images(1))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: expected JSON"):
        journal_in(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"results without config\.json"):
        journal_in(tmp_path)


def test_temporary_files_of_killed_processes_do_not_count(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append(random_images(2))
    for name in (".000000005.npz.123.tmp", ".000000005.npz.node7.123.tmp", ".config.json.node7.123.tmp"):
        (tmp_path / name).write_bytes(b"half")
    assert journal.done() == {0, 1} and len(list(journal)) == 2
    journal.remove()
    assert not tmp_path.exists()


def test_remove_leaves_what_is_not_the_journals(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append(random_images(2))
    (tmp_path / "notes.txt").touch()
    journal.remove()
    assert names(tmp_path) == ["notes.txt"]


def test_an_empty_batch_writes_nothing_and_a_repeated_index_is_refused(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append([])
    image = random_images(1)[0]
    with pytest.raises(ValueError, match="have the same index 0"):
        journal.append([image, image])
    assert names(tmp_path) == ["config.json"]
    assert journal.done() == set() and list(journal) == []
