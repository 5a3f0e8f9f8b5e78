"""Greedy and beam decoding with an encoder-decoder, each as one compiled program.

The model has two methods: `encode(source [B, S], lengths [B])`, which returns what stays the same
at all steps and the decoder's state, and `decode_step(ids [B], memory, state)`, which returns the
logits [B, V] of the next token and the new state. Every array of both has B as its first axis.

Token 0 is the start of a target and its end. After the end all tokens are 0.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.checks import check_axes, check_counts, check_lengths
from jaxrnn.errors import RunError
from jaxrnn.text.sampling import NOT_FINITE
from jaxrnn.types import Params

END_ID = 0
"""The token that ends a target, and stands before its first token."""


class Decoded(NamedTuple):
    """Targets that a model wrote."""

    ids: np.ndarray  # [B, L] or [B, K, L] int32, 0 from the end on
    log_probability: np.ndarray  # [B] or [B, K] float32, in nats, with the end if it was reached


class Sources(NamedTuple):
    """What to decode."""

    ids: Any  # [B, S] int
    lengths: Any  # [B] int: the steps of each row before the padding


def greedy_decode(model: nn.Module, params: Params, sources: Sources, max_length: int) -> Decoded:
    """Write the most likely token at each step, until the end or `max_length`.

    The result is the target that a model is trained on exactly if, with teacher forcing, the most
    likely token is right at every step: up to the first difference, both read the same tokens. So
    the share of exact matches needs no decoding.

    Args:
      model: an `EncoderDecoder`. Calls with an equal model reuse the compiled program.
      params: its parameters.
      sources: the ids [B, S], S that of the model's inputs, and lengths.
      max_length: L, with the end.

    Returns:
      ids [B, L], and their log-probabilities [B].

    Raises:
      SettingError: if `max_length` is not a whole number from 1.
      RunError: if the logits are not finite.
    """
    sources = _check(sources, max_length=max_length)
    return _finite(*_greedy(model, params, sources, max_length))


def beam_decode(
    model: nn.Module, params: Params, sources: Sources, max_length: int, beams: int
) -> Decoded:
    """Search for the most likely targets of each source.

    Every step extends each beam by all V tokens and keeps the K most likely results. A target that
    has ended stays as it is. Scores are log-probabilities, without a penalty for length. One beam
    is greedy decoding; V**(L - 1) beams are an exhaustive search. Ties are broken in favour of the
    better beam, then of the lower id.

    Source: Sutskever, Vinyals and Le (2014), section 3.2; but a beam whose target has ended keeps
    its place in the beam.

    Args:
      model: as for `greedy_decode`.
      params: as for `greedy_decode`.
      sources: as for `greedy_decode`.
      max_length: L, with the end.
      beams: K, how many to keep.

    Returns:
      ids [B, K, L], the most likely first, and their log-probabilities [B, K]: -inf if there are
      fewer than K targets.

    Raises:
      SettingError: if a number is not a whole number from 1.
      RunError: if the logits are not finite.
    """
    sources = _check(sources, max_length=max_length, beams=beams)
    return _finite(*_beams(model, params, sources, max_length, beams))


@partial(jax.jit, static_argnums=(0, 3))
def _greedy(model: nn.Module, params: Params, sources: Sources, length: int):
    """Ids [B, L] and log-probabilities [B]."""
    memory, state = _encode(model, params, sources)
    rows = sources.ids.shape[0]

    def step(search: Any, _: None):
        last, ended, total, state = search
        logits, state = _step(model, params, last, memory, state)
        ids = jnp.where(ended, END_ID, jnp.argmax(logits, axis=-1).astype(jnp.int32))
        best = jnp.max(jax.nn.log_softmax(logits), axis=-1)
        total = total + jnp.where(ended, 0.0, best)
        return (ids, ended | (ids == END_ID), total, state), ids

    search = jnp.full(rows, END_ID), jnp.zeros(rows, bool), jnp.zeros(rows), state
    (_, _, total, _), ids = jax.lax.scan(step, search, length=length)  # [L, B]
    return ids.T, total


@partial(jax.jit, static_argnums=(0, 3, 4))
def _beams(model: nn.Module, params: Params, sources: Sources, length: int, beams: int):
    """Ids [B, K, L] and log-probabilities [B, K], largest first."""
    rows = sources.ids.shape[0]
    # Row b's beams are rows b K to b K + K - 1 of the model's arrays.
    memory, state = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, beams, axis=0), _encode(model, params, sources)
    )

    def step(search: Any, _: None):
        last, ended, total, state = search  # [B, K] each, but the state
        logits, state = _step(model, params, last.ravel(), memory, state)
        size = logits.shape[-1]
        scores = jax.nn.log_softmax(logits).reshape(rows, beams, size)
        only_end = jnp.where(jnp.arange(size) == END_ID, 0.0, -jnp.inf)
        scores = jnp.where(ended[..., None], only_end[None, None], scores)
        totals = (total[..., None] + scores).reshape(rows, beams * size)
        total, best = jax.lax.top_k(totals, beams)  # [B, K]
        parents, ids = best // size, best % size
        ended = jnp.take_along_axis(ended, parents, axis=1) | (ids == END_ID)
        places = (parents + beams * jnp.arange(rows)[:, None]).ravel()
        state = jax.tree.map(lambda leaf: leaf[places], state)
        return (ids, ended, total, state), (parents, ids)

    # All beams start equal: rule out all but one, or each target would be found K times.
    first = jnp.full((rows, beams), -jnp.inf).at[:, 0].set(0.0)
    search = jnp.full((rows, beams), END_ID), jnp.zeros((rows, beams), bool), first, state
    (_, _, total, _), links = jax.lax.scan(step, search, length=length)

    def back(beam: jax.Array, link: tuple[jax.Array, jax.Array]):
        parents, ids = (jnp.take_along_axis(part, beam, axis=1) for part in link)
        return parents, ids

    start = jnp.broadcast_to(jnp.arange(beams)[None], (rows, beams))
    _, ids = jax.lax.scan(back, start, links, reverse=True)  # [L, B, K]
    return jnp.moveaxis(ids, 0, -1), total


def _encode(model: nn.Module, params: Params, sources: Sources) -> Any:
    return model.apply({"params": params}, sources.ids, sources.lengths, method="encode")


def _step(model: nn.Module, params: Params, ids: jax.Array, memory: Any, state: Any) -> Any:
    """Logits [B, V] float32 and the new state."""
    logits, state = model.apply({"params": params}, ids, memory, state, method="decode_step")
    return logits.astype(jnp.float32), state


def _check(sources: Sources, **counts: int) -> Sources:
    check_counts(SimpleNamespace(**counts), *counts)
    ids = jnp.asarray(sources.ids)
    sizes = check_axes("sources", ids, "BS")
    return Sources(ids, check_lengths(sources.lengths, sizes["B"], sizes["S"]))


def _finite(ids: jax.Array, log_probability: jax.Array) -> Decoded:
    decoded = Decoded(np.asarray(ids), np.asarray(log_probability))
    if np.isnan(decoded.log_probability).any():
        raise RunError(NOT_FINITE)
    return decoded
