"""What lies beside an exported file: a README of its inputs and outputs, and the same as JSON."""

import json
from pathlib import Path
from string import Template
from typing import Any

from flax.traverse_util import flatten_dict

from jaxrnn.export.interface import Array, Interface
from jaxrnn.tasks.base import Task
from jaxrnn.types import Params

VOCABULARIES = ("vocabulary", "characters", "source_vocabulary", "target_vocabulary")
"""The attributes of tasks that list the tokens of ids."""

README = Template(Path(__file__).with_name("readme.txt").read_text("utf-8"))

TOKENIZERS = {
    "characters": "a character of a text in Unicode NFC",
    "jamo": "a character of a text in Unicode NFC, with Hangul syllables split into jamo (NFD)",
    "bytes": "a byte, written as the character with that number",
}

KINDS = {
    "onnx": "an ONNX model",
    "stablehlo": "a StableHLO program for JAX on a CPU or an NVIDIA GPU",
    "safetensors": "a safetensors file of the parameters",
    "torch": "a PyTorch state_dict in a safetensors file, and a module that loads it",
}

USAGE = {
    "onnx": Template("""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("$file")
feeds = {"$read": np.zeros($shape, np.$dtype), "lengths": np.array($lengths, np.int32)}
for array in session.get_inputs()[2:]:  # the initial carry
    feeds[array.name] = np.zeros((2, *array.shape[1:]), np.float32)
logits, *carry = session.run(None, feeds)
"""),
    "stablehlo": Template("""\
from pathlib import Path

import jax.numpy as jnp
from jax import export

network = export.deserialize(Path("$file").read_bytes())
lengths = jnp.array($lengths, jnp.int32)
shapes = $carry
carry = {name: jnp.zeros(shape, jnp.$carry_dtype) for name, shape in shapes.items()}
logits, carry = network.call(jnp.zeros($shape, jnp.$dtype), lengths, carry)
"""),
    "safetensors": Template("""\
from safetensors import safe_open

with safe_open("$file", "numpy") as file:
    for name in file.keys():
        print(name, file.get_tensor(name).shape)
"""),
    "torch": Template("""\
import torch
from $module import load

network = load()
lengths = torch.tensor($lengths)
logits, carry = network(torch.zeros($shape, dtype=torch.$dtype), lengths)
logits, carry = network(torch.zeros($shape, dtype=torch.$dtype), lengths, carry)  # goes on
"""),
}


def vocabularies(task: Task) -> dict[str, Any]:
    """Return the tokens of ids, and the tokenizer, as far as a task has them.

    >>> from jaxrnn import NextCharacter
    >>> vocabularies(NextCharacter("hihello"))
    {'vocabulary': ['h', 'i', 'e', 'l', 'o']}
    """
    named = {
        name.replace("characters", "vocabulary"): list(value)
        for name in VOCABULARIES
        if isinstance(value := getattr(task, name, None), tuple)
    }
    tokenizer = getattr(task, "tokenizer", None)
    return named | ({"tokenizer": tokenizer} if isinstance(tokenizer, str) else {})


def as_json(to: str, file: str, interface: Interface, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the description of an exported file as a JSON value."""
    inputs, outputs = _sides(interface, to)
    described = {
        "format": to,
        "file": file,
        "inputs": [array._asdict() for array in inputs],
        "outputs": [array._asdict() for array in outputs],
    }
    return described | facts


def readme(
    to: str, file: str, interface: Interface, facts: dict[str, Any], params: Params = None
) -> str:
    """Return the README of an exported file; it lists the parameters, if they are given."""
    inputs, outputs = _sides(interface, to)
    steps, loss = interface.inputs.axes[1], facts["validation_loss"]
    sizes = "both may have any size from 1."
    if steps != "T":
        sizes = f"B may have any size from 1, and T is always {steps}."
    elif isinstance(interface.longest, int):
        sizes = f"B may have any size from 1, and T from {interface.longest + 1}."
    has_tokens = any(name in facts for name in VOCABULARIES)
    of_carry = "The carry is zeros at first; pass on the last one to continue a sequence."
    return README.substitute(
        file=file,
        model=facts["model"]["type"].rpartition(":")[2],
        version=facts["jaxrnn"],
        kind=KINDS[to],
        seed=facts["seed"],
        updates=facts["updates"],
        loss="" if loss is None else f", validation loss {loss:.4g}",
        run=facts["run"],
        and_tokens=", and the tokens in the order of their ids" if has_tokens else "",
        tokens=_tokens(interface, facts),
        inputs=_table(inputs),
        sizes=sizes,
        of_carry=of_carry if interface.carry else "",
        outputs=_table(outputs),
        arrays=_arrays(params) if params else "",
        usage=_usage(to, file, interface),
    )


def _tokens(interface: Interface, facts: dict[str, Any]) -> str:
    """A line on what a token is, if there are tokens."""
    if told := TOKENIZERS.get(facts.get("tokenizer", "")):
        return f"- A token is {told}.\n"
    one_hot = ("B", "T", len(facts.get("vocabulary", ())))
    if interface.inputs.axes == one_hot:
        return "- The features of a step are a token's one-hot vector.\n"
    return ""


def _sides(interface: Interface, to: str) -> tuple[list[Array], list[Array]]:
    """The inputs and the outputs in a format: ONNX needs different names for the two carries."""

    def carry(prefix: str) -> list[Array]:
        added = prefix if to == "onnx" else ""
        return [array._replace(name=added + array.name) for array in interface.carry]

    inputs = [interface.inputs, interface.lengths, *carry("initial_")]
    return inputs, [interface.logits, *carry("last_")]


def _table(arrays: list[Array]) -> str:
    rows = (
        f"| `{name}` | [{', '.join(map(str, axes))}] | {dtype} | {meaning} |"
        for name, dtype, axes, meaning in arrays
    )
    return "\n".join(["| name | shape | type | meaning |", "|---|---|---|---|", *rows])


def _arrays(params: Params) -> str:
    lines = ["", "## Arrays", "", "| name | shape | type |", "|---|---|---|"]
    arrays: dict[str, Any] = flatten_dict(params, sep="/")
    for name, array in arrays.items():
        lines.append(f"| `{name}` | {list(array.shape)} | {array.dtype} |")
    return "\n".join(lines) + "\n"


def _usage(to: str, file: str, interface: Interface) -> str:
    """An example with two rows."""
    first = interface.inputs
    steps: Any = first.axes[1]
    longest: Any = interface.longest
    if steps == "T":
        steps = 3 if longest == "T" else longest + 2
    longest = steps if longest == "T" else longest
    shape = (2, steps, *first.axes[2:])
    return USAGE[to].substitute(
        file=file,
        module=file.removesuffix(".safetensors"),
        read=first.name,
        shape=shape,
        dtype=first.dtype,
        lengths=[longest, longest // 2],
        carry=json.dumps({array.name: [2, *array.axes[1:]] for array in interface.carry}),
        carry_dtype=interface.carry[0].dtype if interface.carry else "float32",
    )
