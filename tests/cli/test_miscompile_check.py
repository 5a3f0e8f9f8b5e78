"""A canary for compilers that give wrong numbers: it died of jaxlib 0.10.2 on the CPU."""

import jax
import numpy as np
import pytest

from jaxrnn.cli.miscompile_check import MiscompileCheck, miscompile_check


def test_jit_agrees_with_eager():
    """jax issue 39103: the last of 32769 rows came out as 1071645696."""
    result = miscompile_check()
    np.testing.assert_array_equal(result.eager, result.expected)
    np.testing.assert_array_equal(result.compiled, result.expected)
    assert result.alive
    assert str(result) == "jit and eager agree (1073741824)"


def test_it_is_exact_whatever_jax_is_set_to():
    with jax.enable_x64(True), jax.default_matmul_precision("bfloat16"):
        assert miscompile_check().alive


@pytest.mark.parametrize("row", [0, 7, 32768])
@pytest.mark.parametrize("field", ["eager", "compiled"])
@pytest.mark.parametrize("value", [1071645696.0, np.nan])
def test_one_wrong_number_kills_it(row, field, value):
    right = np.arange(32769, dtype=np.float32) ** 2
    wrong = right.copy()
    wrong[row] = value
    result = MiscompileCheck(right, right, right)._replace(**{field: wrong})
    assert not result.alive
    assert f"of row {row} " in str(result)
    assert f"{value:.10g}" in str(result)
