"""How time, memory and compilation grow with the sizes, above all with the length."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.cells import GRUCell, LSTMCell, MinGRUCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from suites.timing import Row, interleave, memory_rows, rows

BATCH, STEPS, HIDDEN = 16, 64, 64  # while another size grows
GROWING = {
    "T": (64, 256, 1024, 4096),
    "B": (1, 4, 16, 64, 256),
    "H": (16, 64, 256, 1024),
    "S": (1, 4, 16, 64),
}
LAYERS = (1, 2, 4, 8)
NARROW = (4, 16, 64)  # H of the layers that Newton's method runs
JACOBIANS = 2**26  # bytes, the most that it is given here


def scaling(repeats: int, longest: int) -> Iterator[list[Row]]:
    """Measure an LSTM's gradient over each size, compilation over T and layers, chunks, Newton.

    Args:
      repeats: turns of each size.
      longest: the largest T.
    """
    lengths = [steps for steps in GROWING["T"] if steps <= longest] or [longest]
    for letter, sizes in (GROWING | {"T": lengths}).items():
        yield from growing(letter, tuple(sizes), repeats)
    yield from compiling(repeats, [lengths[0], lengths[-1]])
    yield from chunks(repeats, longest)
    for hidden in NARROW:
        yield from newton(min(repeats, 5), longest, hidden)


def growing(letter: str, sizes: tuple[int, ...], repeats: int) -> Iterator[list[Row]]:
    """Measure the time per token and, over T, the memory."""
    calls: dict[str, Callable[[], object]] = {}
    tokens, memory = {}, {}
    for size in sizes:
        axes = {"S": 1, "B": BATCH, "T": STEPS, "H": HIDDEN} | {letter: size}
        layer = Recurrent(LSTMCell(axes["H"]))
        inputs = jax.random.normal(jax.random.key(0), [axes[name] for name in "SBTH"])
        variables = jax.vmap(layer.init)(jax.random.split(jax.random.key(1), axes["S"]), inputs)
        if letter != "S":
            variables, inputs = jax.tree.map(lambda leaf: leaf[0], (variables, inputs))
        program = gradient(layer, variables, inputs, seeds=letter == "S")
        name = f"{letter}={size}"
        calls[name] = partial(program, variables, inputs)
        tokens[name], memory[name] = axes["S"] * axes["B"] * axes["T"], temporary(program)
    seconds = interleave(calls, repeats, burst=3)
    fixed = {"B": BATCH, "T": STEPS, "H": HIDDEN}
    case = "LSTM, " + ", ".join(f"{name}={fixed[name]}" for name in fixed if name != letter)
    per_token = {name: taken / tokens[name] for name, taken in seconds.items()}
    yield rows("scaling", case, "forward+backward, per token", per_token)
    if letter == "T":
        yield memory_rows("scaling", case, "forward+backward", memory)


def compiling(repeats: int, lengths: list[int]) -> Iterator[list[Row]]:
    """Time tracing and compiling, without caches."""
    for case, sizes in (
        ("LSTM, B=16, H=64", {f"T={steps}": (1, steps) for steps in lengths}),
        ("LSTM, B=16, T=64, H=64", {f"layers={n}": (n, STEPS) for n in LAYERS}),
    ):
        systems = {}
        for name, (layers, steps) in sizes.items():
            layer = Stack(tuple(Recurrent(LSTMCell(HIDDEN)) for _ in range(layers)))
            inputs = jnp.zeros((BATCH, steps, HIDDEN))
            variables = layer.init(jax.random.key(1), inputs[:, :1])
            systems[name] = partial(fresh, layer, variables, inputs)
        seconds = interleave(systems, min(repeats, 5))
        yield rows("scaling", case, "tracing and compiling", seconds)


def fresh(layer: Any, variables: Any, inputs: jax.Array) -> None:
    """Trace and compile without caches."""
    jax.clear_caches()
    gradient(layer, variables, inputs)


def all_outputs(layer: Any, variables: Any, inputs: jax.Array) -> jax.Array:
    """Return the sum of all outputs."""
    return jnp.sum(layer.apply(variables, inputs)[0])


def last_state(layer: Any, variables: Any, inputs: jax.Array) -> jax.Array:
    """Return the sum of the last hidden state; nothing else of the layer is used."""
    return jnp.sum(jax.tree.leaves(layer.apply(variables, inputs)[1])[-1])


def gradient(
    layer: Any,
    variables: Any,
    inputs: jax.Array,
    *,
    seeds: bool = False,
    of: Callable[..., jax.Array] = all_outputs,
    arguments: int | tuple[int, ...] = (0, 1),
) -> Any:
    """Compile the gradient of a scalar, with respect to parameters (0) and inputs (1)."""
    function = jax.grad(partial(of, layer), arguments)
    function = jax.vmap(function) if seeds else function
    return jax.jit(function).lower(variables, inputs).compile()


def temporary(program: Any) -> int:
    """Return the bytes that a program allocates besides its arguments and results."""
    return program.memory_analysis().temp_size_in_bytes


def chunks(repeats: int, longest: int) -> Iterator[list[Row]]:
    """Measure long sequences: an LSTM, also with remat chunks of √T, and a minGRU."""
    for steps in (longest // 16, longest // 4, longest):
        chunk = math.isqrt(steps)
        layers = {
            "LSTM": Recurrent(LSTMCell(128)),
            f"LSTM, chunks of {chunk}": Recurrent(LSTMCell(128), remat_chunk_size=chunk),
            "minGRU, scan": Recurrent(MinGRUCell(128), implementation="scan"),
            "minGRU, associative scan": Recurrent(
                MinGRUCell(128), implementation="associative_scan"
            ),
        }
        inputs = jax.random.normal(jax.random.key(0), (16, steps, 8))
        systems, memory = {}, {}
        for name, layer in layers.items():
            variables = layer.init(jax.random.key(1), inputs[:, :1])
            program = gradient(layer, variables, inputs, of=last_state, arguments=0)
            memory[name], systems[name] = temporary(program), partial(program, variables, inputs)
        case = f"B=16, T={steps}, F=8, H=128"
        yield rows("scaling", case, "gradient of the last state", interleave(systems, repeats))
        yield memory_rows("scaling", case, "gradient of the last state", memory)


def newton(repeats: int, longest: int, hidden: int) -> Iterator[list[Row]]:
    """Measure one long, narrow sequence with all steps in parallel, and step by step."""
    for cell, size in ((GRUCell(hidden), hidden), (LSTMCell(hidden), 2 * hidden)):
        for steps in (longest // 16, longest // 4, longest):
            inputs = jax.random.normal(jax.random.key(0), (1, steps, 8))
            fits = steps * size * size * inputs.dtype.itemsize <= JACOBIANS
            implementations: tuple[Any, ...] = ("fused", "scan", *(["newton"] if fits else []))
            systems = {}
            for name in implementations:
                layer = Recurrent(cell, implementation=name)
                variables = layer.init(jax.random.key(1), inputs[:, :1])
                systems[name] = partial(gradient(layer, variables, inputs), variables, inputs)
            kind = type(cell).__name__.removesuffix("Cell")
            case = f"{kind}, B=1, T={steps}, F=8, H={hidden}"
            yield rows("scaling", case, "forward+backward", interleave(systems, repeats))
