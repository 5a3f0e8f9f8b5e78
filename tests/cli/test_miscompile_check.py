"""The check for compilers that give wrong numbers."""

import jax
import numpy as np
import pytest

from jaxrnn.cli.miscompile_check import MiscompileCheck, miscompile_checks


def test_jit_agrees_with_eager():
    """jax issue 39103: the last of 32769 sums came out as 1071645696."""
    first, *others = miscompile_checks()
    assert first.expected[-1] == 1073741824
    assert len(others) == 5
    for result in (first, *others):
        np.testing.assert_array_equal(result.eager, result.expected)
        np.testing.assert_array_equal(result.compiled, result.expected)
        assert np.unique(result.expected).size > 3
        assert result.passed
        assert str(result) == f"{result.name}: jit and eager are correct"


def test_they_are_exact_under_any_setting_of_jax():
    with jax.enable_x64(True), jax.default_matmul_precision("bfloat16"):
        assert all(result.passed for result in miscompile_checks())


@pytest.mark.parametrize("n", [0, 7, 32768])
@pytest.mark.parametrize("field", ["eager", "compiled"])
@pytest.mark.parametrize("value", [1071645696.0, np.nan])
def test_one_wrong_number_fails(n, field, value):
    right = np.arange(32769, dtype=np.float32) ** 2
    wrong = right.copy()
    wrong[n] = value
    result = MiscompileCheck("sums", right, right, right)._replace(**{field: wrong})
    assert not result.passed
    assert f"WRONG NUMBERS: sums: number {n} is " in str(result)
    assert f"{value:.10g}" in str(result)
