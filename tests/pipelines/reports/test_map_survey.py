"""The survey of maps against a look at every row."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipelines.reports.map_survey import MapSurvey, survey_maps
from pseudo_maps.shards import MapIndex, make_provenance, quantise_map, shard_name
from pseudo_maps.shards.layout import checksum_path
from pseudo_maps.shards.manifest import Manifest, agree_on_manifest, ids_digest
from tests.pseudo_maps.shard_making import CONFIGURATION, MAP_SIZE, make_folder, make_row, writer_of

IMAGES, SHARD_SIZE = 60, 7
FAILED = {3: "missing", 20: "decode-error", 21: "missing"}


def make_maps(folder: Path) -> None:
    """Maps of known peaks, numbers of proposals and coverages in nine shards; three images failed."""
    generator = np.random.default_rng(5)
    ids = [f"val_{number}" for number in range(IMAGES)]
    count = -(-IMAGES // SHARD_SIZE)
    manifest = Manifest(
        split="val",
        images=IMAGES,
        shards=count,
        shard_size=SHARD_SIZE,
        ids_sha256=ids_digest(ids),
        configuration=CONFIGURATION,
    )
    agree_on_manifest(folder, manifest)
    for index in range(count):
        part = range(index * SHARD_SIZE, min(IMAGES, (index + 1) * SHARD_SIZE))
        with writer_of(folder / shard_name("val", index, count), rows=len(part), by_name=False) as writer:
            for row, number in enumerate(part):
                stored = np.zeros((MAP_SIZE, MAP_SIZE), dtype=np.uint8)
                values = {"peak": 0.0, "proposals": 0, "status": FAILED.get(number, "ok")}
                if number not in FAILED:
                    map_hw = generator.random((MAP_SIZE, MAP_SIZE)) ** generator.uniform(0.3, 4)
                    stored, _ = quantise_map(map_hw.astype(np.float32))
                    values |= {"peak": generator.uniform(0.05, 1), "proposals": int(generator.integers(20, 900))}
                writer.write(row, stored, make_row(ids[number], **values))
            writer.commit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("survey")
    make_maps(out)
    return out


def coverage(index: MapIndex, image_id: str) -> float:
    return float((index.read(image_id) >= 0.5).mean())


def ok_ids(index: MapIndex) -> list[str]:
    return [image_id for image_id in index if index.status(image_id) == "ok"]


def test_the_survey_is_what_a_look_at_every_row_gives(folder: Path) -> None:
    index = MapIndex(folder, "val")
    made = ok_ids(index)
    survey = survey_maps(folder, "val", worst=5, random=4, failed=2)
    assert (survey.images, survey.shards, survey.missing_shards) == (IMAGES, 9, 0)
    assert dict(survey.counts) == {"ok": 57, "missing": 2, "decode-error": 1}
    assert list(survey.counts) == ["ok", "missing", "decode-error"]
    assert survey.map_shape == (MAP_SIZE, MAP_SIZE)
    assert dict(survey.provenance) == make_provenance(CONFIGURATION)
    assert survey.size_bytes == sum(path.stat().st_size for path in folder.glob("*.h5"))
    assert [(image.image_id, image.status) for image in survey.failed] == [
        ("val_3", "missing"),
        ("val_20", "decode-error"),
    ]
    assert survey.failed[0].path == "train/val_3.JPEG"
    assert list(survey.worst) == sorted(made, key=index.peak)[:5]
    values = {
        "peak": [index.peak(image_id) for image_id in made],
        "coverage": [coverage(index, image_id) for image_id in made],
        "proposals": [float(index.row(image_id).proposals) for image_id in made],
    }
    for name, expected in values.items():
        histogram = getattr(survey, name)
        counts, _ = np.histogram(expected, bins=histogram.edges)
        np.testing.assert_array_equal(histogram.counts, counts, err_msg=name)
        assert histogram.counts.sum() == 57
        found = (histogram.mean, histogram.low, histogram.high)
        np.testing.assert_allclose(found, (np.mean(expected), min(expected), max(expected)), rtol=1e-12)
    assert survey.sampled == 57
    assert len(np.unique(np.diff(survey.proposals.edges))) == 1 and len(survey.proposals.counts) <= 20


def test_coverage_of_a_sample_is_of_maps_of_the_folder(folder: Path) -> None:
    index = MapIndex(folder, "val")
    survey = survey_maps(folder, "val", measured=15, random=15)
    assert survey.sampled == 15 == len(set(survey.random))
    expected, _ = np.histogram([coverage(index, image_id) for image_id in survey.random], bins=survey.coverage.edges)
    np.testing.assert_array_equal(survey.coverage.counts, expected)
    assert survey.peak.counts.sum() == 57, "the peaks are of all maps"


def test_the_sample_follows_the_seed_and_spreads_over_all_maps(folder: Path) -> None:
    index = MapIndex(folder, "val")
    order = {image_id: place for place, image_id in enumerate(index)}
    drawn: dict[str, int] = {}
    for seed in range(25):
        random = survey_maps(folder, "val", random=6, measured=0, seed=seed).random
        assert len(set(random)) == 6 and random == tuple(sorted(random, key=lambda image_id: order[image_id]))
        for image_id in random:
            drawn[image_id] = drawn.get(image_id, 0) + 1
    assert set(drawn) <= set(ok_ids(index)) and len(drawn) > 45
    # Each of 57 maps is drawn 2.6 times on average; 12 times has a probability of 1 in 100,000.
    assert max(drawn.values()) < 12
    again = survey_maps(folder, "val", random=6, measured=0, seed=24)
    assert again.random == random


def test_a_sample_larger_than_the_folder_is_all_of_it(folder: Path) -> None:
    survey = survey_maps(folder, "val", random=1000, worst=1000, failed=1000, measured=3)
    assert list(survey.random) == ok_ids(MapIndex(folder, "val"))
    assert len(survey.worst) == 57 and len(survey.failed) == 3 and survey.sampled == 3


def test_missing_shards_are_counted_and_do_not_change_who_is_drawn_from_the_others(
    folder: Path, tmp_path: Path
) -> None:
    make_maps(tmp_path)
    for index in (0, 4):
        path = tmp_path / shard_name("val", index, 9)
        path.unlink()
        checksum_path(path).unlink()
    survey, whole = (survey_maps(where, "val", random=12) for where in (tmp_path, folder))
    assert (survey.images, survey.shards, survey.missing_shards) == (IMAGES - 14, 7, 2)
    index = MapIndex(tmp_path, "val", allow_incomplete=True)
    assert {image_id for image_id in whole.random if image_id in index} <= set(survey.random)


def test_a_folder_in_which_everything_failed(tmp_path: Path) -> None:
    make_folder(tmp_path, images=3, failed=["val_0", "val_1", "val_2"])
    survey = survey_maps(tmp_path, "val")
    assert dict(survey.counts) == {"ok": 0, "decode": 3}
    assert not survey.peak.counts.any() and not survey.proposals.counts.any() and np.isnan(survey.coverage.mean)
    assert survey.worst == survey.random == () and survey.sampled == 0


def test_equal_numbers_of_proposals_are_one_bar(tmp_path: Path) -> None:
    make_folder(tmp_path, images=4)
    histogram = survey_maps(tmp_path, "val").proposals
    assert (histogram.edges.tolist(), histogram.counts.tolist()) == ([17.0, 18.0], [4])


def test_a_folder_without_a_manifest_can_be_surveyed(tmp_path: Path) -> None:
    make_folder(tmp_path)
    expected = survey_maps(tmp_path, "val")
    (tmp_path / "val.manifest.json").unlink()
    assert simple(survey_maps(tmp_path, "val")) == simple(expected)


def simple(survey: MapSurvey) -> dict:
    values = {field.name: getattr(survey, field.name) for field in dataclasses.fields(survey)}
    return {name: value for name, value in values.items() if name not in ("peak", "proposals", "coverage")}
