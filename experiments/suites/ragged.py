"""Layers on rows of several lengths, and on rows of several episodes, beside PyTorch.

PyTorch can pack: `PackedSequence` leaves the padding out, but the loop over it is another, slower
one. Or it can pad: the layer then computes the padding, too, which comes after a row's own steps
and has no effect on them. All work that depends on the lengths or resets is timed, because they
differ from batch to batch.
"""

# pyright: reportMissingImports=false
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import geometric_mean
from typing import Any

import jax
import numpy as np

from suites import peers
from suites.layer import GATES, arrays, ours, product_flops, times
from suites.timing import Row, product

SIZES = ((32, 64, 64), (64, 128, 128), (16, 512, 128))
"""B, T, and H = F."""

EPISODE = 32
"""Mean number of steps from one reset to the next."""

Sizes = tuple[tuple[int, int, int], ...]

Run = Callable[..., Any]
"""PyTorch: (module, inputs [B, T, F], and `lengths` or `resets`) -> outputs [B, T, H]."""


def ragged(repeats: int, sizes: Sizes = SIZES) -> Iterator[list[Row] | str]:
    """Time rows with lengths, each uniform in 1..T."""
    systems = {"packed": packed_rows, "padded": padded_rows}
    yield from against_torch("ragged", repeats, sizes, random_lengths, systems)


def resets(repeats: int, sizes: Sizes = SIZES) -> Iterator[list[Row] | str]:
    """Time rows with resets; in PyTorch each episode is a row of its own, or cells are looped."""
    systems = {"packed": packed_episodes, "padded": padded_episodes, "step by step": cell_loop}
    yield from against_torch("resets", repeats, sizes, random_resets, systems)


def random_lengths(key: jax.Array, batch: int, steps: int) -> tuple[dict[str, jax.Array], int]:
    """Return `lengths` [B], and the number of steps that are not padding."""
    lengths = jax.random.randint(key, (batch,), 1, steps + 1)
    return {"lengths": lengths}, int(lengths.sum())


def random_resets(key: jax.Array, batch: int, steps: int) -> tuple[dict[str, jax.Array], int]:
    """Return `resets` [B, T], and the number of steps."""
    return {"resets": jax.random.bernoulli(key, 1 / EPISODE, (batch, steps))}, batch * steps


def against_torch(
    suite: str,
    repeats: int,
    sizes: Sizes,
    draw: Callable[[jax.Array, int, int], tuple[dict[str, jax.Array], int]],
    theirs: Mapping[str, Run],
) -> Iterator[list[Row] | str]:
    """Time LSTMs and GRUs, forward, and forward and backward.

    Args:
      suite: the suite.
      repeats: turns of each system.
      sizes: B, T, and H = F.
      draw: (key, B, T) -> the layer's option, and the number of steps whose products are counted.
      theirs: ways to run PyTorch's layer.
    """
    measured, rate = product(suite)
    yield measured
    found: list[Row] = []
    for kind in GATES:
        for batch, steps, hidden in sizes:
            option, tokens = draw(jax.random.key(1), batch, steps)
            systems = dict(ready(kind, (batch, steps, hidden), option, theirs))
            case = f"{kind.upper()}, B={batch}, T={steps}, H={hidden}"
            flops = product_flops(kind, tokens, hidden)
            for part in times(suite, case, systems, repeats, flops, rate):
                found += part
                yield part
    for measure in dict.fromkeys(row.measure for row in found):
        yield f"{measure}: {means([row for row in found if row.measure == measure])}"


def ready(
    kind: str,
    size: tuple[int, int, int],
    option: dict[str, jax.Array],
    theirs: Mapping[str, Run],
) -> Iterator[tuple[str, peers.System]]:
    """Yield jaxrnn's layer, fused and scanned, and PyTorch's, with the same weights and inputs."""
    layer, *data = arrays(kind, *size)
    yield from ours(layer, *data, **option)
    if peers.PYTORCH not in peers.missing():
        import torch

        # Lengths stay on the CPU, as `pack_padded_sequence` wants them.
        device = "cpu" if "lengths" in option else peers.torch_device()
        given = {name: torch.from_numpy(np.array(each)).to(device) for name, each in option.items()}
        for name, run in theirs.items():
            yield f"{peers.PYTORCH}, {name}", peers.torch(layer, *data, run=partial(run, **given))


def means(measured: list[Row]) -> str:
    """Describe the geometric mean of each system's ratios, and those of LSTMs and GRUs."""
    first, *others = dict.fromkeys(row.system for row in measured)
    parts = []
    for system in others:
        ratios = {row.case: row.ratio for row in measured if row.system == system}
        kinds = {case.partition(",")[0]: [] for case in ratios}
        for case, ratio in ratios.items():
            kinds[case.partition(",")[0]].append(ratio)
        each = ", ".join(f"{kind} {geometric_mean(own):.2f}" for kind, own in kinds.items())
        parts.append(f"{system} {geometric_mean(ratios.values()):.2f} ({each})")
    return f"geometric means relative to {first}: {'; '.join(parts)}"


def packed_rows(module: Any, inputs: Any, lengths: Any) -> Any:
    """Pack rows [B, T, F], whose lengths [B] need not be sorted."""
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    outputs, _ = module(packed)
    return pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])[0]


def padded_rows(module: Any, inputs: Any, lengths: Any) -> Any:
    """Run rows [B, T, F] with their padding, and zero the outputs there."""
    import torch

    valid = torch.arange(inputs.shape[1]) < lengths[:, None]
    return module(inputs)[0] * valid[..., None].to(inputs.device)


def packed_episodes(module: Any, inputs: Any, resets: Any) -> Any:
    """Sort the steps of all episodes into a `PackedSequence`, as Sample Factory does."""
    import torch

    first, episode, step = episodes(resets)
    lengths = torch.diff(first, append=first.new_tensor([len(step)]))
    rank = torch.empty_like(first)  # 0 for the longest
    rank[lengths.argsort(descending=True)] = torch.arange(len(first), device=first.device)
    sizes = step.bincount()  # how many episodes have a step 0, a step 1, ...
    place = (sizes.cumsum(0) - sizes)[step] + rank[episode]
    order = torch.empty_like(place)
    order[place] = torch.arange(len(place), device=place.device)
    data = inputs.flatten(0, 1).index_select(0, order)
    outputs = module(torch.nn.utils.rnn.PackedSequence(data, sizes.cpu()))[0].data
    return outputs.index_select(0, place).unflatten(0, resets.shape)


def padded_episodes(module: Any, inputs: Any, resets: Any) -> Any:
    """Run each episode as a row, padded to the longest one."""
    first, episode, step = episodes(resets)
    shape = len(first), int(step.max()) + 1
    place = episode * shape[1] + step
    rows = inputs.new_zeros(shape[0] * shape[1], inputs.shape[-1])
    rows = rows.index_copy(0, place, inputs.flatten(0, 1)).unflatten(0, shape)
    outputs = module(rows)[0].flatten(0, 1)
    return outputs.index_select(0, place).unflatten(0, resets.shape)


def episodes(resets: Any) -> tuple[Any, Any, Any]:
    """Split rows at their resets [B, T].

    Returns:
      for E episodes, the place of each one's first step among all steps, [E]; and for each step the
      number of its episode and its place in it, [B * T] both.
    """
    import torch

    starts = resets.clone()
    starts[:, 0] = True
    starts = starts.flatten()
    first, episode = starts.nonzero()[:, 0], starts.cumsum(0) - 1
    step = torch.arange(len(starts), device=starts.device) - first[episode]
    return first, episode, step


def cell_loop(module: Any, inputs: Any, resets: Any) -> Any:
    """Run the cell on one step of all rows at a time, and zero the carry at resets."""
    import torch

    lstm = isinstance(module, torch.nn.LSTM)
    cell: Any = torch.lstm_cell if lstm else torch.gru_cell
    (weights,), keep = module.all_weights, (~resets).to(inputs.dtype)
    carry = [inputs.new_zeros(len(inputs), module.hidden_size)] * (2 if lstm else 1)
    outputs = []
    for x, kept in zip(inputs.unbind(1), keep.unbind(1), strict=True):
        carry = [kept[:, None] * state for state in carry]
        carry = cell(x, carry, *weights) if lstm else [cell(x, *carry, *weights)]
        outputs.append(carry[0])
    return torch.stack(outputs, 1)
