"""Several experiments in one program: they differ only in numbers that can be arrays.

A sweep over learning rates trains the networks of all its settings side by side: the learning rate
of each network is an argument of the compiled program, as its seed is.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.errors import SettingError
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.mesh import MeshShape

Networks = Any
"""What the compiled loop is given for each network: its seed; in a joint program its numbers, too.

An array [S], or a pytree of such arrays.
"""


@dataclass(frozen=True)
class JointConfig(ExperimentConfig):
    """Several experiments that are trained in one program.

    Its networks are those of all experiments, one experiment after the other: `seeds` counts them
    all, while `seed` is the first seed of each experiment.

    Attributes:
      values: by path, such as "train.learning_rate" or "model.recurrent.dropout", the number of
        each experiment, [C].
      each_options: `options` of each experiment, [C].

    Raises:
      SettingError: if the numbers of experiments and networks do not fit each other.
    """

    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    each_options: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check every setting."""
        super().__post_init__()
        sizes = {len(numbers) for numbers in self.values.values()}
        if len(sizes) != 1 or self.seeds % min(sizes):
            raise SettingError(
                f"{self.seeds} networks cannot be those of experiments with {sizes} values"
            )

    @property
    def experiments(self) -> int:
        """C, how many there are."""
        return len(next(iter(self.values.values())))

    @property
    def seed_numbers(self) -> np.ndarray:
        """[C * S] uint32: the seeds of the first experiment, again those of the second, ..."""
        each = self.seeds // self.experiments
        return np.tile(np.arange(self.seed, self.seed + each, dtype=np.uint32), self.experiments)

    @property
    def networks(self) -> Networks:
        """The seed and the numbers of each network, arrays [C * S]."""
        each, dtype = self.seeds // self.experiments, jnp.result_type(float)
        return self.seed_numbers, {
            path: np.repeat(np.asarray(numbers, dtype), each)
            for path, numbers in self.values.items()
        }

    def split(self, network: Networks) -> tuple[jax.Array, ExperimentConfig]:
        """Return the seed of one network, and its experiment, whose numbers may be traced."""
        seed, config = network[0], self
        for path, number in network[1].items():
            # Optax mixes numbers with float32, also with JAX_ENABLE_X64.
            dtype = jnp.float32 if path.startswith("train.") else None
            config = put_unchecked(config, path, jnp.asarray(number, dtype))
        return seed, config

    def experiment(self, c: int) -> ExperimentConfig:
        """Return experiment c alone, on one device.

        Raises:
          SettingError: if one of its numbers is out of range.
        """
        seeds = self.seeds // self.experiments
        size = seeds if self.vmap_size is None else min(self.vmap_size, seeds)
        options = self.each_options[c] if self.each_options else None
        settings = self.task, self.model, self.train, self.seed, seeds, size, self.init_from
        one = ExperimentConfig(*settings, MeshShape(), options)
        for path, numbers in self.values.items():
            one = put(one, path, numbers[c])
        return one

    def rows(self, c: int) -> slice:
        """Where the networks of experiment c are among all."""
        each = self.seeds // self.experiments
        return slice(c * each, (c + 1) * each)


def networks_of(config: ExperimentConfig) -> Networks:
    """Return what the compiled loop is given for each network of an experiment."""
    return config.networks if isinstance(config, JointConfig) else config.seed_numbers


def put(node: Any, path: str, value: Any) -> Any:
    """Return a copy of an experiment, or a part of one, with another value at a path.

    Args:
      node: dataclasses, Flax modules, tuples and dicts of settings.
      path: fields, indices and keys, such as "model.recurrent.layers.0.cell.features".
      value: the new value.

    Raises:
      SettingError: if there is no such setting, or the value is out of range.

    >>> from jaxrnn import GRUCell, Recurrent, Stack
    >>> stack = Stack((Recurrent(GRUCell(4)), Recurrent(GRUCell(4))))
    >>> put(stack, "layers.1.cell.features", 7).layers[1].cell.features
    7
    """
    return _put(node, path, value, checked=True)


def put_unchecked(node: Any, path: str, value: Any) -> Any:
    """Do what `put` does, with a value that may be traced and is in range."""
    return _put(node, path, value, checked=False)


def _put(node: Any, path: str, value: Any, checked: bool) -> Any:
    head, _, rest = path.partition(".")
    if isinstance(node, tuple | list):
        if not head.isdecimal() or int(head) >= len(node):
            raise SettingError(f"there is no setting {path}")
        new = [*node]
        new[int(head)] = _put(node[int(head)], rest, value, checked) if rest else value
        return tuple(new)
    if isinstance(node, Mapping):
        inner = _put(node.get(head), rest, value, checked) if rest else value
        return {**node, head: inner}
    if not dataclasses.is_dataclass(node) or head not in {
        each.name for each in dataclasses.fields(node)
    }:
        raise SettingError(f"there is no setting {path}")
    new = _put(getattr(node, head), rest, value, checked) if rest else value
    if isinstance(node, nn.Module):  # its checks let arrays pass
        return node.clone(**{head: new})
    if checked:
        return dataclasses.replace(node, **{head: new})  # pyright: ignore[reportArgumentType]
    other = copy.copy(node)
    object.__setattr__(other, head, new)
    return other


def can_vary(path: str, owner: Any, value: Any) -> bool:
    """Whether a setting may differ between networks that are trained in one program.

    Args:
      path: of the setting, such as "train.learning_rate".
      owner: the dataclass, module or dict that has it.
      value: its value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if path in ("train.learning_rate", "train.clip_norm"):
        return True
    if path.startswith("train.optimizer_kwargs."):
        return isinstance(value, float)
    ours = type(owner).__module__.startswith("jaxrnn.")
    names = {"model": ("dropout",), "task": ("reset_probability",)}
    part, _, name = path.partition(".")
    return ours and name.rpartition(".")[2] in names.get(part, ())


def join_experiments(configs: list[ExperimentConfig], layout: int | None) -> JointConfig | None:
    """Return one program for experiments that differ in numbers only; None if there is none.

    Args:
      configs: the experiments, at least one, each with a number of its own somewhere.
      layout: the `vmap_size` of the program; None to measure it.
    """
    values = {
        path: tuple(found)
        for path, *found in zip(
            _numbers(configs[0]), *(_numbers(config).values() for config in configs), strict=True
        )
        if len(set(found)) > 1
    }
    if not values or len(configs) < 2:
        return None
    first = configs[0]
    return JointConfig(
        first.task,
        first.model,
        first.train,
        first.seed,
        first.seeds * len(configs),
        layout,
        first.init_from,
        first.mesh,
        values=values,
        each_options=tuple(config.options for config in configs),
    )


def _numbers(config: ExperimentConfig) -> dict[str, float]:
    """Return the numbers of an experiment that may vary, by path."""
    found: dict[str, float] = {}

    def visit(node: Any, path: str) -> None:
        for name, part in children(node):
            where = f"{path}.{name}" if path else name
            if can_vary(where, node, part):
                found[where] = part
            else:
                visit(part, where)

    visit(config, "")
    return found


def children(node: Any) -> list[tuple[str, Any]]:
    """Return the parts of a node of settings, by name; none of a plain value."""
    if isinstance(node, tuple | list):
        return [(str(n), part) for n, part in enumerate(node)]
    if isinstance(node, Mapping):
        return [(str(name), part) for name, part in node.items()]
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        return []
    names = (each.name for each in dataclasses.fields(node) if each.init and each.name != "parent")
    return [(name, getattr(node, name)) for name in names]


def fixed_parts(config: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment with 0 for each number that may vary: equal for a joint program."""
    config = put_unchecked(config, "options", None)
    for path in _numbers(config):
        config = put_unchecked(config, path, 0.0)
    return config
