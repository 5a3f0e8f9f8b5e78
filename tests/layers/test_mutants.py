"""Mutants: the library with one line wrong, each of which some golden must catch.

A golden that no mutant can break proves nothing. With constant weights, or inputs alike along an
axis, most of these mutants would live.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

import jax
import pytest

PUBLISHED = "test_published:test_a_cell_equals_a_public_implementation"
GOLDENS = {  # the function in test_oracles or another module, and its case
    "torch lstm": ("test_a_layer_and_its_gradients_equal_pytorch", "lstm", "stacked", None, None),
    "torch gru": ("test_a_layer_and_its_gradients_equal_pytorch", "gru", "stacked", None, None),
    "torch rnn": ("test_a_layer_and_its_gradients_equal_pytorch", "rnn", "stacked", None, None),
    "newton lstm": ("test_newtons_method_equals_pytorch", "lstm", None),
    "newton gru": ("test_newtons_method_equals_pytorch", "gru", None),
    "torch loss": ("test_the_loss_equals_pytorchs_with_ignore_index", None),
    "keras gru": ("test_a_layer_equals_keras", "gru", "bidirectional", None),
    "keras gru, before": ("test_a_layer_equals_keras", "gru_reset_before", "bidirectional", None),
    "onnx lstm": ("test_a_layer_equals_the_onnx_operator", "lstm_peepholes", "bidirectional", None),
    "tf1": ("test_a_layer_equals_tensorflow", "two", None),
    "torch proj": (
        *("test_a_layer_and_its_gradients_equal_pytorch", "lstm_proj"),
        *("stacked", None, None),
    ),
    "coupled": (
        *("test_a_layer_over_padded_rows_equals_onnxruntime", "lstm_coupled_peepholes"),
        "bidirectional",
    ),
    "indrnn": (PUBLISHED, "indrnn.clipped", "scan", None),
    "urlstm": (PUBLISHED, "urlstm.plain", "scan", None),
    "lru": (PUBLISHED, "lru.plain", "scan", None),
    "lru at once": (PUBLISHED, "lru.plain", "associative_scan", None),
    "rglru": (PUBLISHED, "rglru.plain", "scan", None),
    "slstm": (PUBLISHED, "slstm.from_states", "scan", None),
    "slstm from zero": (PUBLISHED, "slstm.from_zero", "scan", None),
    "mlstm": (PUBLISHED, "mlstm.plain", "scan", None),
    "deltanet": (PUBLISHED, "deltanet.negative", "scan", None),
    "gateddeltanet": (PUBLISHED, "gateddeltanet.plain", "scan", None),
    "rglru at once": (PUBLISHED, "rglru.plain", "associative_scan", None),
}

MUTANTS = {  # what is wrong: the golden that sees it, the module, what stands there, what instead
    # gates in another order
    "i and f": ("torch lstm", "cells.lstm", "i, f, g, o = (", "f, i, g, o = ("),
    "g and o": ("torch lstm", "cells.lstm", "i, f, g, o = (", "i, f, o, g = ("),
    "r and z of torch": ("torch gru", "interop.torch", '"gru": "rzn"', '"gru": "zrn"'),
    "z and r of Keras": ("keras gru", "interop.keras", '"gru": "zrn"', '"gru": "rzn"'),
    "o and f of ONNX": ("onnx lstm", "interop.onnx", '"lstm": "iofg"', '"lstm": "ifog"'),
    "o and f of ONNX's peepholes": ("onnx lstm", "interop.onnx", '"iof"', '"ifo"'),
    "g and f of TensorFlow": ("tf1", "interop.tf1", '"igfo"', '"ifgo"'),
    # the recurrent matrix transposed
    "the recurrent matrix": (
        *("torch rnn", "interop.matrices"),
        '{"kernel": recurrent}',
        '{"kernel": recurrent.T}',
    ),
    # a bias dropped
    "the LSTM's bias": (
        *("torch lstm", "cells.lstm"),
        "bias_init=self._bias(gate))(hidden)",
        "use_bias=False)(hidden)",
    ),
    "the GRU's hidden bias": (
        *("torch gru", "cells.gru"),
        "use_bias=self.reset_after",
        "use_bias=False",
    ),
    "one of two biases": (
        *("torch rnn", "interop.matrices"),
        "else [sum(biases)]",
        "else biases[:1]",
    ),
    "the forget bias": ("tf1", "interop.tf1", "], _forget(", "], 0 * _forget("),
    # padding that counts
    "the mean over padding": (
        *("torch loss", "losses"),
        "/ jnp.where(total > 0, total, 1.0)",
        "/ weights.size",
    ),
    "backwards from the padding": (
        *("torch gru", "layers.scan"),
        "new = jax.tree.map(partial(_where, now.valid)",
        "new = new if reverse else jax.tree.map(partial(_where, now.valid)",
    ),
    "forwards into the padding": (
        *("torch gru", "layers.scan"),
        "new = jax.tree.map(partial(_where, now.valid)",
        "new = new if not reverse else jax.tree.map(partial(_where, now.valid)",
    ),
    "outputs in the padding": (
        *("torch rnn", "layers.scan"),
        "output = _where(now.valid, output, jnp.zeros_like(output))",
        "pass",
    ),
    "lengths one too long": ("torch rnn", "layers.scan", "[None] < lengths", "[None] <= lengths"),
    # directions and states
    "the two directions": (
        "torch rnn",
        "layers.stack",
        "[forward, backward]",
        "[backward, forward]",
    ),
    "no direction": (
        *("torch rnn", "layers.scan"),
        "reverse=reverse,\n        # The check",
        "\n        # The check",
    ),
    "no initial carry": (
        *("torch rnn", "layers.recurrent"),
        "carry = jax.tree.map(jnp.asarray, initial_carry)",
        "pass",
    ),
    "c handed on as h": ("torch lstm", "cells.lstm", "LSTMCarry(c, h), h", "LSTMCarry(h, c), h"),
    # the equations
    "the update gate": (
        "torch gru",
        "cells.gru",
        "promote(z, carry, (1.0 - z) * n)",
        "promote(z, n, (1.0 - z) * carry)",
    ),
    "reset before for after": (
        "torch gru",
        "cells.gru",
        "        if self.reset_after:",
        "        if 0:",
    ),
    "reset after for before": (
        *("keras gru, before", "cells.gru"),
        "        if self.reset_after:",
        "        if 1:",
    ),
    "a peephole one step late": ("onnx lstm", "cells.lstm", '"po", c, o', '"po", carry.c, o'),
    "the coupled forget gate": ("coupled", "cells.lstm", "1 - i if f is None", "i if f is None"),
    "the state before the projection": (
        *("torch proj", "cells.lstm"),
        '"projection", **options, **types)(h)',
        '"projection", **options, **types)(c)',
    ),
    "no tanh": ("torch rnn", "cells.elman", "h = self.activation_fn(", "h = ("),
    # fused, forward and back
    "i and f, fused": ("torch lstm", "layers.fused", "i, f, g, o = (a + b", "f, i, g, o = (a + b"),
    "the gradient of g": ("torch lstm", "layers.fused", "dc * i * (1 - g * g)", "dc * (1 - g * g)"),
    "r in the gradient of h": ("torch gru", "layers.fused", "(dr, dz, dn * r)", "(dr, dz, dn)"),
    "what padding hands back": (
        *("torch gru", "layers.fused_loop"),
        "d_old = jax.tree.map(jnp.add, d_old, skipped)",
        "pass",
    ),
    # Newton's method
    "too early an end": ("newton lstm", "layers.newton", "TOLERANCE = 4 ", "TOLERANCE = 1e12 "),
    "the Jacobians transposed": ("newton lstm", "layers.newton", "jacobians.mT", "jacobians"),
    "the gradient one step late": ("newton gru", "layers.newton", ".mT, -1, axis=0", ".mT, 0"),
    "padding that is solved for": (
        "newton gru",
        "layers.newton",
        "jnp.where(masks.valid, new, old)",
        "new",
    ),
    # the newer cells
    "no bound of u": ("indrnn", "cells.indrnn", "if self.recurrent_clip is not None:", "if 0:"),
    "the old h without u": ("indrnn", "cells.indrnn", "range(driven.ndim - 1)) * hidden", "0) + 0"),
    "the refine gate's bias": (
        "urlstm",
        "cells.urlstm",
        'products("r"), -bias',
        'products("r"), bias',
    ),
    "the refine gate's bounds": ("urlstm", "cells.urlstm", "1 - (1 - f) ** 2", "1 - (1 - f)"),
    "the conjugate of C": ("lru", "cells.lru", "re - im + direct", "re + im + direct"),
    "no gamma": ("lru", "cells.lru", "_complex(gamma * re, gamma * im)", "_complex(re, im)"),
    "the decay's phase": ("lru", "cells.lru", "size * jnp.sin(phase))", "-size * jnp.sin(phase))"),
    "a for a^2": ("rglru", "cells.rglru", "expm1(2 * log_a)", "expm1(log_a)"),
    "r and z": ("rglru", "cells.rglru", "        r, z = nn", "        z, r = nn"),
    "blocks": ("rglru", "cells.base", "...ki,kij->...kj", "...ki,kji->...kj"),
    "the order of two steps": (
        *("lru at once", "layers.scan"),
        "second.decay * first.drive + second.drive",
        "first.decay * second.drive + first.drive",
    ),
    "the first state at once": (
        *("rglru at once", "layers.scan"),
        "total.decay * first[:, None] + total.drive",
        "total.drive",
    ),
    "no stabilizer before": ("slstm", "cells.slstm", "kept = log_f + m", "kept = log_f"),
    "no normalizer": ("slstm", "cells.slstm", "h = o * c / n", "h = o * c"),
    "an unstable input gate": (
        "slstm from zero",
        "cells.slstm",
        "jnp.exp(log_i - m)",
        "jnp.exp(log_i)",
    ),
    "z and o": (
        *("slstm", "cells.slstm"),
        '"z")), nn.sigmoid(products("o"))',
        '"o")), nn.sigmoid(products("z"))',
    ),
    "keys of another size": ("mlstm", "cells.mlstm", "k = k / math.sqrt(size)", "pass"),
    "the memory transposed": (
        "mlstm",
        "cells.mlstm",
        "q[..., None]).sum(-2)",
        "q[..., None, :]).sum(-1)",
    ),
    "no floor of the scale": ("mlstm", "cells.mlstm", "jnp.exp(-m))", "0 * m)"),
    "beta up to 1": ("deltanet", "cells.deltanet", "2 * beta if", "beta if"),
    "nothing taken out": ("deltanet", "cells.deltanet", "(v - stored)", "v"),
    "long keys": ("deltanet", "cells.deltanet", "normalized(q), normalized(k)", "normalized(q), k"),
    "the decay after": ("gateddeltanet", "cells.deltanet", "stored = (state", "stored = (carry.s"),
    "the step's bias": ("gateddeltanet", "cells.gated_deltanet", "(step + jnp", "(step - jnp"),
    "a rate without exp": (
        "gateddeltanet",
        "cells.gated_deltanet",
        "expand_dims(jnp.exp(log_rate),",
        "expand_dims((log_rate),",
    ),
    "the untied input gate": ("urlstm", "cells.urlstm", "(1 - effective) * g)", "(1 - f) * g)"),
}


class Mutant(MetaPathFinder):
    """Finds one module, with a piece of its source changed."""

    def __init__(self, module: str, piece: str, instead: str) -> None:
        """The piece must stand in the source once, so that no mutant can outlive its line."""
        self.module, self.piece, self.instead = module, piece, instead

    def changed(self, source: str) -> str:
        """The module's source with the piece replaced."""
        assert source.count(self.piece) == 1, f"{self.piece!r} is not in {self.module} once"
        return source.replace(self.piece, self.instead)

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """The module with the changed source; no other."""
        spec = PathFinder.find_spec(name, path) if name == self.module else None
        if spec is None or spec.origin is None:
            return None
        return importlib.util.spec_from_file_location(
            name, spec.origin, loader=self.loader(name, spec.origin)
        )

    def loader(self, name: str, path: str) -> SourceFileLoader:
        """Compiles the changed source, past any cached bytecode."""
        mutant = self

        class Loader(SourceFileLoader):
            def get_code(self, fullname):
                source = mutant.changed(self.get_data(path).decode())
                return compile(source, path, "exec")

        return Loader(name, path)


@contextmanager
def goldens_with(mutant: Mutant | None) -> Iterator[ModuleType]:
    """The module of the goldens and all of the library imported anew, with a mutant or without."""
    modules = ("jaxrnn", "test_oracles", "test_published")
    ours = lambda name: name.partition(".")[0] in modules  # noqa: E731
    kept = {name: sys.modules.pop(name) for name in [*filter(ours, sys.modules)]}
    if mutant:
        sys.meta_path.insert(0, mutant)
    try:
        yield importlib.import_module("test_oracles")
    finally:
        if mutant:
            sys.meta_path.remove(mutant)
        for name in [*filter(ours, sys.modules)]:
            del sys.modules[name]
        sys.modules.update(kept)


def check(oracles: ModuleType, golden: str) -> None:
    name, *case = GOLDENS[golden]
    module, _, function = name.rpartition(":")
    with jax.enable_x64(True):
        getattr(importlib.import_module(module) if module else oracles, function)(*case)


def step_by_step(oracles: ModuleType) -> None:
    """From now on its layers take their cells step by step, where they would be fused."""
    vars(oracles)["Recurrent"] = partial(oracles.Recurrent, implementation="scan")


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_changes_a_line_that_stands(name):
    _, module, *change = MUTANTS[name]
    spec = importlib.util.find_spec("jaxrnn." + module)
    assert spec and spec.origin
    Mutant("jaxrnn." + module, *change).changed(Path(spec.origin).read_text())


@pytest.mark.slow
def test_every_golden_holds_without_mutants():
    with goldens_with(None) as oracles:
        for golden in GOLDENS:
            check(oracles, golden)
        step_by_step(oracles)
        for golden in GOLDENS:
            check(oracles, golden)


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name):
    golden, module, *change = MUTANTS[name]
    with (
        goldens_with(Mutant("jaxrnn." + module, *change)) as oracles,
        pytest.raises(AssertionError, match=" is off by "),
    ):
        if not module.startswith("layers.fused"):
            step_by_step(oracles)
        check(oracles, golden)
