"""Beam search: the likeliest ways to go on with a text, as far as a search of some width finds."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.checks import check_counts
from jaxrnn.errors import RunError
from jaxrnn.text.sampling import NOT_FINITE, advance, read
from jaxrnn.types import Carry, Params


def beam_search(
    model: nn.Module, params: Params, prompt: np.ndarray, length: int, beams: int
) -> tuple[np.ndarray, np.ndarray]:
    """Search for the likeliest continuations of a text, all of the same length.

    Every step goes on with each beam in all V ways, and keeps the likeliest `beams` of these. One
    beam is greedy; V**(length - 1) beams leave nothing out. There is no symbol at which a text ends
    and so no penalty for its length. Of a tie, the better beam's and then the lower number's wins.

    Source: Graves (2012), "Sequence Transduction with Recurrent Neural Networks", section 2.5,
    without its null outputs.

    Args:
      model: a language model, as `sampling` says.
      params: its parameters.
      prime: [P] int, each in 0..V-1: what the model reads first; P is at least 1.
      length: L, how many units a continuation has.
      beams: K, how many to keep.

    Returns:
      the continuations [K, L] int32, the likeliest first, and the logarithm of each one's
      probability given the prompt, [K] float32, in nats. Fewer than K if there are no more: there
      are V**L, and less if the model rules some out.

    Raises:
      SettingError: if a number is out of range, or `prime` has none.
      TypeError: if `prime` is not int.
      RunError: if the scores are not finite.
    """
    counts = SimpleNamespace(length=length, beams=beams)
    check_counts(counts, *vars(counts))
    state = read(model, params, prompt, beams)
    ids, log_probability = map(np.asarray, _search(model, params, state, length))
    if np.isnan(log_probability).any():
        raise RunError(NOT_FINITE)
    live = log_probability > -np.inf
    return ids[live], log_probability[live]


@partial(jax.jit, static_argnums=(0, 3))
def _search(
    model: nn.Module, params: Params, state: tuple[Carry, jax.Array], length: int
) -> tuple[jax.Array, jax.Array]:
    """All beams, dead ones too: ids [K, L], and log-probabilities [K] that fall."""
    beams, size = state[1].shape

    def step(searched: tuple[jax.Array, tuple[Carry, jax.Array]], _: None):
        total, state = searched
        totals = total[:, None] + jax.nn.log_softmax(state[1])  # [K, V]
        total, best = jax.lax.top_k(totals.ravel(), beams)
        parents, units = best // size, best % size
        carry = jax.tree.map(lambda leaf: leaf[parents], state[0])
        return (total, advance(model, params, units[:, None], carry)), (parents, units)

    # All beams stand at the end of the prompt: all but one are dead, or each would count K times.
    alone = jnp.full(beams, -jnp.inf).at[0].set(0.0)
    (total, _), (parents, units) = jax.lax.scan(step, (alone, state), length=length)

    def back(beam: jax.Array, links: tuple[jax.Array, jax.Array]):
        parents, units = links
        return parents[beam], units[beam]

    _, ids = jax.lax.scan(back, jnp.arange(beams), (parents, units), reverse=True)  # [L, K]
    return ids.T, total
