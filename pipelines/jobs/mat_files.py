"""MATLAB files of other tools: saliency maps, stacks of masks, and proposals as sets of superpixels."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pseudo_maps.proposals.weighting import uniform_saliency
from pseudo_maps.reading import read_file

_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat_map(path: Path) -> tuple[npt.NDArray[Any], int]:
    """The map (H, W) or stack of masks (N, H, W) in a file, and the number of proposals where they are averaged here.

    Files of MATLAB 5 to 7.3 (HDF5). At the top or in a structure they hold, in this order of preference:
    ``superpixels`` (H, W) and ``labels``, a cell of the superpixels of each proposal, as MCG and SCG release them
    (Pont-Tuset et al., PAMI 2017), which are averaged without drawing their masks; ``masks`` (H, W, N), as CPMC
    releases them (Carreira and Sminchisescu, PAMI 2012); or one numeric variable, (H, W) or (H, W, N). ValueError for
    anything else; it does not name the file. Errors as ``read_file``.
    """
    file = io.BytesIO(read_file(path))
    try:
        # MATLAB has a block of its own before HDF5.
        is_hdf5 = any(file.getbuffer()[start : start + 8] == _HDF5 for start in (0, 512))
        if is_hdf5:
            with h5py.File(file, "r") as opened:
                content = _hdf5_group(opened, file=opened)
        else:
            from scipy.io import loadmat

            read = loadmat(file, simplify_cells=True)
            content = {name: _listed(value) for name, value in read.items() if not name.startswith("__")}
    except Exception as error:
        # Whatever SciPy, h5py and zlib raise for damage.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"expected a MATLAB file: {reason}") from error
    structures = list(_structures(content))
    for structure in structures:
        if {"superpixels", "labels"} <= structure.keys():
            return _average_superpixels(structure["superpixels"], structure["labels"])
    arrays = [structure["masks"] for structure in structures if "masks" in structure]
    arrays = arrays or [value for value in content.values() if isinstance(value, np.ndarray) and value.ndim > 1]
    if len(arrays) != 1 or not isinstance(arrays[0], np.ndarray):
        found = ", ".join(content) or "nothing"
        raise ValueError(f"expected superpixels and labels, masks, or one array; found {found}")
    return (arrays[0] if arrays[0].ndim == 2 else np.moveaxis(arrays[0], -1, 0)), 0


def _average_superpixels(superpixels: Any, labels: Any) -> tuple[npt.NDArray[Any], int]:
    # SciPy gives the only entry of a cell without the cell.
    labels = labels if isinstance(labels, list) else [labels]
    if not isinstance(superpixels, np.ndarray) or superpixels.ndim != 2 or not all(map(np.size, labels)) or not labels:
        raise ValueError("expected superpixels (H, W) and a cell of labels, one entry for each proposal")
    names, positions = np.unique(superpixels, return_inverse=True)
    masks = np.zeros((len(labels), len(names)), dtype=np.bool_)
    for number, of_proposal in enumerate(labels):
        inside = np.isin(names, of_proposal)
        if inside.sum() != len(np.unique(of_proposal)):
            raise ValueError(f"proposal {number + 1} has labels that are no superpixels: {of_proposal}")
        masks[number] = inside
    return uniform_saliency(masks)[positions.reshape(superpixels.shape)], len(labels)


def _structures(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield content
    for value in content.values():
        if isinstance(value, dict):
            yield from _structures(value)


def _listed(value: Any) -> Any:
    """Structures as dicts and cells as lists; SciPy makes an array of a cell whose entries are equally long."""
    if isinstance(value, dict):
        return {name: _listed(field) for name, field in value.items()}
    return list(value) if isinstance(value, np.ndarray) and value.dtype == object else value


def _hdf5_group(group: h5py.Group, *, file: h5py.File) -> dict[str, Any]:
    names = [name for name in group if not name.startswith("#")]
    for name in names:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link, which may lead to another file")
    return {name: _hdf5_value(group[name], file=file) for name in names}


def _hdf5_value(item: h5py.Group | h5py.Dataset, *, file: h5py.File) -> Any:
    """A structure as a dict, a cell as a list, an array with MATLAB's order of axes; None for text."""
    if isinstance(item, h5py.Group):
        return _hdf5_group(item, file=file)
    if item.external or item.is_virtual:
        raise ValueError(f"{item.name} lies in another file")
    if item.attrs.get("MATLAB_class") == b"char":
        return None
    if item.attrs.get("MATLAB_empty"):
        return np.zeros((0, 0))
    if item.dtype == h5py.ref_dtype:
        return [_hdf5_value(file[reference], file=file) for reference in np.ravel(item[()].T)]
    return np.squeeze(item[()].T)
