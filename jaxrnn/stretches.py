"""A study's program, called again and again: where the clock meets the compiled steps."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn.disk.metrics import History, blank_broken, join, last_loss
from jaxrnn.program import compile_program, make_program
from jaxrnn.show.progress import Progress
from jaxrnn.study import Study
from jaxrnn.train import TrainState

SECONDS_A_CALL = 2.0  # how long Ctrl-C waits, and a line of progress stands still


class Stretch(NamedTuple):
    """What one call of the compiled program gave."""

    step: int  # where a run that broke off here goes on
    state: TrainState
    history: History  # of the logged steps
    broken: dict[int, int]  # so far: by seed, the step whose loss or gradient was not finite
    stopped: dict[int, int]  # so far: by seed, the step at which it stopped early
    ends: bool  # all steps are done, or no seed is left to go on with
    seconds: float


def replay(study: Study, until: int | None = None) -> tuple[TrainState, History]:
    """Train in memory alone, from nothing, to the end or to before the step `until`.

    Returns:
      the state, each leaf [S, ...] a NumPy array, and what was measured.
    """
    program = make_program(study)
    compiled = compile_program(study, program)
    state, histories = program.blank, []
    with Progress(study.train.steps) as progress:
        for stretch in stretches(study, compiled, state, 0, until):
            state = stretch.state
            histories.append(stretch.history)
            progress.update(min(stretch.step, study.train.steps), last_loss(histories))
    return jax.device_get(state), join(histories)


def stretches(
    study: Study, compiled: Any, state: TrainState, step: int, until: int | None = None
) -> Iterator[Stretch]:
    """Call a study's compiled program, some seconds a call, until it is done.

    Args:
      study: what is trained.
      compiled: its program.
      state: from where on; it is donated.
      step: the first step to take.
      until: the step to stop before, if not after the last.

    Yields:
      what each call gave; the first is of one step, to learn how long a step takes.
    """
    last, seeds, pace = study.train.steps, study.seed_numbers, 1
    until = last + 1 if until is None else until
    while step < until:
        began, stop = time.perf_counter(), min(step + pace, until)
        state, values = compiled(state, seeds, step, stop)
        values = jax.device_get(values)
        reached = on_host(state)
        seconds = time.perf_counter() - began
        pace = int(np.clip(SECONDS_A_CALL * (stop - step) / seconds, 1, values["loss"].shape[1]))
        broken, stopped = fates(study, reached, stop, values["loss"][:, stop - step - 1])
        over = len(broken) + len(stopped) == study.seeds
        updates = np.asarray(reached.step)  # [S]
        shown = updates.max() + 1 if over else stop  # of later steps there is nothing to say
        logged = study.logged(np.arange(step, shown))
        order = ["loss", *sorted(values.keys() - {"loss", "grad_norm"}), "grad_norm"]
        values = {name: values[name][:, logged - step] for name in order}
        history = History(seeds, logged, blank_broken(values, logged, updates))
        # A step that stopped the last network early is done; one that broke it would be tried anew.
        step = max([*broken.values(), *(n + 1 for n in stopped.values())]) if over else stop
        yield Stretch(step, state, history, broken, stopped, over or stop > last, seconds)
        if over:
            return


def on_host(state: TrainState) -> TrainState:
    """What tells how far each network is, as NumPy arrays; nothing is compiled for it."""
    best = None if state.best is None else state.best._replace(params=None)
    return jax.device_get(TrainState(state.step, None, None, None, best))


def fates(
    study: Study, state: TrainState, step: int, loss: np.ndarray
) -> tuple[dict[int, int], dict[int, int]]:
    """Which networks broke off before a step, and which stopped early: by seed, the step of it.

    Args:
      study: what is trained.
      state: as `on_host` gives it, when all steps before `step` are done.
      step: the next, at most N+1.
      loss: [S], as it was last measured before that; of step N nothing else tells.
    """
    seeds, updates = study.seed_numbers, np.asarray(state.step)  # [S] each
    short = updates < min(step, study.train.steps)
    early = short & study.stopped(state)
    broken = (short | ~np.isfinite(loss)) & ~early
    return _by_seed(seeds, updates, broken), _by_seed(seeds, updates, early)


def _by_seed(seeds: np.ndarray, updates: np.ndarray, which: np.ndarray) -> dict[int, int]:
    """The updates of some seeds, by seed: all [S], `which` of bool."""
    return dict(zip(seeds[which].tolist(), updates[which].tolist(), strict=True))
