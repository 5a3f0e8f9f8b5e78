"""One recurrent layer: a cell over time, forwards or backwards."""

import inspect
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells import ElmanCell, GRUCell, LinearCell, LSTMCell, MinGRUCell, MinLSTMCell
from jaxrnn.checks import check_axes, check_carry, check_kind, check_lengths, check_rate, drops
from jaxrnn.layers import scan
from jaxrnn.layers.fused import fused, is_supported
from jaxrnn.types import Carry

KNOWN = (
    *(LSTMCell, GRUCell, ElmanCell, MinLSTMCell, MinGRUCell),
    *(nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.MGUCell, nn.SimpleCell),
)
"""Cells, but not their subclasses, whose dense layers over the input are called i and a gate."""


class Recurrent(nn.Module):
    """A cell applied to every time step in turn, with the same parameters at each.

    Attributes:
      cell: the recurrence: `CELLS["lstm"](hidden_size)`, or any Flax cell over [B, F] whose only
        variables are parameters.
      reverse: whether time runs backwards, from a row's last step to its first. Outputs stay
        where their inputs are.
      recurrent_dropout: the share of hidden units whose value the gates do not see, others in
        each row, the same at all its steps: variational dropout, Gal and Ghahramani (2016),
        section 4. The carry itself is never masked. The cell's call must take a `hidden_mask`.
      chunk: keep for the backward pass only the carries every so many steps, and compute the
        steps between them once more then; None: keep everything. `unroll.in_chunks` says more.
        Where intermediates are read, as `gates.read_gates` does, there are no chunks.
      implementation: "scan" is step by step with `nn.scan`; "fused" makes fewer and larger
        products, for an LSTM or a GRU as it stands, but has no derivative in forward mode (see
        `fused`); "associative_scan" computes all steps together, for a `LinearCell`; "cudnn" is
        NVIDIA's library, for an LSTM in float32 on a GPU, not under `vmap` (see `cudnn`). "auto"
        is fused where that applies; and for a `LinearCell` all together where JAX's default device
        is no CPU, which has too few cores to gain by it (docs/performance.md).

    Raises:
      ValueError: if an attribute is out of range, or not for this cell.

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
    chunk: int | None = None
    implementation: Literal["auto", "scan", "fused", "associative_scan", "cudnn"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
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
        if self.chunk is not None and not (isinstance(self.chunk, int) and self.chunk > 0):
            raise ValueError(f"chunk must be a whole number from 1, or None, not {self.chunk!r}")
        choices = ("auto", "scan", "fused", "associative_scan", "cudnn")
        if self.implementation not in choices:
            raise ValueError(
                f"implementation must be one of {', '.join(choices)}, not {self.implementation!r}"
            )
        if self.implementation == "associative_scan" and not isinstance(self.cell, LinearCell):
            raise ValueError(f"associative_scan is for a LinearCell; {cell} must be scanned")
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
          inputs: [B, T, F] float.
          initial_carry: the carry before the first step; if None a fresh one, zeros for all cells
            here.
          lengths: [B] int in 0..T, how many steps of each row count; all if None. What stands
            past them changes nothing, and gets a gradient of zero. Under `jit` the range is not
            checked: less than 0 counts as 0, more than T as T.
          resets: [B, T] bool, True where another sequence starts: the carry there is fresh again,
            whichever way time runs. Several sequences can so be packed in one row.
          deterministic: whether to leave dropout out. If not, `apply` needs
            `rngs={"dropout": key}`.

        Returns:
          outputs [B, T, H], zero past each row's length, and the carry after each row's last step
          (its first one, if time runs backwards; the initial carry, if the length is 0). A long
          sequence given in pieces, each started from the carry of the one before, equals the whole.
          (Backwards the last piece comes first, and a reset at its first step is the caller's to
          apply: the piece before it does not see it.)

        Raises:
          TypeError: if `inputs` is not float, `lengths` not int, `resets` not bool, the carry not
            of the cell's type, or a step makes numbers that this type cannot hold.
          ValueError: if shapes do not fit each other or the parameters, a length is out of range,
            or there is no key for dropout.
        """
        inputs = jnp.asarray(inputs)
        sizes = check_axes("inputs", inputs, "BTF")
        check_kind("inputs", inputs, jnp.floating, "embed integers, or make them one-hot, first")
        if not sizes["T"]:
            raise ValueError("inputs must have at least one time step, but T = 0")
        if lengths is not None:
            lengths = check_lengths(lengths, sizes["B"], sizes["T"])
        if resets is not None:
            resets = jnp.asarray(resets)
            check_axes("resets", resets, "BT", B=sizes["B"], T=sizes["T"])
            check_kind("resets", resets, jnp.bool_)
        self._check_params(sizes["F"])
        carry = scan.fresh_carry(self.cell, inputs)
        if initial_carry is not None:
            check_carry(initial_carry, carry)
            carry = jax.tree.map(jnp.asarray, initial_carry)
        mask = None
        if drops(self, self.recurrent_dropout, deterministic):
            keep = 1.0 - self.recurrent_dropout
            hidden = jax.tree.leaves(carry)[0]  # [B, H]
            kept = jax.random.bernoulli(self.make_rng("dropout"), keep, hidden.shape)
            mask = kept.astype(hidden.dtype) / keep
        steps = scan.make_steps(inputs, lengths, resets, self.reverse)
        carry, outputs = self._unroll(carry, steps, mask)(self.cell, carry, steps, mask)
        outputs = outputs.astype(getattr(self.cell, "dtype", None) or outputs.dtype)
        self.sow("intermediates", "h", outputs)
        return outputs, carry

    def _unroll(self, carry: Carry, steps: scan.Steps, mask: jax.Array | None) -> scan.Unroll:
        """The function that takes the cell over time."""
        # Who makes parameters or reads gates takes no gradient, and a gate's axes have no chunks.
        plain = self.is_initializing() or self.is_mutable_collection("intermediates")
        function, auto = scan.scan_cell, self.implementation == "auto"
        if isinstance(self.cell, LinearCell):
            elsewhere = auto and jax.default_backend() != "cpu"
            if elsewhere or self.implementation == "associative_scan":
                function = scan.associative_scan_cell
        elif not plain and self.implementation == "cudnn":
            from jaxrnn.layers import cudnn  # here, as 0.03 s of every start would go to its import

            needed = cudnn.unsupported_reason(self.cell, carry, steps, mask)
            if needed:
                raise ValueError(f"cudnn needs {needed}: take implementation='auto'")
            function = cudnn.cudnn_scan
        elif not plain and self.implementation != "scan":
            if is_supported(self.cell, carry, steps.inputs):
                function = fused
            elif not auto:
                raise ValueError("fused needs an LSTM or GRU as it stands, all of one float type")
        function = partial(function, reverse=self.reverse)
        if self.chunk is None or plain:
            return function
        return scan.remat_chunks(function, self.chunk, reverse=self.reverse)

    def _check_params(self, features: int) -> None:
        """Name sizes that do not fit before Flax does, which calls them the shape of a kernel."""
        if type(self.cell) not in KNOWN:
            return
        params = self.cell.variables.get("params", {})
        for name in ("i" + gate for gate in ("", *"ifgorzn")):
            if name not in params:
                continue
            made_for, units = params[name]["kernel"].shape
            if features != made_for:
                raise ValueError(
                    f"inputs must have F = {made_for}, as the parameters have, but F = {features}"
                )
            if units != self.cell.features:
                raise ValueError(
                    f"params must have H = {self.cell.features}, as the cell has, but H = {units}"
                )
