"""The network of `crates/ringrift-player/src/network.rs`, in PyTorch: the same numbers out of the same file."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import embedding_bag

from .samples import Batch
from .weights import SHAPES, Header, Weights


class Outputs(NamedTuple):
    """What the network says of a batch."""

    #: Raw numbers, rows x seats from the mover's seat on; `values` makes sense of them.
    raw: torch.Tensor
    #: One per legal move.
    logits: torch.Tensor
    #: How the game will end as each seat sees it, rows x seats x outputs: training asks for it, play does not.
    auxiliary: torch.Tensor


class _Numbers(torch.nn.Module):
    """What is learned; modules only so that the names are those of the file."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)


class _Biased(_Numbers):
    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__(weight)
        self.bias = torch.nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class Network(torch.nn.Module):
    """A sparse policy and value network; the names in its `state_dict` are those of the file.

    Each seat's view of the position is a set of features; their rows add up to an accumulator, which a hidden layer turns into one
    raw number per seat; `values` compares these. The mover's accumulator also gives a vector, whose product with the rows of a
    legal move is the logit of that move.
    """

    def __init__(self, weights: Weights):
        super().__init__()
        self.header = weights.header
        tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.tensors.items()}
        self.features = _Biased(tensors["features.weight"], tensors["features.bias"])
        self.hidden = _Biased(tensors["hidden.weight"], tensors["hidden.bias"])
        self.value = _Numbers(tensors["value.weight"])
        self.auxiliary = _Biased(tensors["auxiliary.weight"], tensors["auxiliary.bias"])
        self.policy = _Biased(tensors["policy.weight"], tensors["policy.bias"])
        self.moves = _Biased(tensors["moves.weight"], tensors["moves.bias"])

    def forward(self, batch: Batch) -> Outputs:
        """Evaluates some rows and their legal moves."""
        offsets = torch.from_numpy(batch.feature_offsets)
        lanes = []
        for view in torch.from_numpy(batch.features):
            sums = embedding_bag(view, self.features.weight, offsets, mode="sum", include_last_offset=True)
            lanes.append(torch.relu(sums + self.features.bias))
        hidden = torch.relu(self.hidden(torch.stack(lanes, 1)))
        vectors = self.policy(lanes[0])
        rows = torch.from_numpy(batch.policy_rows)
        moves = embedding_bag(rows, self.moves.weight, mode="sum")
        owners = torch.from_numpy(batch.owners())
        logits = self.moves.bias[rows].sum(1) + (moves * vectors[owners]).sum(1)
        return Outputs(hidden @ self.value.weight, logits, self.auxiliary(hidden))

    def to_weights(self, generation: int) -> Weights:
        """What a network file holds, `generation` trainings after the random network."""
        state = self.state_dict()
        header = Header(**{**self.header.__dict__, "generation": generation})
        return Weights(header, {name: state[name].numpy().copy() for name in SHAPES})


def values(raw: torch.Tensor) -> torch.Tensor:
    """Worth of each position per seat: with two seats -1..1 and exact opposites, else chances to win, which add up to 1."""
    if raw.shape[1] == 2:
        mover = torch.tanh((raw[:, 0] - raw[:, 1]) / 2)
        return torch.stack((mover, -mover), 1)
    return torch.softmax(raw, 1)
