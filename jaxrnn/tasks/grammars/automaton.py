"""A finite automaton that generates strings, sampled on the device."""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Automaton:
    """A graph whose edges carry symbols. At each state the next edge is chosen at random.

    A string starts at state 0 and is over when it gets to the state `end`. Of two edges, each is
    taken with probability 1/2. Static shapes need strings of bounded length, so they are sampled
    given that they are at `end` after a number of steps: at each state the probabilities are
    weighted by those of getting there in the remaining steps. An `end` that leads to itself makes
    all shorter strings possible, too.

    Attributes:
      edges: for each of Q states one or two pairs (symbol, next state).
      num_symbols: V.
      end: a state.

    >>> sheep = Automaton((((0, 1),), ((1, 1), (2, 2)), ((3, 2),)), num_symbols=4, end=2)
    >>> symbols, states = sheep.sample(jax.random.key(3), rows=3, steps=6)
    >>> ["".join("ba! "[n] for n in row).strip() for row in symbols]
    ['b!', 'baa!', 'b!']
    """

    edges: tuple[tuple[tuple[int, int], ...], ...]
    num_symbols: int
    end: int

    @cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """The symbols and the next states of the edges, [Q, 2] int32; a single edge is doubled."""
        both = np.array([edges * (2 // len(edges)) for edges in self.edges], np.int32)
        return both[..., 0], both[..., 1]

    @cached_property
    def allowed(self) -> np.ndarray:
        """The symbols that may come at each state, [Q, V] bool."""
        allowed = np.zeros((len(self.edges), self.num_symbols), bool)
        np.put_along_axis(allowed, self.tables[0], True, axis=1)
        return allowed

    def ends(self, steps: int) -> np.ndarray:
        """The probabilities of being at `end` after 0, 1, ..., `steps` symbols, [steps+1, Q]."""
        rows = [np.eye(len(self.edges))[self.end]]
        for _ in range(steps):
            rows.append(rows[-1][self.tables[1]].mean(axis=1))
        return np.stack(rows)

    def first_edge(self, steps: int) -> np.ndarray:
        """The probability of a state's first edge at each of `steps` steps, [steps, Q]."""
        after = self.ends(steps)[:-1, self.tables[1]][::-1]  # [steps, Q, 2]
        total = after.sum(axis=-1)
        return np.where(total > 0, after[..., 0] / np.where(total > 0, total, 1.0), 0.5)

    def sample(self, key: jax.Array, rows: int, steps: int) -> tuple[jax.Array, jax.Array]:
        """Strings that are at `end` after `steps` steps.

        Args:
          key: [] PRNG key.
          rows: B.
          steps: T, at least the length of the shortest string.

        Returns:
          symbols [B, T] int32, and the states before them, [B, T] int32.
        """
        symbols, targets = (jnp.asarray(table) for table in self.tables)
        first = jnp.asarray(self.first_edge(steps), jnp.float32)  # [T, Q]
        draws = jax.random.uniform(key, (steps, rows), jnp.float32)  # [T, B]

        def walk(
            states: jax.Array, step: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            draw, first = step
            edge = (draw >= first[states]).astype(jnp.int32)  # [B]
            return targets[states, edge], (symbols[states, edge], states)

        _, (taken, states) = jax.lax.scan(walk, jnp.zeros(rows, jnp.int32), (draws, first))
        return taken.T, states.T

    def pairs(self, steps: int) -> np.ndarray:
        """How often symbol w is expected to follow symbol v in a string of `steps`, [V, V].

        Pairs that begin at an `end` that leads to itself are left out.
        """
        symbols, targets = self.tables
        counts = np.zeros((self.num_symbols, self.num_symbols))
        edge = np.stack([(p := self.first_edge(steps)), 1 - p], axis=-1)  # [T, Q, 2]
        here = np.eye(len(self.edges))[0]  # the distribution of the state
        for t in range(steps):
            taken = here[:, None] * edge[t]  # [Q, 2]
            here = np.zeros(len(self.edges))
            np.add.at(here, targets, taken)
            for e in range(2) if t + 1 < steps else ():
                following = taken[..., None] * edge[t + 1][targets]  # [Q, 2, 2]
                is_inside = (targets != self.end) | (targets[self.end] != self.end)
                np.add.at(
                    counts,
                    (symbols, symbols[targets][..., e]),
                    np.where(is_inside, following[..., e], 0.0),
                )
        return counts


def conditional_entropy(pairs: np.ndarray) -> float:
    """H(next | current), in nats, for the counts of pairs of current and next symbols, [V, V]."""
    given = np.broadcast_to(pairs.sum(axis=1, keepdims=True), pairs.shape)
    seen = pairs > 0
    return float(-(pairs[seen] * np.log(pairs[seen] / given[seen])).sum() / pairs.sum())
