"""The embedded Reber grammar: remember the second symbol until the last but one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.rng import child_key, root_key
from jaxrnn.tasks.grammars.automaton import Automaton, conditional_entropy
from jaxrnn.tasks.grammars.next_symbol import NextSymbol, pack
from jaxrnn.types import Arrays, Batch

SYMBOLS = "BTSXPVE"


def reber_automaton(again: bool = False) -> Automaton:
    """The embedded Reber grammar; with `again`, a string's end is the start of the next one.

    State 0 is the start, state 1 follows B. Then there are nine states after T, and nine after P:
    a Reber grammar between its B and E, the same T or P once more, and E.
    """
    end = 0 if again else 20
    edges: list[tuple[tuple[str, int], ...]] = [(("B", 1),), (("T", 2), ("P", 11))]
    for outer, s in (("T", 2), ("P", 11)):
        edges += [
            (("B", s + 1),),
            (("T", s + 2), ("P", s + 3)),
            (("S", s + 2), ("X", s + 4)),
            (("T", s + 3), ("V", s + 5)),
            (("X", s + 3), ("S", s + 6)),
            (("P", s + 4), ("V", s + 6)),
            (("E", s + 7),),
            ((outer, s + 8),),
            (("E", end),),
        ]
    if not again:
        edges.append((("B", end),))  # the padding
    numbered = tuple(tuple((SYMBOLS.index(c), q) for c, q in pairs) for pairs in edges)
    return Automaton(numbered, len(SYMBOLS), end)


AUTOMATON = reber_automaton()


@dataclass(frozen=True)
class EmbeddedReber(NextSymbol):
    """Predict, at every step, which symbols may come next in a string of a small grammar.

    A string is B, then T or P, a Reber string, the same T or P again, and E. A Reber string is a
    walk through a graph from its B to its E; `reber_automaton` has it. Where two edges leave, each
    is taken with probability 1/2. The inputs are one-hot, F=7, in the order of `SYMBOLS`; E is not
    read. A string has at least 9 symbols; it is drawn given that it has at most `max_length`, which
    is true of all but 6 in 100,000 for 40.

    As in Hochreiter and Schmidhuber (1997), experiment 1, there are 256 training strings, of which
    each batch is a random sample, and 256 test strings that are not among them. The validation set
    is both. A network has solved the task if at every step of all these strings the symbols that
    may come have the largest outputs. In 1997 the outputs were logistic units with a squared error;
    here they are a softmax with cross-entropy.

    Attributes:
      max_length: the most symbols of a string; T is one less, since E is not read.
      batch_size: B.
      num_training_strings: 0 draws new strings for every batch.
      num_test_strings: at least 1.
      string_set: the number of the pair of training and test set.
      output_size: V = 7, the symbols.

    Raises:
      SettingError: if a number is out of range, or there are too few strings for a test set.

    >>> task = EmbeddedReber(batch_size=1, num_training_strings=0)
    >>> batch = task.sample_batch(jax.random.key(1), 0)
    >>> "".join(SYMBOLS[n] for n in batch.inputs[0, : int(batch.lengths[0])].argmax(-1))
    'BPBTXSEP'
    """

    output_size = len(SYMBOLS)

    max_length: int = 40
    batch_size: int = 16
    num_training_strings: int = 256
    num_test_strings: int = 256
    string_set: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "max_length", "batch_size", "num_test_strings")
        if self.max_length < 9:
            raise SettingError("max length must be at least 9, the length of the shortest string")
        for name in ("num_training_strings", "string_set"):
            value, words = getattr(self, name), name.replace("_", " ")
            if not isinstance(value, int) or not 0 <= value < 2**31:
                raise SettingError(f"{words} must be a whole number from 0, not {value!r}")

    @property
    def length_groups(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Up to 10, 15, 20, 25 and T symbols that are read; few strings have more than 25."""
        steps = self.max_length - 1
        return (*(bound for bound in (10, 15, 20, 25) if bound < steps), steps)

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats of the best prediction from the current symbol alone: H(next | current)."""
        return conditional_entropy(AUTOMATON.pairs(self.max_length))

    def strings(self, key: jax.Array, rows: int) -> dict[str, jax.Array]:
        """Strings: symbols [B, T] without the last, targets [B, T] and lengths [B], int32."""
        symbols, states = AUTOMATON.sample(key, rows, self.max_length)
        allowed = jnp.asarray(AUTOMATON.allowed)[states[:, 1:]]  # [B, T, V]
        return {
            "symbols": symbols[:, :-1],
            "targets": pack(symbols[:, 1:], allowed),
            "lengths": jnp.sum(states != AUTOMATON.end, axis=1, dtype=jnp.int32) - 1,
        }

    def arrays(self) -> Arrays:
        """Training and test strings: see `strings`."""
        return self._sets

    @cached_property
    def _sets(self) -> dict[str, dict[str, np.ndarray]]:
        key = child_key(root_key(self.string_set), "validation")
        keys = (jax.random.fold_in(key, n) for n in range(2))
        train, test = self.num_training_strings, self.num_test_strings
        with jax.ensure_compile_time_eval():  # also while a program is traced
            drawn, others = (
                jax.device_get(self.strings(key, rows))
                for key, rows in zip(keys, (train, 16 * test), strict=True)
            )
        used = {tuple(row) for row in drawn["symbols"].tolist()}
        fresh = [n for n, row in enumerate(others["symbols"].tolist()) if tuple(row) not in used]
        if len(fresh) < test:
            raise SettingError(
                f"only {len(fresh)} of {16 * test} strings are not among the training strings; use"
                " a larger max length or fewer strings"
            )
        test_set = {name: array[fresh[:test]] for name, array in others.items()}
        return {"train": drawn, "test": test_set} if train else {"test": test_set}

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, 7], targets [B, T], weights [B, T] and lengths [B]."""
        del step
        if not self.num_training_strings:
            return self.batch(self.strings(key, self.batch_size))
        shape, count = (self.batch_size,), self.num_training_strings
        rows = jax.random.randint(key, shape, 0, count, jnp.int32)
        return self.batch(jax.tree.map(lambda array: jnp.asarray(array)[rows], arrays["train"]))

    def num_validation_batches(self, arrays: Arrays) -> int:
        """One, of all strings."""
        del arrays
        return 1

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """The training strings, if they are a fixed set, and the test strings."""
        del n
        parts = jax.tree.map(jnp.asarray, tuple(arrays.values()))
        return self.batch(jax.tree.map(lambda *sets: jnp.concatenate(sets), *parts))

    def batch(self, strings: dict[str, Any]) -> Batch:
        """The batch of some strings."""
        lengths = strings["lengths"]
        steps = jnp.arange(self.max_length - 1, dtype=jnp.int32)[None]
        inside = steps < lengths[:, None]  # [B, T]
        inputs = jax.nn.one_hot(strings["symbols"], len(SYMBOLS), dtype=jnp.float32)
        inputs = jnp.where(inside[..., None], inputs, 0.0)
        return Batch(inputs, strings["targets"], inside.astype(jnp.float32), lengths)

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether every symbol of every training and test string is predicted."""
        return metrics["validation_correct_strings"] == 1.0
