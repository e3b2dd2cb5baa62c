"""Elementary functions with the same bits on every CPU, from additions, multiplications and divisions alone.

``numpy.exp``, ``power`` and ``cos`` choose their code by the CPU's vector instructions, the C library by its fused
multiply-add, and BLAS and LAPACK by its model; each rounds in its own way. Here every operation is rounded once, in a
fixed order. Errors are a few units in the last place of float64.

Legend: N values, S places, K waves, M rows and columns of a matrix.
"""

import math

import numpy as np

from pseudo_maps.kernels import Doubles, Floats, kernel

_LOG2_E = 1 / math.log(2)
_LN2_HIGH = 0.693147180369123816490
"""The leading 33 bits of ln 2, so that its product with a small integer is exact (fdlibm, ``e_exp.c``)."""
_LN2_LOW = 1.90821492927058770002e-10
_EXP_TERMS = tuple(1 / math.factorial(power) for power in range(13, -1, -1))
_LOG_TERMS = tuple(2 / power for power in range(21, 0, -2))
_SINE_TERMS = tuple((-1) ** (power // 2) / math.factorial(power) for power in range(21, 0, -2))
_SMALLEST_EXPONENT = -746.0
_ROOT_OF_HALF = math.sqrt(0.5)


@kernel
def _exponential_of(value: float) -> float:
    value = max(value, _SMALLEST_EXPONENT)
    doublings = math.floor(value * _LOG2_E + 0.5)
    rest = (value - doublings * _LN2_HIGH) - doublings * _LN2_LOW
    total = 0.0
    for term in _EXP_TERMS:
        total = total * rest + term
    return math.ldexp(total, int(doublings))


@kernel
def _logarithm_of(value: float) -> float:
    share, doublings = math.frexp(value)
    if share < _ROOT_OF_HALF:
        share, doublings = 2 * share, doublings - 1
    # ln share = 2 atanh((share - 1) / (share + 1))
    ratio = (share - 1) / (share + 1)
    square = ratio * ratio
    total = 0.0
    for term in _LOG_TERMS:
        total = total * square + term
    return doublings * _LN2_HIGH + (doublings * _LN2_LOW + total * ratio)


@kernel
def exponential(values: Doubles) -> Doubles:
    """``e ** values``, (N,) float64, of values of at most 709."""
    powers = np.empty_like(values)
    for item in range(values.shape[0]):
        powers[item] = _exponential_of(values[item])
    return powers


@kernel
def power(values: Floats, exponent: float) -> Floats:
    """``values ** exponent``, (N,) float32, of values of at least 0 and an exponent above 0."""
    powers = np.zeros_like(values)
    for item in range(values.shape[0]):
        if values[item] > 0:
            powers[item] = _exponential_of(exponent * _logarithm_of(np.float64(values[item])))
    return powers


def cosine_waves(places: Doubles, *, count: int) -> Doubles:
    """``cos(pi * k * places)`` for k from 0 to ``count - 1``, (K, S) float64, at ``places[S]`` in 0..1."""
    angle = (0.5 - places) * np.pi
    square = angle * angle
    first = np.zeros_like(angle)
    for term in _SINE_TERMS:
        first = first * square + term
    first *= angle
    # Chebyshev's recurrence.
    waves = [np.ones_like(first), first]
    while len(waves) < count:
        waves.append(2 * first * waves[-1] - waves[-2])
    return np.stack(waves[:count])


@kernel
def inverse(matrix: Doubles) -> Doubles:
    """Inverse (M, M) float64 of a symmetric positive definite ``matrix``, by elimination without pivots."""
    count = matrix.shape[0]
    left, right = matrix.copy(), np.eye(count)
    for pivot in range(count):
        scale = 1.0 / left[pivot, pivot]
        for column in range(count):
            left[pivot, column] *= scale
            right[pivot, column] *= scale
        for row in range(count):
            factor = left[row, pivot]
            if row != pivot:
                for column in range(count):
                    left[row, column] -= factor * left[pivot, column]
                    right[row, column] -= factor * right[pivot, column]
    return right
