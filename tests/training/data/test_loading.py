"""Batches of ``training.data.loading``: aligned, the same whatever the workers, and clear about bad files."""

import errno
import functools
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import (
    STATUS_OK,
    MapIndex,
    MapRow,
    ShardError,
    ShardWriter,
    make_provenance,
    quantise_map,
    shard_name,
)
from tests.command_calls import start_program
from tests.training.train_program import import_once
from training.config import CropConfig
from training.data import loading
from training.data.augmentation import EVALUATION_CROP
from training.data.loading import (
    Batch,
    MapsMissingError,
    TrainingImages,
    UnreadableImageError,
    check_maps,
    require_whole,
    to_device,
)
from training.data.sampling import EpochSampler, SampleKey
from training.data.workers import WorkerLoader

COUNT = 10
CROP = CropConfig(input_size=32, resize=40)


def wave(height: int, width: int, number: int) -> np.ndarray[Any, Any]:
    """(H, W) in 0..1, a function of relative coordinates and different for each image."""
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return 0.5 + 0.5 * np.sin(3 * x + 4 * y * (1 + number / COUNT) + number)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ImageRecord], MapIndex]:
    """Images whose three channels are their own saliency map, and two shards with these maps."""
    root = tmp_path_factory.mktemp("data")
    records = []
    for number in range(COUNT):
        height, width = 60 + 7 * number, 110 - 5 * number
        records.append(ImageRecord(image_id=f"i{number}", path=f"ü{number}.png", label=number % 3))
        grey = np.round(255 * wave(height, width, number)).astype(np.uint8)
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(root / records[-1].path)
    return root, records, write_maps(root / "maps", {record.image_id: STATUS_OK for record in records})


def write_maps(folder: Path, statuses: dict[str, str]) -> MapIndex:
    folder.mkdir()
    ids = list(statuses)
    for shard, part in enumerate((ids[: len(ids) // 2], ids[len(ids) // 2 :])):
        path = folder / shard_name("train", shard, 2)
        with ShardWriter(path, rows=len(part), map_size=56, provenance=make_provenance({"test": 1})) as writer:
            for row, image_id in enumerate(part):
                usable = statuses[image_id] == STATUS_OK
                made = wave(56, 56, int(image_id[1:])) if usable else np.zeros((56, 56))
                stored, peak = quantise_map(made.astype(np.float32))
                number = int(image_id[1:])
                size = dict(height=60 + 7 * number, width=110 - 5 * number)
                name = dict(image_id=image_id, path=f"{image_id}.png", wnid="", label=0, **size)
                writer.write(row, stored, MapRow(**name, peak=peak, proposals=3, status=statuses[image_id]))
            writer.commit()
    return MapIndex(folder, "train")


def dataset_of(data: tuple[Path, list[ImageRecord], MapIndex], **changes: Any) -> TrainingImages:
    root, records, index = data
    return TrainingImages(records, **({"root": root, "crop": CROP, "seed": 3, "index": index} | changes))


def batches(
    dataset: TrainingImages, *, workers: int, epoch: int = 0, start_batch: int = 0, epochs: int = 1
) -> list[Batch]:
    sampler = EpochSampler(COUNT, 4, seed=1, drop_last=False)
    sampler.set_epoch(epoch, start_batch=start_batch)
    loader = WorkerLoader(dataset, sampler, workers=workers, pin_memory=False, persistent=True)
    collected: list[Batch] = []
    for number in range(epochs):
        if number:
            sampler.set_epoch(epoch + number)
        collected += list(loader)
    return collected


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        assert left.unreadable == right.unreadable == {}
        for mine, theirs in zip(left[:4], right[:4], strict=True):
            assert isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor)
            assert torch.equal(mine, theirs)


def test_a_batch_has_the_shapes_types_and_memory_it_promises(data: Any) -> None:
    batch = dataset_of(data).__getitems__([SampleKey(0, position) for position in (4, 0, 9)])
    assert batch.images_bchw.shape == (3, 3, 32, 32) and batch.images_bchw.dtype == torch.uint8
    assert batch.images_bchw.is_contiguous(memory_format=torch.channels_last)
    assert batch.maps_bhw is not None and batch.maps_bhw.shape == (3, 32, 32)
    assert batch.maps_bhw.dtype == torch.uint8 and batch.maps_bhw.is_contiguous()
    assert batch.labels_b.tolist() == [1, 0, 0] and batch.labels_b.dtype == torch.int64
    assert batch.positions_b.tolist() == [4, 0, 9] and batch.positions_b.dtype == torch.int64


@pytest.mark.parametrize("kind", ["crop", "resized-crop", "center", "squash"])
def test_image_and_map_agree_in_every_window(data: Any, kind: Any) -> None:
    """The map of each image is its own pixels, up to the map's peak, which scaling to 255 undoes."""
    crop = CropConfig(kind=kind, input_size=32, resize=40)
    batch = dataset_of(data, crop=crop).__getitems__([SampleKey(5, position) for position in range(COUNT)])
    assert batch.maps_bhw is not None
    inner = slice(2, -2)
    for number in range(COUNT):
        peak = float(wave(56, 56, number).max())
        image = batch.images_bchw[number, 1, inner, inner].float()
        squeezed = batch.maps_bhw[number, inner, inner].float() * peak
        # The windows of a wrong image, a missing flip or a shift of two pixels differ by 20 and more.
        assert float((image - squeezed).abs().max()) <= 4


def test_the_number_of_workers_changes_nothing_and_workers_see_new_epochs(data: Any) -> None:
    alone = batches(dataset_of(data), workers=0, epochs=2)
    assert_same(batches(dataset_of(data), workers=2, epochs=2), alone)
    assert [batch.positions_b.numel() for batch in alone] == [4, 4, 2] * 2


def test_a_resumed_epoch_continues_with_the_same_pixels(data: Any) -> None:
    whole = batches(dataset_of(data), workers=0, epoch=6)
    assert_same(batches(dataset_of(data), workers=0, epoch=6, start_batch=1), whole[1:])


def test_windows_depend_on_seed_epoch_and_position_not_on_the_batch(data: Any) -> None:
    dataset = dataset_of(data)
    together = dataset.__getitems__([SampleKey(2, position) for position in range(COUNT)])
    for position in (0, 7):
        assert torch.equal(dataset[SampleKey(2, position)].images_bchw[0], together.images_bchw[position])
    other_epoch = dataset.__getitems__([SampleKey(3, position) for position in range(COUNT)])
    other_seed = dataset_of(data, seed=4).__getitems__([SampleKey(2, position) for position in range(COUNT)])
    assert not torch.equal(together.images_bchw, other_epoch.images_bchw)
    assert not torch.equal(together.images_bchw, other_seed.images_bchw)


def test_iterating_leaves_torchs_own_random_numbers_alone(data: Any) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(dataset_of(data), workers=0)
    batches(dataset_of(data), workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_an_index_there_are_no_maps_and_the_same_images(data: Any) -> None:
    keys = [SampleKey(0, position) for position in range(COUNT)]
    without, with_maps = dataset_of(data, index=None).__getitems__(keys), dataset_of(data).__getitems__(keys)
    assert without.maps_bhw is None
    assert torch.equal(without.images_bchw, with_maps.images_bchw)
    assert to_device(without, "cpu").maps01_bhw is None


def test_evaluation_sees_whole_images_in_order(data: Any) -> None:
    root, records, _ = data
    dataset = TrainingImages(records, root=root, crop=EVALUATION_CROP, seed=0)
    batch = dataset.__getitems__([SampleKey(0, 2)])
    with Image.open(root / records[2].path) as image:
        expected = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(batch.images_bchw[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_to_device_divides_by_255_and_keeps_channels_last() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 4, 4, 3).permute(0, 3, 1, 2)
    maps = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 3)
    moved = to_device(Batch(images, maps, torch.tensor([3]), torch.tensor([7]), {}), torch.device("cpu"))
    assert moved.images01_bchw.is_contiguous(memory_format=torch.channels_last)
    assert moved.images01_bchw.dtype == torch.float32
    torch.testing.assert_close(moved.images01_bchw.double() * 255, images.double())
    assert moved.maps01_bhw is not None
    torch.testing.assert_close(moved.maps01_bhw, torch.tensor([[[0.0, 0.2, 1.0]]]))
    assert (moved.labels_b.tolist(), moved.positions_b.tolist()) == ([3], [7])
    assert images.dtype == torch.uint8 and int(images.max()) == 95


# --- decoding at a reduced scale


def write_photo(path: Path, height: int, width: int) -> None:
    """A JPEG with detail at every scale."""
    generator = np.random.default_rng(0)
    pixels = np.zeros((height, width, 3))
    for cell in (2, 4, 8, 16, 32):
        rough = generator.integers(0, 256, (height // cell + 1, width // cell + 1, 3), dtype=np.uint8)
        smooth = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
        pixels += np.asarray(smooth) / 5
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=92)


@pytest.mark.parametrize(
    ("shape", "reductions"),
    [
        # 40 on the short side is enough: a half of 80, a quarter of 160, but not of 158.
        ((80, 120), [2]),
        ((79, 100), [1]),
        ((160, 240), [4]),
        ((158, 236), [2]),
        # 1 : 3 looks large enough by its long side, turns out too small, and is decoded again.
        ((60, 180), [2, 1]),
    ],
)
def test_large_jpegs_are_decoded_smaller_as_far_as_no_window_is_enlarged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], reductions: list[int]
) -> None:
    write_photo(tmp_path / "a.jpg", *shape)
    records = [ImageRecord(image_id="a", path="a.jpg", label=0)]
    decode, found = loading.decode_image, []

    def spy(*arguments: Any, **options: Any) -> Any:
        decoded = decode(*arguments, **options)
        found.append(round(decoded.file_height / decoded.rgb_hwc.shape[0]))
        return decoded

    monkeypatch.setattr(loading, "decode_image", spy)
    reduced = TrainingImages(records, root=tmp_path, crop=CROP, seed=0)[SampleKey(0, 0)].images_bchw.double()
    assert found == reductions
    whole = functools.partial(decode, enough_px=None)
    monkeypatch.setattr(loading, "decode_image", lambda source, **_: whole(source))
    full = TrainingImages(records, root=tmp_path, crop=CROP, seed=0)[SampleKey(0, 0)].images_bchw.double()
    # The same place, and no less sharp: a blur would take contrast between neighbours away.
    assert float((reduced - full).abs().mean()) < 8
    contrast = [float(pixels.diff(dim=axis).square().mean()) for pixels in (reduced, full) for axis in (2, 3)]
    assert contrast[0] > 0.9 * contrast[2] and contrast[1] > 0.9 * contrast[3]


# --- what is wrong is said


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_named_in_one_line_and_the_rest_is_there(
    data: Any, tmp_path: Path, workers: int
) -> None:
    root, records, index = data
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    (tmp_path / records[1].path).write_bytes(b"\xff\xd8 not a picture")
    (tmp_path / records[2].path).unlink()
    dataset = TrainingImages(records[:4], root=tmp_path, crop=CROP, seed=3, index=index)
    sampler = EpochSampler(4, 2, seed=0, shuffle=False)
    first, second = WorkerLoader(dataset, sampler, workers=workers, pin_memory=False, persistent=True)
    for batch, kept, lost in ((first, 0, 1), (second, 3, 2)):
        whole = dataset_of(data).__getitems__([SampleKey(0, kept)])
        assert_same([batch._replace(unreadable={})], [whole])
        assert list(batch.unreadable) == [lost]
        with pytest.raises(UnreadableImageError) as caught:
            require_whole(batch)
        message = str(caught.value)
        assert str(tmp_path / records[lost].path) in message and "\n" not in message
        assert "--resume" in message and "--on-missing skip" in message
    assert require_whole(whole) is whole


def test_a_batch_of_which_nothing_can_be_read_is_empty(tmp_path: Path) -> None:
    dataset = TrainingImages([ImageRecord(image_id="g", path="gone.png", label=0)], root=tmp_path, crop=CROP, seed=0)
    batch = dataset[SampleKey(0, 0)]
    assert batch.images_bchw.shape == (0, 3, 32, 32) and batch.labels_b.shape == (0,)
    assert isinstance(batch.unreadable[0], FileNotFoundError)


def test_a_damaged_map_is_told_from_a_damaged_image(data: Any, tmp_path: Path) -> None:
    root, records, _ = data
    index = write_maps(tmp_path / "maps", {record.image_id: STATUS_OK for record in records})
    shard = tmp_path / "maps" / shard_name("train", 0, 2)
    shard.chmod(0o644)
    content = bytearray(shard.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    shard.write_bytes(content)
    dataset = TrainingImages(records, root=root, crop=CROP, seed=3, index=index)
    batch = dataset.__getitems__([SampleKey(0, position) for position in range(COUNT // 2)])
    assert batch.unreadable
    with pytest.raises(UnreadableImageError, match=rf"{shard.name}.*verify MAPS --data DATA --repair .*--resume"):
        require_whole(batch)


def test_what_is_no_file_s_fault_is_raised_as_it_is(data: Any) -> None:
    root, records, _ = data
    dataset = TrainingImages(records, root=root, crop=CROP, seed=3)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            while True:
                held.append(os.dup(0))
        batch = dataset[SampleKey(0, 0)]
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.errno == errno.EMFILE
    with pytest.raises(OSError, match="Too many open files") as told:
        require_whole(batch)
    assert not isinstance(told.value, UnreadableImageError)


def test_images_without_labels_and_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one record"):
        TrainingImages([], root=tmp_path, crop=CROP, seed=0)
    records = [ImageRecord(image_id="a", path="a.png", label=1), ImageRecord(image_id="b", path="b.png")]
    with pytest.raises(ValueError, match=r"1 of 2 images .* b\.png; .*one folder per class"):
        TrainingImages(records, root=tmp_path, crop=CROP, seed=0)


def test_complete_maps_pass(data: Any) -> None:
    _, records, index = data
    kept, report = check_maps(records, index)
    assert kept == records
    assert (report.ok, report.missing, report.failed, report.examples) == (COUNT, 0, {}, ())
    assert report.describe() == "all 10 images have a map"


def test_images_without_maps_are_refused_or_skipped(data: Any, tmp_path: Path) -> None:
    _, records, _ = data
    index = write_maps(
        tmp_path / "maps", {"i0": STATUS_OK, "i1": "decode_error", "i2": STATUS_OK, "i3": "timeout", "i4": "timeout"}
    )
    kept, report = check_maps(records, index, on_missing="skip")
    assert [record.image_id for record in kept] == ["i0", "i2"]
    assert (report.ok, report.missing, report.failed) == (2, 5, {"decode_error": 1, "timeout": 2})
    message = (
        "8 of 10 images have no usable map: 5 are in no shard; 1 have status decode_error; 2 have status timeout "
        "(i1 (decode_error), i3 (timeout), i4 (timeout), i5 (in no shard), i6 (in no shard), ...)"
    )
    assert report.describe() == message
    with pytest.raises(MapsMissingError) as caught:
        check_maps(records, index)
    assert str(caught.value) == (
        f"{message}; wsol-prep proposals makes those that are missing, wsol-prep proposals --retry-failed tries those "
        "again that failed; --on-missing skip leaves these images out"
    )
    with pytest.raises(MapsMissingError, match=r"\); wsol-prep proposals makes those that are missing; --on-missing"):
        check_maps([records[0], records[9]], index)


def test_skipping_every_image_is_refused(data: Any, tmp_path: Path) -> None:
    _, records, _ = data
    index = write_maps(tmp_path / "maps", {"i0": "timeout", "i1": "timeout"})
    with pytest.raises(MapsMissingError, match="10 of 10 images"):
        check_maps(records, index, on_missing="skip")


def test_workers_start_after_this_process_used_the_threads_of_opencv(tmp_path: Path) -> None:
    import_once()
    program = start_program("tests.training.data.opencv_threads_program", tmp_path)
    text, _ = program.communicate()
    assert (program.returncode, text) == (0, "1\n")


def test_a_map_of_an_image_of_another_size_is_not_read(data: Any, tmp_path: Path) -> None:
    _, records, index = data
    path = tmp_path / records[1].path
    Image.fromarray(np.zeros((67, 104, 3), np.uint8)).save(path)
    images = TrainingImages(records[:2], root=tmp_path, crop=CROP, seed=0, index=index)
    (error,) = images.__getitems__([SampleKey(0, 1)]).unreadable.values()
    assert isinstance(error, ShardError) and str(path) in str(error) and "104x67" in str(error)
    assert not TrainingImages(records[:2], root=tmp_path, crop=CROP, seed=0).__getitems__([SampleKey(0, 1)]).unreadable
