"""Elementary functions: accuracy, ends of their ranges, and that maps use no others."""

import ast
import dataclasses
import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy._core import _multiarray_umath as numpy_core

from pseudo_maps import elementary
from pseudo_maps.config import MapConfig
from pseudo_maps.map_making import saliency_map
from pseudo_maps.proposals import PRESETS
from tests.command_calls import REPOSITORY

FOLDER = Path(elementary.__file__).parent
ROUNDED_BY_CPU = frozenset(
    "exp exp2 expm1 log log2 log10 log1p power float_power pow sin cos tan arcsin arccos arctan arctan2 atan2 hypot "
    "sinh cosh tanh dot matmul vdot inner tensordot einsum linalg fft norm".split()
)
"""Functions of numpy, and of the C library in kernels, whose last bits depend on the CPU."""
WHOLE_NUMBERS = {"fletcher32.py"}


def test_exponentials_are_right_to_the_last_digits() -> None:
    values = np.concatenate([-np.random.default_rng(0).exponential(20, 3000), [0.0, -700.0, 700.0, 0.5, -1e-300]])
    wanted = [math.exp(value) for value in values]
    np.testing.assert_allclose(elementary.exponential(values), wanted, rtol=5e-16)
    assert elementary.exponential(np.array([0.0, -0.0, -800.0, -np.inf])).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("exponent", [0.8, float(np.float32(0.8)), 1, 3, 0.01])
def test_powers_are_the_nearest_float32(exponent: float) -> None:
    values = np.random.default_rng(1).random(3000).astype(np.float32)
    values[:4] = 0, 1, 1e-30, 1e-45
    found = elementary.power(values, exponent)
    assert found.dtype == np.float32
    assert found.tolist() == np.array([float(value) ** exponent for value in values]).astype(np.float32).tolist()


def test_cosine_waves_are_cosines() -> None:
    places = np.concatenate([np.random.default_rng(2).random(200), [0, 0.5, 1]])
    waves = elementary.cosine_waves(places, count=9)
    np.testing.assert_allclose(waves, np.cos(np.pi * np.arange(9)[:, None] * places), atol=1e-13)
    assert elementary.cosine_waves(places, count=1).tolist() == [[1] * len(places)]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_inverses_of_positive_definite_matrices(size: int) -> None:
    rows = np.random.default_rng(size).normal(size=(20, size))
    matrix = rows.T @ rows + 1e-3 * np.eye(size)
    before = matrix.copy()
    np.testing.assert_allclose(elementary.inverse(matrix) @ matrix, np.eye(size), atol=1e-10)
    np.testing.assert_array_equal(matrix, before)


def rounded_by_cpu(path: Path) -> list[str]:
    """Uses of functions and operators whose last bits depend on the CPU, inside functions."""
    found = []
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Attribute) and node.attr in ROUNDED_BY_CPU:
            found.append(f"{path.name}:{node.lineno}: {node.attr}")
        # numpy squares by multiplying; any other power of an array is its function power.
        if isinstance(node, ast.BinOp) and (
            isinstance(node.op, ast.MatMult)
            or (isinstance(node.op, ast.Pow) and not (isinstance(node.right, ast.Constant) and node.right.value == 2))
        ):
            found.append(f"{path.name}:{node.lineno}: {type(node.op).__name__}")
    return found


def test_maps_use_no_function_that_rounds_by_the_cpu() -> None:
    files = [path for path in sorted(FOLDER.rglob("*.py")) if path.name not in WHOLE_NUMBERS]
    assert len(files) > 20
    assert [use for path in files for use in rounded_by_cpu(path)] == []


def digest_of_maps() -> str:
    """SHA-256 of the maps of one picture of blocks and noise by both detectors that need no model."""
    generator = np.random.default_rng(5)
    blocks_hwc = generator.integers(0, 256, size=(6, 8, 3)).repeat(20, axis=0).repeat(20, axis=1)
    rgb_hwc = np.clip(blocks_hwc + generator.normal(0, 12, size=blocks_hwc.shape), 0, 255).astype(np.uint8)
    digest = hashlib.sha256()
    for boundaries in ("directed-sobel", "spectral-contrast"):
        # Shrunk, because that is a step too.
        proposals = dataclasses.replace(PRESETS["b650"], boundaries=boundaries, working_size=120)
        config = MapConfig(proposals=proposals, weighting="objectness")
        digest.update(saliency_map(rgb_hwc, config=config)[0].tobytes())
    return digest.hexdigest()


def test_maps_are_the_same_bytes_without_the_vector_instructions_of_this_cpu() -> None:
    features = numpy_core.__cpu_features__
    spared = [name for name in numpy_core.__cpu_dispatch__ if features.get(name)]
    without = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(spared),
        "OPENBLAS_CORETYPE": "Prescott",
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,AVX,FP16,SSE4.2,SSE4.1",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
    }
    program = (
        "from numpy._core._multiarray_umath import __cpu_features__ as features; "
        f"assert not any(features[name] for name in {spared}); "
        "from tests.pseudo_maps.test_elementary import digest_of_maps; print(digest_of_maps())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, **without},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == digest_of_maps(), done.stderr
