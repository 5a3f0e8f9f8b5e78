"""One recurrent layer: a cell over time, forwards or backwards."""

import inspect
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells import (
    DeltaNetCell,
    ElmanCell,
    GatedDeltaNetCell,
    GRUCell,
    IndRNNCell,
    LinearCell,
    LRUCell,
    LSTMCell,
    MinGRUCell,
    MinLSTMCell,
    MLSTMCell,
    RGLRUCell,
    SLSTMCell,
    URLSTMCell,
)
from jaxrnn.checks import check_carry, check_rate, drops
from jaxrnn.choices import check_choice
from jaxrnn.layers import explicit, scan
from jaxrnn.layers.fused import is_supported
from jaxrnn.layers.fused_loop import fused_scan
from jaxrnn.types import Carry

CHECKED_CELLS = (
    *(LSTMCell, GRUCell, ElmanCell, MinLSTMCell, MinGRUCell, IndRNNCell, URLSTMCell),
    *(LRUCell, RGLRUCell, SLSTMCell, MLSTMCell, DeltaNetCell, GatedDeltaNetCell),
    *(nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.MGUCell, nn.SimpleCell),
    nn.ConvLSTMCell,
)
"""Cells (not their subclasses) whose dense layers [F, H] are called i plus a gate.

That of `nn.ConvLSTMCell` is called ih, of all gates together: [..., F, 4H].
"""


class Recurrent(nn.Module):
    """A recurrent layer: a cell applied to every time step with the same parameters.

    Attributes:
      cell: the recurrence: `CELLS["lstm"](hidden_size)`, or any Flax cell whose only variables are
        parameters, over [B, F] or more feature axes.
      reverse: run from each row's last step to its first. Outputs stay at the step of their inputs.
      recurrent_dropout: the fraction of hidden units hidden from the gates: a different mask for
        each row, the same at all its steps. This is variational dropout, Gal and Ghahramani (2016),
        section 4. The carry itself is never masked. The cell's call must take a `hidden_mask`.
      remat_chunk_size: keep only the carry every this many steps for the backward pass, and compute
        the steps between a second time; None to keep everything. See `scan.remat_chunks`. Ignored
        where intermediates are read, as in `gates.read_gates`.
      implementation: how to run the cell; all give the same results within rounding.

        - "scan": step by step with `nn.scan`, for any cell.
        - "fused": fewer, larger products and a hand-written backward pass, for LSTMs and GRUs with
          default options and cells of `fused.register_fused_cell`; no forward-mode derivative.
        - "associative_scan": all steps in parallel, for a `LinearCell`; T may be symbolic only with
          a `remat_chunk_size`.
        - "newton": all steps in parallel by Newton's method, for LSTMs and GRUs with default
          options in float32 or float64; no forward-mode derivative. A row that does not converge is
          NaN, and an error where its values are known (not under `jit`). Its memory grows with
          T H^2.
        - "cudnn": NVIDIA's library, for an LSTM in float32 on a GPU; not under `vmap`.
        - "auto": "fused" where supported; for a `LinearCell` "associative_scan", except on a CPU,
          which has too few cores to gain from it (docs/performance.md), and for a symbolic T, which
          `jax.export` allows; otherwise "scan".

    Raises:
      ValueError: if an attribute is out of range, or does not fit the cell.

    >>> from jaxrnn.cells import CELLS
    >>> layer = Recurrent(CELLS["lstm"](4))
    >>> inputs = jax.random.normal(jax.random.key(0), (2, 7, 3))  # [B, T, F]
    >>> variables = layer.init(jax.random.key(1), inputs)
    >>> outputs, carry = layer.apply(variables, inputs, lengths=jnp.array([7, 5]))
    >>> outputs.shape, carry.c.shape, bool((outputs[1, 4] == carry.h[1]).all())
    ((2, 7, 4), (2, 4), True)
    """

    cell: nn.RNNCellBase
    reverse: bool = False
    recurrent_dropout: float = 0.0
    remat_chunk_size: int | None = None
    implementation: Literal["auto", "scan", "fused", "associative_scan", "newton", "cudnn"] = "auto"

    def __post_init__(self) -> None:
        """Check the attributes."""
        if not isinstance(self.cell, nn.Module):
            raise ValueError(f"cell must be a Flax cell, such as LSTMCell(8), not {self.cell!r}")
        cell, features = type(self.cell).__name__, getattr(self.cell, "features", 1)
        if not isinstance(features, int) or features < 1:
            raise ValueError(
                f"{cell} must have a whole number of features from 1, not {features!r}"
            )
        check_rate("recurrent_dropout", self.recurrent_dropout)
        if self.recurrent_dropout and "hidden_mask" not in inspect.signature(self.cell).parameters:
            raise ValueError(f"recurrent_dropout must be 0: {cell} takes no hidden_mask")
        size = self.remat_chunk_size
        if size is not None and not (isinstance(size, int) and size > 0):
            raise ValueError(
                f"remat_chunk_size must be a whole number from 1 or None, not {size!r}"
            )
        choices = ("auto", "scan", "fused", "associative_scan", "newton", "cudnn")
        check_choice("implementation", self.implementation, choices)
        if self.implementation == "associative_scan" and not isinstance(self.cell, LinearCell):
            raise ValueError(f"associative_scan is for a LinearCell; {cell} must be scanned")
        if self.implementation == "newton" and type(self.cell) not in (LSTMCell, GRUCell):
            raise ValueError(f"newton is for an LSTMCell or GRUCell, not {cell}")
        super().__post_init__()

    def __call__(
        self,
        inputs: jax.Array,
        initial_carry: Carry = None,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, Carry]:
        """Run the cell over time.

        Args:
          inputs: [B, T, F] float; [B, T, X, F] or [B, T, X, Y, F] for a cell with more feature
            axes, such as `nn.ConvLSTMCell`, whose outputs and carry have these axes, too.
          initial_carry: the carry before the first step; None for the cell's own, which is zeros
            for all cells of this library.
          lengths: [B] int in 0..T, number of steps in each row; None for T. Inputs past the length
            have no effect and get a gradient of zero. Under `jit` the range is not checked: values
            below 0 act as 0, above T as T.
          resets: [B, T] bool, True where a new sequence starts: the carry does not cross this point
            in either direction. So several sequences can be packed in one row.
          deterministic: True to switch dropout off. If False, `apply` needs
            `rngs={"dropout": key}`.

        Returns:
          outputs [B, T, H], zero past each row's length, and the carry after each row's last step
          (its first step, if `reverse`; the initial carry, if the length is 0). Running a long
          sequence in pieces, each from the carry of the one before, gives the same result as
          running it whole. (In reverse the last piece comes first. If a piece starts with a reset,
          zero the carry yourself before you pass it to the piece before, which cannot see it.)

        Raises:
          TypeError: if `inputs` is not float, `lengths` not int, `resets` not bool, the carry not
            of the cell's dtype, or a step returns a dtype that the carry's cannot hold.
          ValueError: if shapes do not match each other or the parameters, a length is out of range,
            or there is no key for dropout.
        """
        if (sharded := explicit.rows(inputs)) is not None:
            options = lengths, resets, deterministic
            return self._call_with_auto_axes(sharded, inputs, initial_carry, *options)
        axes = _feature_axes(self.cell)
        inputs, lengths, resets = scan.check_sequence(inputs, lengths, resets, axes)
        self._check_params(inputs.shape[-1])
        carry = scan.fresh_carry(self.cell, inputs)
        if initial_carry is not None:
            check_carry(initial_carry, carry)
            carry = jax.tree.map(jnp.asarray, initial_carry)
        mask = None
        if drops(self, self.recurrent_dropout, deterministic):
            keep = 1.0 - self.recurrent_dropout
            hidden = carry.h if hasattr(carry, "h") else jax.tree.leaves(carry)[0]  # [B, H]
            kept = jax.random.bernoulli(self.make_rng("dropout"), keep, hidden.shape)
            mask = kept.astype(hidden.dtype) / keep
        steps = scan.make_steps(inputs, lengths, resets, self.reverse)
        carry, outputs = self._unroll(carry, steps, mask)(self.cell, carry, steps, mask)
        outputs = outputs.astype(getattr(self.cell, "dtype", None) or outputs.dtype)
        self.sow("intermediates", "h", outputs)
        return outputs, carry

    def _is_plain(self) -> bool:
        """Whether to scan: init and gate capture need no gradient, and gates keep their T axis."""
        return self.is_initializing() or self.is_mutable_collection("intermediates")

    def _call_with_auto_axes(
        self,
        axes: Any,
        inputs: jax.Array,
        carry: Carry,
        lengths: jax.Array | None,
        resets: jax.Array | None,
        deterministic: bool,
    ) -> tuple[jax.Array, Carry]:
        if self._is_plain():
            raise ValueError("init and the reading of gates need inputs that are not sharded")
        layer, variables = self.unbind()
        drop = drops(self, self.recurrent_dropout, deterministic)
        key = self.make_rng("dropout") if drop else None

        def run(variables: Any, inputs: Any, carry: Any, options: Any, key: Any) -> Any:
            rngs = None if key is None else {"dropout": key}
            options |= {"deterministic": deterministic, "rngs": rngs}
            return layer.apply(variables, inputs, carry, **options)

        arrays = {"lengths": lengths, "resets": resets}
        return explicit.call(run, axes, variables, inputs, carry, arrays, key)

    def _unroll(self, carry: Carry, steps: scan.Steps, mask: jax.Array | None) -> scan.Unroll:
        """The function that runs the cell over time."""
        plain = self._is_plain()
        function, auto = scan.scan_cell, self.implementation == "auto"
        if isinstance(self.cell, LinearCell):
            off_cpu = auto and jax.default_backend() != "cpu"
            chunked = self.remat_chunk_size is not None and not plain
            length = steps.inputs.shape[1]
            known = chunked or isinstance(length, int)
            if self.implementation == "associative_scan" and not known:
                raise ValueError(
                    f"associative_scan needs a known T, not the symbolic T = {length}:"
                    " use implementation='auto'"
                )
            if known and (off_cpu or self.implementation == "associative_scan"):
                function = scan.associative_scan_cell
        elif not plain and self.implementation == "newton":
            from jaxrnn.layers import newton  # imported here because few need it

            needed = newton.unsupported_reason(self.cell, carry, steps)
            if needed:
                raise ValueError(f"newton needs {needed}: use implementation='auto'")
            function = newton.newton_scan
        elif not plain and self.implementation == "cudnn":
            from jaxrnn.layers import cudnn  # imported here because it takes 0.03 s

            needed = cudnn.unsupported_reason(self.cell, carry, steps, mask)
            if needed:
                raise ValueError(f"cudnn needs {needed}: use implementation='auto'")
            function = cudnn.cudnn_scan
        elif not plain and self.implementation != "scan":
            if is_supported(self.cell, carry, steps.inputs):
                function = fused_scan
            elif not auto:
                raise ValueError(
                    "fused needs an LSTM, GRU or registered cell with default options and a single"
                    " dtype"
                )
        function = partial(function, reverse=self.reverse)
        if self.remat_chunk_size is None or plain:
            return function
        return scan.remat_chunks(function, self.remat_chunk_size, reverse=self.reverse)

    def _check_params(self, features: int) -> None:
        """Check F and H first: Flax's own message speaks of the shape of a kernel."""
        if type(self.cell) not in CHECKED_CELLS:
            return
        params = self.cell.variables.get("params", {})
        for name in ("i" + gate for gate in ("", *"ifgorzndqkvh")):
            if name not in params:
                continue
            *_, made_for, units = params[name]["kernel"].shape
            units //= 4 if type(self.cell) is nn.ConvLSTMCell else 1
            if features != made_for:
                raise ValueError(
                    f"inputs must have F = {made_for}, as the parameters have, but F = {features}"
                )
            if units != self.cell.features:
                raise ValueError(
                    f"params must have H = {self.cell.features}, as the cell has, but H = {units}"
                )


def _feature_axes(cell: nn.RNNCellBase) -> int:
    """The number of feature axes of a cell; 1 for a user's cell that does not define it."""
    try:
        return cell.num_feature_axes
    except (AttributeError, NotImplementedError):  # the second from Flax's base class
        return 1
