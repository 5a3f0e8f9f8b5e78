"""`char_lm.py` in PyTorch: the same model, text, batches, optimizer and kind of device.

    python experiments/char_lm_torch.py --text FILE --out metrics.jsonl

It takes the options of `char_lm.py`, starts from the initial weights of jaxrnn for the seed, and
writes one line per validation. Not part of jaxrnn; it needs `pip install torch`.
"""

# pyright: reportMissingImports=false
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from char_lm import Config, make_config
from suites.peers import torch_device
from torch import nn

from jaxrnn import cli
from jaxrnn.analysis import stuck_rows
from jaxrnn.errors import SettingError
from jaxrnn.interop import to_torch
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import tuning
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.optimizer import make_optimizer, make_schedule
from jaxrnn.training.step import init_state
from jaxrnn.types import Params


@dataclass(frozen=True)
class PeerConfig(Config):
    """Train the model of `char_lm.py` in PyTorch; LSTM only."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("metrics.jsonl")
    """Where to write a line of JSON for each validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unusual = self.embedding_size or self.projection_size or self.init_from
        if self.cell != "lstm" or unusual or self.optimizer != "adam":
            raise SettingError("only an LSTM on one-hot vectors, trained by Adam, is supported")


class Model(nn.Module):
    """LSTM layers with one bias per gate, as in jaxrnn, and a linear readout."""

    def __init__(self, config: Config, size: int):
        super().__init__()
        self.size = size
        drop = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(size, config.hidden_size, config.layers, batch_first=True, dropout=drop)
        self.drop = nn.Dropout(config.dropout)
        self.readout = nn.Linear(config.hidden_size, size)
        for layer in range(config.layers):
            getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False)

    def forward(self, ids: torch.Tensor, carry: Any) -> tuple[torch.Tensor, Any]:
        """Ids [B, T] -> logits [B, T, V], and the carry."""
        hidden, carry = self.lstm(nn.functional.one_hot(ids, self.size).float(), carry)
        return self.readout(self.drop(hidden)), carry


def first_params(experiment: ExperimentConfig) -> Params:
    """Return jaxrnn's initial parameters for the first seed."""
    key = child_key(root_key(np.uint32(experiment.seed)), "init")
    optimizer = make_optimizer(experiment.train)
    return init_state(
        key, experiment.task, experiment.model, optimizer, experiment.batch_shape
    ).params


def set_params(model: Model, experiment: ExperimentConfig, params: Params) -> None:
    """Set the model's weights to jaxrnn's parameters."""
    weights = to_torch(cast(Any, experiment.model).recurrent, params["recurrent"])
    model.lstm.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    readout = {name: np.array(array) for name, array in params["readout"].items()}
    with torch.no_grad():
        model.readout.weight.copy_(torch.from_numpy(readout["kernel"].T.copy()))
        model.readout.bias.copy_(torch.from_numpy(readout["bias"]))


def batches(task: Language, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield the batches of `Language.sample_batch`: inputs, targets [B, T], and resets [B]."""
    data_key = child_key(root_key(np.uint32(seed)), "data")
    key_of_step = jax.jit(lambda step: jax.random.fold_in(data_key, step))
    ids = torch.from_numpy(task.corpus.train.astype(np.int64)).to(torch_device())
    rows, length, step = task.batch_size, task.sequence_length, 0
    part = task.batches_per_epoch * length
    while True:
        starts = torch.arange(rows) * part + step * length % part
        windows = torch.stack([ids[start : start + length + 1] for start in starts.tolist()])
        resets = np.array(task.starts(key_of_step(step), step, task.batches_per_epoch))
        yield windows[:, :-1], windows[:, 1:], torch.from_numpy(resets).to(ids.device)
        step += 1


@torch.no_grad()
def validate(model: Model, task: Language) -> tuple[float, np.ndarray]:
    """Return the loss over the validation part, from the same batches as jaxrnn, and by row [B]."""
    model.eval()
    arrays, carry, total, count = task.arrays(), None, np.float64(0), np.float64(0)
    device = torch_device()
    for n in range(task.num_validation_batches(arrays)):
        batch = jax.device_get(task.validation_batch(jnp.int32(n), arrays))
        ids, targets = (torch.tensor(np.array(a, np.int64), device=device) for a in batch[:2])
        weights = torch.tensor(np.array(batch.weights), device=device)
        logits, carry = model(ids, carry)
        if not n:  # row 0 is the start of the text
            carry = tuple(
                state.index_fill(1, torch.tensor([0], device=device), 0.0) for state in carry
            )
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        total = total + (losses * weights).sum(dim=1).double().cpu().numpy()  # [B]
        count = count + weights.sum(dim=1).double().cpu().numpy()
    model.train()
    return float(np.sum(total) / np.sum(count)), total / np.maximum(count, 1)


def updates(
    config: PeerConfig, experiment: ExperimentConfig, model: Model
) -> Iterator[torch.Tensor]:
    """Train; yields the loss of each step, before its update."""
    task, schedule = cast(Language, experiment.task), make_schedule(experiment.train)
    params = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(params, lr=config.learning_rate)
    carry = None
    for step, (ids, targets, resets) in enumerate(batches(task, config.seed)):
        rate: Any = schedule(step) if callable(schedule) else schedule
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        if carry is not None:
            carry = tuple(state.detach() * ~resets[None, :, None] for state in carry)
        logits, carry = model(ids, carry)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        yield loss.detach()
        loss.backward()
        nn.utils.clip_grad_norm_(params, config.clip_norm)
        optimizer.step()


def train(
    config: PeerConfig, experiment: ExperimentConfig, model: Model
) -> Iterator[dict[str, Any]]:
    """Train; yields step, loss, validation losses and seconds of training at each validation."""
    seconds, losses = 0.0, updates(config, experiment, model)
    for step in range(experiment.train.steps + 1):
        start = time.perf_counter()
        loss = next(losses)
        seconds += time.perf_counter() - start
        if experiment.is_validated(step):
            now = {"step": step, "loss": loss.item(), "seconds": round(seconds, 3)}
            loss, rows = validate(model, cast(Language, experiment.task))
            yield now | {"validation_loss": loss, "row_losses": rows.round(4).tolist()}


def main(config: PeerConfig) -> None:
    """Train, write the lines, and print the lowest validation loss and the rows that are stuck."""
    experiment = make_config(config)
    tuning.require_memory(TrainLoop(experiment))  # PyTorch needs as much
    torch.manual_seed(config.seed)
    model = Model(config, experiment.task.output_size).to(torch_device())
    set_params(model, experiment, first_params(experiment))
    lines = []
    with config.out.open("w") as file:
        for line in train(config, experiment, model):
            lines.append(line)
            file.write(json.dumps(line) + "\n")
            file.flush()
    best = min(lines, key=lambda line: line["validation_loss"])
    tokens = config.batch_size * config.sequence_length * experiment.train.steps
    print(f"best {best['validation_loss']:.4f} nats after {best['step']} updates;", end=" ")
    print(f"{tokens / lines[-1]['seconds']:.0f} characters/s, without validation")
    limit = cast(Language, experiment.task).memoryless_loss
    if best["validation_loss"] < limit:
        for line in stuck_rows.warn({config.seed: np.array(best["row_losses"])}, 1, limit):
            print(line)


if __name__ == "__main__":
    cli.run_command(PeerConfig, main)
