"""Text drawn from a language model, unit after unit: greedy, by temperature, top-k and top-p.

A unit is what the model's vocabulary counts: a character, a byte, a word. The model is called as
`model.apply({"params": params}, ids [B, T], carry) -> (logits [B, T, V], carry)`, and every array
of its carry has B as the first axis.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.checks import check_axes, check_counts, check_kind
from jaxrnn.errors import RunError, SettingError
from jaxrnn.types import Carry, Params

NOT_FINITE = "the model's scores are not finite: train it again, with a smaller learning rate"


@dataclass(frozen=True)
class Sampling:
    """How the next unit is drawn from the scores of all.

    Attributes:
      temperature: what the scores are divided by: below 1 the likely become likelier, above 1 less
        so; 0 is greedy, always the likeliest.
      top_k: draw among so many of the likeliest only; None, or V and more: among all.
      top_p: of those, draw among the fewest likeliest whose probabilities add up to this; None or
        1: among all. Nucleus sampling, Holtzman et al. (2020), "The Curious Case of Neural Text
        Degeneration", section 3.1.

    Raises:
      SettingError: if one is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature < math.inf:
            raise SettingError(
                f"temperature must be a finite number from 0, not {self.temperature!r}"
            )
        if self.top_k is not None:
            check_counts(self, "top_k")
        p = self.top_p
        if p is not None and not (isinstance(p, int | float) and 0 < p <= 1):
            raise SettingError(f"top p must be more than 0 and at most 1, not {p!r}")


AS_TRAINED = Sampling()
"""From the probabilities that the model was trained to give."""


def choose(key: jax.Array, logits: jax.Array, settings: Sampling = AS_TRAINED) -> jax.Array:
    """Draw one unit a row.

    Every row has a key of its own, folded from its number: what it draws does not depend on how
    many rows there are. Where scores tie, the lower number counts as likelier.

    Args:
      key: is used up.
      logits: [B, V] float.
      settings: how to draw; static under `jit`.

    Returns:
      [B] int32, each in 0..V-1.

    Raises:
      ValueError: if `logits` has other axes.

    >>> logits = jnp.log(jnp.array([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]]))
    >>> choose(jax.random.key(0), logits, Sampling(temperature=0)).tolist()
    [1, 0]
    """
    check_axes("logits", logits, "BV")
    if not settings.temperature:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    rows = jnp.arange(len(logits), dtype=jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    return jax.vmap(partial(_draw, settings=settings))(keys, logits)


def generate(
    model: nn.Module,
    params: Params,
    key: jax.Array,
    prompt: np.ndarray,
    length: int,
    samples: int = 1,
    settings: Sampling = AS_TRAINED,
    chunk: int = 32,
) -> Iterator[np.ndarray]:
    """Let a language model go on with a text, as often as there are samples.

    Step n draws with `fold_in(key, n)`, so the same key gives the same text, whatever `chunk`, and
    a greater `length` goes on where a smaller one stops. So does a sample, whatever the number of
    `samples`, but for rounding: products over another number of rows may differ in the last bit,
    which in about one draw of a million tips another unit.

    Args:
      model: its attributes are compared to tell whether it is compiled already.
      params: its parameters.
      key: is used up.
      prime: [P] int, each in 0..V-1: what the model reads first, in one call; P is at least 1.
      length: how many units to draw, for each sample.
      samples: how many texts to draw at once.
      settings: how a unit is drawn.
      chunk: how many steps one call of the compiled program takes, and so how many units come at
        once; it is compiled once, whatever the length.

    Returns:
      an iterator over the drawn units (without the prompt), [samples, n] int32 each, with n = chunk
      but in the last, which has the rest.

    Raises:
      SettingError: if a number is out of range; at once, not when the first chunk is drawn.
      TypeError: if `prime` is not int.
      RunError: while drawing, if the scores are not finite.
    """
    counts = SimpleNamespace(length=length, samples=samples, chunk=chunk)
    check_counts(counts, *vars(counts))
    state = read(model, params, prompt, samples)

    def chunks(state: tuple[Carry, jax.Array]) -> Iterator[np.ndarray]:
        for start in range(0, length, chunk):
            state, *drawn = _steps(model, params, key, state, np.int32(start), settings, chunk)
            ids, finite = (np.asarray(array)[: length - start] for array in drawn)
            if not finite.all():
                raise RunError(NOT_FINITE)
            yield ids.T

    return chunks(state)


def read(
    model: nn.Module, params: Params, prompt: np.ndarray, rows: int = 1
) -> tuple[Carry, jax.Array]:
    """Read a text once, and stand at its end in every row.

    Args:
      model: a language model.
      params: its parameters.
      prime: [P] int, each in 0..V-1; P is at least 1.
      rows: B.

    Returns:
      the carry, and the scores [B, V] float32 of what comes next.

    Raises:
      SettingError: if `prime` is empty or has numbers outside of 0..V-1.
      TypeError: if it is not int.
      ValueError: if it has other axes.
    """
    prompt = np.asarray(prompt)
    check_axes("prompt", prompt, "P")
    if not prompt.size:
        raise SettingError("the prompt must have at least one unit, from which to go on")
    check_kind("prompt", prompt, jnp.integer)
    # What int32 cannot hold stays outside of the vocabulary.
    units = np.clip(prompt.astype(np.int64), -1, 2**31 - 1).astype(np.int32)
    carry, logits = _read(model, params, units, rows)
    size = logits.shape[-1]
    outside = prompt[(units < 0) | (units >= size)]
    if outside.size:
        raise SettingError(f"the prompt must be of numbers from 0 to {size - 1}, not {outside[0]}")
    return carry, logits


def advance(
    model: nn.Module, params: Params, ids: jax.Array, carry: Carry = None
) -> tuple[Carry, jax.Array]:
    """Read ids [B, T] after what the carry remembers: the new carry, what comes next [B, V]."""
    logits, carry = model.apply({"params": params}, ids, carry)
    return carry, logits[:, -1].astype(jnp.float32)


@partial(jax.jit, static_argnums=(0, 3))
def _read(
    model: nn.Module, params: Params, prompt: jax.Array, rows: int
) -> tuple[Carry, jax.Array]:
    state = advance(model, params, prompt[None])
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape[1:])), state)


@partial(jax.jit, static_argnums=(0, 5, 6))
def _steps(
    model: nn.Module,
    params: Params,
    key: jax.Array,
    state: tuple[Carry, jax.Array],
    start: jax.Array,
    settings: Sampling,
    chunk: int,
) -> tuple[tuple[Carry, jax.Array], jax.Array, jax.Array]:
    """Steps start..start+chunk-1: the state after them, ids [chunk, B], and whether all is well."""

    def step(state: tuple[Carry, jax.Array], n: jax.Array):
        carry, logits = state
        ids = choose(jax.random.fold_in(key, n), logits, settings)
        finite = jnp.isfinite(logits.max(-1)).all()  # -inf is fair for units never to be drawn
        return advance(model, params, ids[:, None], carry), (ids, finite)

    state, (ids, finite) = jax.lax.scan(step, state, start + jnp.arange(chunk, dtype=jnp.int32))
    return state, ids, finite


def _draw(key: jax.Array, logits: jax.Array, settings: Sampling) -> jax.Array:
    """One unit from the scores [V], by the Gumbel-max trick.

    The noise belongs to the units, not to their ranks: a filter changes no draw that it leaves in.
    """
    (size,) = logits.shape
    # Within what float32 can divide by: the least is as good as greedy, the most as uniform.
    temperature = min(max(settings.temperature, 1e-30), 1e30)
    scores = (logits - logits.max()).astype(jnp.float32) / temperature
    noise = jax.random.gumbel(key, (size,), jnp.float32)
    kept = min(settings.top_k or size, size)
    nucleus = settings.top_p or 1.0
    if kept == size and nucleus == 1:
        return jnp.argmax(scores + noise).astype(jnp.int32)
    scores, ids = jax.lax.top_k(scores, kept)  # likeliest first; of a tie, the lower id first
    noisy = scores + noise[ids]
    if nucleus < 1:
        # The probability of all that are likelier; added up from zero, so that the first is in.
        reached = jnp.cumsum(jax.nn.softmax(scores))
        likelier = jnp.concatenate([jnp.zeros_like(reached[:1]), reached[:-1]])
        noisy = jnp.where(likelier < nucleus, noisy, -jnp.inf)
    return ids[jnp.argmax(noisy)].astype(jnp.int32)
