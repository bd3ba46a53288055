"""A small transformer in PyTorch, trained with torch's dropout and with fastdrop's.

The model is torch's own; one `with` statement and one call change its dropout. It learns to tell
which of two symbols comes more often in a sequence. The script prints both losses and what was
swapped; the masks differ, so the losses agree only roughly.

    python examples/torch_model.py
"""

import copy

import torch
from torch import nn

import fastdrop.torch

LENGTH, STEPS, BATCH = 24, 40, 32


class Counter(nn.Module):
    """Symbols to vectors, two encoder layers, the mean, a decision."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.symbols = nn.Embedding(2, 32)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.drop = nn.Dropout(0.1)
        self.decide = nn.Linear(32, 2)

    def forward(self, sequence):
        vectors = self.encoder(self.symbols(sequence)).mean(1)
        return self.decide(self.drop(vectors))


def train(model):
    """Return the mean loss of the last ten steps."""
    torch.manual_seed(1)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(STEPS):
        sequences = torch.randint(0, 2, (BATCH, LENGTH))
        target = (sequences.sum(1) > LENGTH // 2).long()
        loss = nn.functional.cross_entropy(model(sequences), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


def main():
    torch.manual_seed(0)
    model = Counter()
    same = copy.deepcopy(model)

    print(f"torch's dropout:    loss {train(model):.2f}")

    swapped = fastdrop.torch.replace_dropout(same)
    with fastdrop.torch.patched():  # the dropout inside attention is a function
        print(f"fastdrop's dropout: loss {train(same):.2f}")
    print(f"{len(swapped)} modules swapped, among them {next(iter(swapped))}")

    fastdrop.torch.restore_dropout(same)
    print(f"restored: {type(same.drop).__module__}.{type(same.drop).__name__}")


if __name__ == "__main__":
    main()
