"""The check for compilers that give wrong numbers."""

import jax
import numpy as np
import pytest

from jaxrnn.cli.miscompile_check import MiscompileCheck, miscompile_check


def test_jit_agrees_with_eager():
    """jax issue 39103: the last of 32769 rows came out as 1071645696."""
    result = miscompile_check()
    np.testing.assert_array_equal(result.eager, result.expected)
    np.testing.assert_array_equal(result.compiled, result.expected)
    assert result.passed
    assert str(result) == "jit and eager agree (1073741824)"


def test_it_is_exact_under_any_setting_of_jax():
    with jax.enable_x64(True), jax.default_matmul_precision("bfloat16"):
        assert miscompile_check().passed


@pytest.mark.parametrize("row", [0, 7, 32768])
@pytest.mark.parametrize("field", ["eager", "compiled"])
@pytest.mark.parametrize("value", [1071645696.0, np.nan])
def test_one_wrong_number_fails(row, field, value):
    right = np.arange(32769, dtype=np.float32) ** 2
    wrong = right.copy()
    wrong[row] = value
    result = MiscompileCheck(right, right, right)._replace(**{field: wrong})
    assert not result.passed
    assert f"row {row} is " in str(result)
    assert f"{value:.10g}" in str(result)
