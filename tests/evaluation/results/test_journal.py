import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
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
    journal_in(tmp_path).add(images)
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
    journal_in(tmp_path).add(images)
    found = list(journal_in(tmp_path))
    assert [assert_same(a, b) for a, b in zip(images, found, strict=True)] == [None, None]


@given(starts=st.permutations(range(0, 31, 5)))
@settings(max_examples=10, deadline=None)
def test_images_come_in_order_whatever_the_order_of_the_batches(
    starts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = journal_in(tmp_path_factory.mktemp("journal"))
    images = random_images(35)
    for start in starts:
        journal.add(images[start : start + 5])
    assert journal.done() == set(starts)
    for found, image in zip(journal, images, strict=True):
        assert_same(found, image)


def test_a_second_batch_of_the_same_first_image_replaces_the_first(tmp_path: Path) -> None:
    first, second = random_images(4, seed=1), random_images(4, seed=2)
    journal = journal_in(tmp_path)
    journal.add(first)
    journal.add(second)
    for found, image in zip(journal, second, strict=True):
        assert_same(found, image)


def test_one_batch_is_held_at_once(tmp_path: Path) -> None:
    images = random_images(400, protocols=[Rules(name="s", levels=255, threshold_is_oracle=True)])
    journal = journal_in(tmp_path)
    for start in range(0, 400, 10):
        journal.add(images[start : start + 10])
    total = sum(row.nbytes for image in images for row in image.boxes.values())
    del images
    tracemalloc.start()
    assert [image.index for image in journal] == list(range(400))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < total / 3


def test_a_damaged_file_is_named_and_its_images_are_done_again(tmp_path: Path) -> None:
    images = random_images(30)
    journal = journal_in(tmp_path)
    for start in (0, 10, 20):
        journal.add(images[start : start + 10])
    path = tmp_path / "000000010.batch"
    whole = path.read_bytes()
    kept = [*range(10), *range(20, 30)]
    damaged = [whole[: len(whole) // 2], b"", whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], b"PK" * 500]
    for content in damaged:
        path.write_bytes(content)
        with pytest.warns(DamagedResultWarning, match=r"000000010\.batch: cannot be read .* evaluated again"):
            assert journal.done() == {0, 20}
        with pytest.warns(DamagedResultWarning, match=r"000000010\.batch"):
            assert [image.index for image in journal] == kept
    journal.add(images[10:20])
    assert path.read_bytes() == whole
    assert journal.done() == {0, 10, 20}


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_no_flipped_byte_gives_other_results(place: float, flip: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("journal")
    images = random_images(5)
    journal = journal_in(folder)
    journal.add(images)
    path = folder / "000000000.batch"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= flip
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedResultWarning)
        done, found = journal.done(), list(journal)
    assert done == ({0} if found else set())
    for image in found:
        assert_same(image, images[image.index])


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name, images in (("a", random_images(20)), ("b", random_images(20))):
        journal_in(tmp_path / name).add(images)
    assert (tmp_path / "a" / "000000000.batch").read_bytes() == (tmp_path / "b" / "000000000.batch").read_bytes()


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


def test_results_without_or_with_a_damaged_configuration_are_refused(tmp_path: Path) -> None:
    journal_in(tmp_path).add(random_images(1))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: expected JSON"):
        journal_in(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"results without config\.json"):
        journal_in(tmp_path)


def test_temporary_files_of_killed_processes_do_not_count(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.add(random_images(2))
    for name in (".000000005.batch.123.tmp", ".000000005.batch.node7.123.tmp", ".config.json.node7.123.tmp"):
        (tmp_path / name).write_bytes(b"half")
    assert journal.done() == {0} and len(list(journal)) == 2
    journal.remove()
    assert not tmp_path.exists()


def test_remove_leaves_what_is_not_the_journals(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.add(random_images(2))
    (tmp_path / "notes.txt").touch()
    journal.remove()
    assert names(tmp_path) == ["notes.txt"]


def test_of_two_that_begin_at_once_the_second_never_replaces_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_in(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    # A file server that has not yet told this host of the new file.
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(ValueError, match=r'protocols: \["sweep", "fixed"\] stored, \["other"\] now'):
        journal_in(tmp_path, protocols=["other"])
    assert (tmp_path / "config.json").read_bytes() == before
    journal_in(tmp_path)
