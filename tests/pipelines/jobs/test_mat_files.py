"""MATLAB files with and without HDF5: maps, masks, proposals of superpixels, and what is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from pipelines.jobs.mat_files import read_mat_map

SUPERPIXELS = np.array([[1, 1, 2, 2], [1, 3, 3, 2], [4, 4, 4, 4]], dtype=np.uint16)


def cell(entries: Sequence[Sequence[int]]) -> np.ndarray:
    """A cell column of row vectors, as MATLAB keeps ``labels``."""
    made = np.empty((len(entries), 1), dtype=object)
    for number, entry in enumerate(entries):
        made[number, 0] = np.array([entry], dtype=np.uint16)
    return made


def save_hdf5(path: Path, variables: dict[str, Any]) -> None:
    """A file as MATLAB 7.3 writes it: a block before HDF5, axes in reverse order, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        _put(file, variables, file=file)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def _put(group: h5py.Group, variables: dict[str, Any], *, file: h5py.File) -> None:
    for name, value in variables.items():
        if isinstance(value, dict):
            _put(group.create_group(name), value, file=file)
        elif isinstance(value, str):
            group[name] = np.array([[ord(letter)] for letter in value], dtype=np.uint16)
            group[name].attrs["MATLAB_class"] = np.bytes_(b"char")
        elif value.dtype == object:
            references = np.empty(value.T.shape, dtype=h5py.ref_dtype)
            for place in np.ndindex(*references.shape):
                held = file.require_group("#refs#").create_dataset(str(len(file["#refs#"])), data=value.T[place].T)
                references[place] = held.ref
            group[name] = references
            group[name].attrs["MATLAB_class"] = np.bytes_(b"cell")
        else:
            group[name] = value.T


@pytest.fixture(params=[savemat, save_hdf5], ids=["v5", "v7.3"])
def save(request: pytest.FixtureRequest) -> Callable[[Path, dict[str, Any]], None]:
    return request.param  # type: ignore[no-any-return]


def drawn(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """The average of the masks, one by one."""
    return np.mean([np.isin(SUPERPIXELS, of_proposal) for of_proposal in labels], axis=0)


@pytest.mark.parametrize(
    "labels",
    [[[1, 2], [3], [1, 3, 4]], [[1, 2], [3, 4]], [[1], [2]], [[2, 3]], [[4]]],
    ids=["unequal", "equally long", "single superpixels", "one proposal", "one superpixel"],
)
@pytest.mark.parametrize("inside", [True, False], ids=["structure", "top"])
def test_proposals_of_superpixels_are_averaged(save: Any, tmp_path: Path, labels: Any, inside: bool) -> None:
    proposals = {"superpixels": SUPERPIXELS, "labels": cell(labels), "scores": np.ones((len(labels), 1))}
    save(tmp_path / "a.mat", {"candidates": proposals} if inside else proposals)
    map_hw, count = read_mat_map(tmp_path / "a.mat")
    assert count == len(labels)
    np.testing.assert_allclose(map_hw, drawn(labels), rtol=1e-6)


def test_masks_come_as_a_stack(save: Any, tmp_path: Path) -> None:
    masks = np.random.default_rng(1).integers(0, 2, size=(3, 4, 5), dtype=np.uint8)
    save(tmp_path / "a.mat", {"masks": masks, "scores": np.ones((5, 1))})
    found, count = read_mat_map(tmp_path / "a.mat")
    assert count == 0
    np.testing.assert_array_equal(found, np.moveaxis(masks, -1, 0))


def test_one_array_is_the_map_whatever_its_name(save: Any, tmp_path: Path) -> None:
    wanted = np.arange(12.0).reshape(3, 4)
    save(tmp_path / "a.mat", {"saliency": wanted, "note": "by hand"})
    np.testing.assert_array_equal(read_mat_map(tmp_path / "a.mat")[0], wanted)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"one": np.eye(3), "two": np.eye(3)}, "one array; found one, two"),
        ({"text": "nothing else"}, "one array; found text"),
        ({"superpixels": SUPERPIXELS, "labels": cell([[1, 9]])}, "proposal 1 has labels that are no superpixels"),
        ({"superpixels": SUPERPIXELS[0, :0], "labels": cell([[1]])}, r"expected superpixels \(H, W\)"),
    ],
    ids=["two arrays", "text", "unknown label", "no superpixels"],
)
def test_other_content_is_refused(save: Any, tmp_path: Path, variables: dict[str, Any], expected: str) -> None:
    save(tmp_path / "a.mat", variables)
    with pytest.raises(ValueError, match=expected):
        read_mat_map(tmp_path / "a.mat")


def test_damage_is_refused(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "a.mat", {"masks": np.random.default_rng(1).random((30, 40, 5))})
    (tmp_path / "a.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:700])
    with pytest.raises(ValueError, match="expected a MATLAB file"):
        read_mat_map(tmp_path / "a.mat")


def test_nothing_is_read_from_other_files(tmp_path: Path) -> None:
    save_hdf5(tmp_path / "secret.mat", {"masks": np.ones((3, 4, 5))})
    with h5py.File(tmp_path / "link.mat", "w") as file:
        file["masks"] = h5py.ExternalLink("secret.mat", "masks")
    with h5py.File(tmp_path / "external.mat", "w") as file:
        file.create_dataset("masks", (3, 4), dtype=np.uint8, external=[(tmp_path / "secret.mat", 0, 12)])
    with h5py.File(tmp_path / "virtual.mat", "w") as file:
        layout = h5py.VirtualLayout(shape=(5, 4, 3), dtype=np.float64)
        layout[...] = h5py.VirtualSource(tmp_path / "secret.mat", "masks", shape=(5, 4, 3))
        file.create_virtual_dataset("masks", layout)
    for name in ("link", "external", "virtual"):
        with pytest.raises(ValueError, match="another file"):
            read_mat_map(tmp_path / f"{name}.mat")
