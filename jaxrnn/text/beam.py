"""Beam search: the most likely continuations of a prompt that a search of a given width finds."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.checks import check_counts
from jaxrnn.errors import RunError
from jaxrnn.text.sampling import NOT_FINITE, decode_step, prefill
from jaxrnn.types import Carry, Params


def beam_search(
    model: nn.Module, params: Params, prompt: np.ndarray, num_tokens: int, beams: int
) -> tuple[np.ndarray, np.ndarray]:
    """Search for the most likely continuations of a prompt, all of the same length.

    Every step extends each beam by all V tokens and keeps the K most likely results. One beam is
    greedy decoding; V**(L - 1) beams are an exhaustive search. There is no end-of-text token and so
    no length penalty. Ties are broken in favour of the better beam, then of the lower id.

    Source: Graves (2012), "Sequence Transduction with Recurrent Neural Networks", section 2.5,
    without its null outputs.

    Args:
      model: a language model, called as in `sampling`.
      params: its parameters.
      prompt: [P] int token ids, P at least 1.
      num_tokens: L, the length of a continuation.
      beams: K, how many to keep.

    Returns:
      the continuations [K, L] int32, most likely first, and their log-probabilities given the
      prompt [K] float32, in nats. Fewer than K if there are fewer than K possible continuations:
      V**L, or less if the model rules some out.

    Raises:
      SettingError: if a number is out of range or `prompt` is empty.
      TypeError: if `prompt` is not of integers.
      RunError: if the logits are not finite.
    """
    counts = SimpleNamespace(num_tokens=num_tokens, beams=beams)
    check_counts(counts, *vars(counts))
    state = prefill(model, params, prompt, beams)
    ids, log_probability = map(np.asarray, _search(model, params, state, num_tokens))
    if np.isnan(log_probability).any():
        raise RunError(NOT_FINITE)
    live = log_probability > -np.inf
    return ids[live], log_probability[live]


@partial(jax.jit, static_argnums=(0, 3))
def _search(
    model: nn.Module, params: Params, state: tuple[Carry, jax.Array], num_tokens: int
) -> tuple[jax.Array, jax.Array]:
    """All beams, impossible ones too: ids [K, L], and log-probabilities [K], largest first."""
    beams, size = state[1].shape

    def step(search: tuple[jax.Array, tuple[Carry, jax.Array]], _: None):
        total, state = search
        totals = total[:, None] + jax.nn.log_softmax(state[1])  # [K, V]
        total, best = jax.lax.top_k(totals.ravel(), beams)
        parents, tokens = best // size, best % size
        carry = jax.tree.map(lambda leaf: leaf[parents], state[0])
        return (total, decode_step(model, params, tokens[:, None], carry)), (parents, tokens)

    # All beams start equal: rule out all but one, or each continuation would be found K times.
    initial = jnp.full(beams, -jnp.inf).at[0].set(0.0)
    (total, _), (parents, tokens) = jax.lax.scan(step, (initial, state), length=num_tokens)

    def back(beam: jax.Array, links: tuple[jax.Array, jax.Array]):
        parents, tokens = links
        return parents[beam], tokens[beam]

    _, ids = jax.lax.scan(back, jnp.arange(beams), (parents, tokens), reverse=True)  # [L, K]
    return ids.T, total
