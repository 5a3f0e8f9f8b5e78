"""What every task has: its batches, what a readout must do, how it is judged, when it is solved."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrnn import losses
from jaxrnn.types import Arrays, Batch, Metrics


class Task:
    """What a network is trained on. A task is a frozen dataclass that inherits from this.

    It must have `output_size`, `baseline` and `sample_batch`. The rest has defaults, for tasks
    that name a class at each step.

    Attributes:
      output_size: V, the size of the readout.
      baseline: the loss of the best predictor that remembers nothing.
      keeps_carry: whether row b of a batch goes on where row b of the batch before it stopped.
        The carry is then handed from batch to batch (truncated backpropagation through time).
      files: the data files it reads; a run keeps their SHA-256.
    """

    output_size: int
    memoryless_loss: float
    stateful: bool = False
    files: tuple[Path, ...] = ()

    def arrays(self) -> Arrays:
        """The arrays that batches are read from; they are handed to the compiled program."""
        return None

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """The batch of one training step: a pure function, traced into the compiled program.

        Args:
          key: [] PRNG key, folded from the step's number.
          step: [] int32, the number itself: for a walk through data, or a curriculum.
          data: what `data` gave, on the device.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define sample_batch(key, step, data)"
        )

    def validation_batches(self, arrays: Arrays) -> int:
        """How many batches all that is held out makes; 0 if nothing is."""
        del arrays
        return 0

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """The n-th batch of what is held out: a pure function. The carry is kept as in training.

        Args:
          n: [] int32, from 0 on.
          data: what `data` gave, on the device.
        """
        raise NotImplementedError(f"{type(self).__name__} must define validation_batch(n, data)")

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, V] -> [], what training makes small: cross-entropy in nats."""
        return losses.sequence_cross_entropy(outputs, batch.targets, batch.weights)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, V] -> what else is logged, by name: the accuracy, from 0 to 1."""
        right = losses.argmax(outputs) == batch.targets
        return {"accuracy": losses.weighted_mean(right.astype(outputs.dtype), batch.weights)}

    def solved(self, metrics: dict[str, Any]) -> np.ndarray | None:
        """Whether a network has learned it: its loss is below a tenth of the baseline.

        Args:
          metrics: by name, [S] each, of the trained networks; not-a-number where one broke off.

        Returns:
          [S] bool; None where there is no such thing as having learned it.
        """
        return np.asarray(metrics["loss"]) < self.memoryless_loss / 10

    def format_loss(self, validation_loss: float) -> str:
        """A validation loss in the field's own units, to be said after the number itself."""
        del validation_loss
        return ""
