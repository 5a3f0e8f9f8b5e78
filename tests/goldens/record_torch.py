# pyright: reportMissingImports=false
"""Recurrent layers as PyTorch itself computes them, values and gradients, in float64.

    pip install torch && python tests/goldens/record_torch.py

writes torch_recurrent.npz beside this script. Its keys are "case/name". The cases are a kind of
layer in a form, and two losses:

    {lstm, gru, rnn, rnn_relu}.single    one layer, one direction, no padding, zero initial state
    {lstm, gru, rnn, rnn_relu}.no_bias   the same with bias=False
    {lstm, gru, rnn, rnn_relu}.stacked   two layers, bidirectional, packed by lengths, and with an
                                         initial state
    lstm_proj.{single, stacked}          the same of an LSTM with proj_size=2
    masked_loss                          cross-entropy of logits, some steps ignored
    readout                              LSTM, linear readout and that loss together

The names are PyTorch's: weight_ih_l0, bias_hh_l1_reverse and so on; h_0 and h_n (and c_0, c_n),
[layers * directions, B, H]; inputs [B, T, F]; lengths [B]; outputs [B, T, directions * H], zero
past the lengths. "cotangent/outputs" is a random R of the outputs' shape, "cotangent/h_n" one of
h_n's; "grad/NAME" is the gradient of the sum of all R * result with respect to NAME. A loss has
targets [B, T], IGNORED where a step does not count, "loss", and its own gradients.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

B, T, F, H, V, P = 3, 6, 4, 3, 5, 2
LENGTHS = torch.tensor([T, 2, 4])  # not sorted
IGNORED = -100
KINDS = {
    "lstm": (torch.nn.LSTM, {}),
    "gru": (torch.nn.GRU, {}),
    "rnn": (torch.nn.RNN, {}),
    "rnn_relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm_proj": (torch.nn.LSTM, {"proj_size": P}),
}
FORMS = {
    "single": {},
    "no_bias": {"bias": False},
    "stacked": {"num_layers": 2, "bidirectional": True},
}

Record = dict[str, torch.Tensor]


def normal(*shape: int) -> torch.Tensor:
    """Random numbers that a gradient can be taken of."""
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def randomise(module: torch.nn.Module) -> Record:
    """Give a module weights and biases of a good size, and hand them back by name."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * normal(*parameter.shape))
    return dict(module.named_parameters())


def ignored_past_lengths() -> torch.Tensor:
    """Random classes [B, T]; past the lengths, and at one step before, they do not count."""
    targets = torch.randint(0, V, (B, T))
    targets[torch.arange(T) >= LENGTHS[:, None]] = IGNORED
    targets[0, 1] = IGNORED
    return targets


def with_gradients(scalar: torch.Tensor, wanted: Record) -> Record:
    """What was wanted, and the scalar's gradients with respect to it."""
    gradients = torch.autograd.grad(scalar, list(wanted.values()))
    return wanted | {f"grad/{name}": g for name, g in zip(wanted, gradients, strict=True)}


def layer_case(kind: str, form: str) -> Record:
    """One recurrent layer, or two layers in both directions."""
    make, options = KINDS[kind]
    options = options | FORMS[form]
    layer = make(F, H, batch_first=True, dtype=torch.float64, **options)
    wanted = randomise(layer) | {"inputs": normal(B, T, F)}
    stacked = form == "stacked"
    lstm = make is torch.nn.LSTM
    names = ("h", "c") if lstm else ("h",)
    sizes = {"h": options.get("proj_size", H), "c": H}
    first, sequence = None, wanted["inputs"]
    if stacked:
        states = [normal(4, B, sizes[name]) for name in names]
        wanted |= {f"{name}_0": state for name, state in zip(names, states, strict=True)}
        first = tuple(states) if lstm else states[0]
        sequence = pack_padded_sequence(sequence, LENGTHS, batch_first=True, enforce_sorted=False)
    outputs, last = layer(sequence, first)
    if stacked:
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=T)
    last = last if lstm else (last,)
    results = {"outputs": outputs} | {f"{name}_n": s for name, s in zip(names, last, strict=True)}
    cotangents = {name: normal(*result.shape) for name, result in results.items()}
    scalar = torch.stack([(results[name] * cotangents[name]).sum() for name in results]).sum()
    record = with_gradients(scalar, wanted) | results
    record |= {f"cotangent/{name}": cotangent for name, cotangent in cotangents.items()}
    return record | ({"lengths": LENGTHS} if stacked else {})


def loss_case() -> Record:
    """The mean cross-entropy of the steps that count."""
    wanted, targets = {"logits": normal(B, T, V)}, ignored_past_lengths()
    loss = functional.cross_entropy(
        wanted["logits"].flatten(0, 1), targets.flatten(), ignore_index=IGNORED
    )
    return with_gradients(loss, wanted) | {"targets": targets, "loss": loss}


def readout_case() -> Record:
    """A model from its inputs to its loss."""
    layer = torch.nn.LSTM(F, H, batch_first=True, dtype=torch.float64)
    readout = torch.nn.Linear(H, V, dtype=torch.float64)
    weights = randomise(layer)
    weights |= {f"readout.{name}": weight for name, weight in randomise(readout).items()}
    wanted, targets = weights | {"inputs": normal(B, T, F)}, ignored_past_lengths()
    packed = pack_padded_sequence(wanted["inputs"], LENGTHS, batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=T)
    logits = readout(outputs)
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    results = {"lengths": LENGTHS, "targets": targets, "logits": logits, "loss": loss}
    return with_gradients(loss, wanted) | results


def main() -> None:
    """Compute all cases and write the file."""
    torch.manual_seed(20)
    torch.set_num_threads(1)
    plain = [kind for kind in KINDS if kind != "lstm_proj"]
    cases = {f"{kind}.{form}": layer_case(kind, form) for kind in plain for form in FORMS}
    cases |= {"masked_loss": loss_case(), "readout": readout_case()}
    # Last, so that the cases above draw the numbers that they always drew.
    cases |= {f"lstm_proj.{form}": layer_case("lstm_proj", form) for form in ("single", "stacked")}
    versions = f"torch {torch.__version__}, numpy {np.__version__}"
    arrays: dict[str, Any] = {
        f"{case}/{name}": value.detach().numpy()
        for case, record in cases.items()
        for name, value in record.items()
    }
    path = Path(__file__).parent / "torch_recurrent.npz"
    np.savez_compressed(path, versions=np.array(versions), **arrays)
    print(f"{versions}: {len(arrays)} arrays, {path.stat().st_size} bytes in {path.name}")


if __name__ == "__main__":
    main()
