"""What a task is: batches, a readout size, a loss, metrics, and when it counts as solved."""

from pathlib import Path
from typing import Any

import jax

from jaxrnn import losses
from jaxrnn.types import Arrays, Batch, Metrics


class Task:
    """What a network is trained on. Subclass this with a frozen dataclass.

    A subclass must define `output_size` and `sample_batch`. The other methods have defaults that
    suit classification at every step: integer targets and cross-entropy.

    Attributes:
      output_size: V, the size of the readout.
      memoryless_loss: the loss of the best predictor without memory, shown beside the final loss;
        None if unknown, and then no seed is reported as having solved the task.
      stateful: whether row b of a batch continues row b of the previous batch. If so, the carry is
        passed from batch to batch (truncated backpropagation through time).
      files: the data files that the task reads. Their SHA-256 is kept with the run, and resuming
        refuses files that have changed.
      length_groups: upper bounds of groups of sequence lengths, such as (50, 100, 200). Validation
        then also measures each group by itself, see `training.validation.make_validate`, and every
        validation batch must have `lengths`. Longer rows are in no group.

    >>> from dataclasses import dataclass
    >>> import jax.numpy as jnp
    >>> @dataclass(frozen=True)
    ... class Repeat(Task):
    ...     output_size: int = 3
    ...
    ...     def sample_batch(self, key, step, arrays=None):
    ...         ids = jax.random.randint(key, (8, 5), 0, self.output_size)  # [B, T]
    ...         return Batch(jax.nn.one_hot(ids, self.output_size), ids, jnp.ones(ids.shape))
    >>> Repeat().sample_batch(jax.random.key(0), 0).inputs.shape
    (8, 5, 3)
    """

    output_size: int
    memoryless_loss: float | None = None
    stateful: bool = False
    files: tuple[Path, ...] = ()
    length_groups: tuple[int, ...] = ()

    def arrays(self) -> Arrays:
        """The data that batches are taken from, as a pytree of arrays; None if there are none.

        Called once per process. The arrays are arguments of the compiled program, not constants.
        """
        return None

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """The batch of one training step: a pure function, traced into the compiled program.

        Args:
          key: [] PRNG key of this step.
          step: [] int32, the step number, for reading data in order or for a curriculum.
          arrays: what `arrays()` returned, on the device.

        Returns:
          inputs [B, T, F] or token ids [B, T], targets [B, T] or [B, T, V], weights [B, T].
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define sample_batch(key, step, arrays)"
        )

    def num_validation_batches(self, arrays: Arrays) -> int:
        """How many batches the validation set has; 0 if there is none."""
        del arrays
        return 0

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """Batch n of the validation set: a pure function. The carry is handled as in training.

        Args:
          n: [] int32, from 0 to `num_validation_batches(arrays) - 1`.
          arrays: what `arrays()` returned, on the device.
        """
        raise NotImplementedError(f"{type(self).__name__} must define validation_batch(n, arrays)")

    def test_arrays(self) -> Arrays:
        """`arrays()` with the test part in place of the validation part; None without a test part.

        `jaxrnn evaluate --split test` validates on these arrays; training never sees them.
        """
        return None

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, V] -> [], the training loss: by default cross-entropy in nats."""
        return losses.sequence_cross_entropy(outputs, batch.targets, batch.weights)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, V] -> further metrics by name: by default the accuracy, from 0 to 1."""
        right = losses.argmax(outputs) == batch.targets
        return {"accuracy": losses.weighted_mean(right.astype(outputs.dtype), batch.weights)}

    def solved(self, metrics: dict[str, Any]) -> Any:
        """Which seeds have solved the task: by default, a loss below a tenth of `memoryless_loss`.

        `TrainConfig.stop_when_solved` compiles it for one seed, so use plain operators, and no
        NumPy functions.

        Args:
          metrics: by name, [S] values of one step, or [] traced values of one seed. NaN where
            nothing was measured: for seeds that diverged, and of validation at other steps.

        Returns:
          [S] or [] bool, False for NaN; or None if the task has no criterion.
        """
        if self.memoryless_loss is None:
            return None
        return metrics["loss"] < self.memoryless_loss / 10

    def format_loss(self, validation_loss: float) -> str:
        """Text to print after a validation loss, such as its unit; by default nothing."""
        del validation_loss
        return ""
