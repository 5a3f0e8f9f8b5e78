"""`hihello.py` in PyTorch, for `benchmark.py`: the same lab as a PyTorch user would write it.

It takes no options. Not part of jaxrnn; it needs `pip install torch`.
"""

# pyright: reportMissingImports=false
import sys

import torch
from torch import nn

STEPS, HIDDEN, LEARNING_RATE = 50, 5, 0.1
TEXT = "hihello"
CHARACTERS = list(dict.fromkeys(TEXT))


class Model(nn.Module):
    """An LSTM with a linear readout at every time step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(len(CHARACTERS), HIDDEN, batch_first=True)
        self.readout = nn.Linear(HIDDEN, len(CHARACTERS))
        with torch.no_grad():  # forget gate bias 1; PyTorch adds two biases
            self.lstm.bias_ih_l0[HIDDEN : 2 * HIDDEN].fill_(1.0)
            self.lstm.bias_hh_l0[HIDDEN : 2 * HIDDEN].fill_(0.0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs [B, T, F] -> logits [B, T, V]."""
        return self.readout(self.lstm(inputs)[0])


def train(seed: int = 0) -> list[tuple[float, torch.Tensor]]:
    """Train; return each step's loss before its update and prediction after it."""
    torch.manual_seed(seed)
    ids = torch.tensor([[CHARACTERS.index(character) for character in TEXT]])
    inputs = nn.functional.one_hot(ids[:, :-1], len(CHARACTERS)).float()
    targets = ids[:, 1:]
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    history = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            history.append((loss.item(), model(inputs).argmax(-1)))
    return history


def main() -> None:
    """Train and print each step, as `hihello.py` does."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__, end="")
        return
    if sys.argv[1:]:
        print(f"error: this script takes no options, such as {sys.argv[1]!a}", file=sys.stderr)
        sys.exit(2)
    true = [[CHARACTERS.index(character) for character in TEXT[1:]]]
    for step, (loss, prediction) in enumerate(train()):
        print(f"{step} loss: {loss} prediction: {prediction.numpy()} true Y: {true}")
        print("\tPrediction str: ", "".join(CHARACTERS[i] for i in prediction[0]))


if __name__ == "__main__":
    main()
