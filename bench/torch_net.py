"""The network in PyTorch on one core, for `cargo xtask bench learn`: prints one JSON object.

    python torch_net.py FOLDER SECONDS

FOLDER has network.safetensors and positions.json, as the example `bench` of ringrift-learn leaves them. Everything that a batch
needs is put together before the clock starts, so that only the library is measured.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import torch
from torch import nn

INFERENCE_BATCH = 64
TRAINING_BATCH = 256


def read_tensors(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = numpy.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors


class Net(nn.Module):
    """What inference uses; the outputs that only training asks for are left out."""

    def __init__(self, tensors):
        super().__init__()
        bag = lambda weight: nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode="sum")
        self.features = bag(tensors["features.weight"])
        self.features_bias = nn.Parameter(tensors["features.bias"])
        self.hidden = nn.Parameter(tensors["hidden.weight"])
        self.hidden_bias = nn.Parameter(tensors["hidden.bias"])
        self.value = nn.Parameter(tensors["value.weight"])
        self.policy = nn.Parameter(tensors["policy.weight"])
        self.policy_bias = nn.Parameter(tensors["policy.bias"])
        self.moves = bag(tensors["moves.weight"])
        self.moves_bias = bag(tensors["moves.bias"].reshape(-1, 1))

    def forward(self, features, offsets, rows, owners, seats: int):
        accumulator = torch.relu(self.features(features, offsets) + self.features_bias)
        hidden = torch.relu(torch.addmm(self.hidden_bias, accumulator, self.hidden))
        raw = (hidden @ self.value).view(-1, seats)
        vector = torch.addmm(self.policy_bias, accumulator[::seats], self.policy)
        logits = (self.moves(rows) * vector[owners]).sum(1) + self.moves_bias(rows).squeeze(1)
        return raw, logits


class Batch:
    def __init__(self, positions):
        views = [view for position in positions for view in position["views"]]
        lengths = [0] + [len(view) for view in views[:-1]]
        moves = [len(position["rows"]) for position in positions]
        self.seats = len(positions[0]["views"])
        self.features = torch.tensor([feature for view in views for feature in view])
        self.offsets = torch.tensor(lengths).cumsum(0)
        self.rows = torch.tensor([row for position in positions for row in position["rows"]])
        self.owners = torch.repeat_interleave(torch.tensor(moves))
        self.places = torch.cat([torch.arange(count) for count in moves])
        self.most = max(moves)
        self.policy = torch.tensor([p for position in positions for p in position["policy"]])
        chances = torch.tensor([position["chance"] for position in positions])
        self.chances = torch.stack([chances, 1 - chances], 1)

    def inputs(self):
        return self.features, self.offsets, self.rows, self.owners, self.seats

    def loss(self, net):
        raw, logits = net(*self.inputs())
        count = len(self.chances)
        table = logits.new_full((count, self.most), -1e9)
        table = table.index_put((self.owners, self.places), logits)
        log_policy = torch.log_softmax(table, 1)[self.owners, self.places]
        log_chances = torch.log_softmax(raw, 1)
        return -((self.policy * log_policy).sum() + (self.chances * log_chances).sum()) / count


def per_second(batches, size, seconds, work):
    """The best of three attempts, in positions per second of processor time."""
    best = 0.0
    for _ in range(3):
        start, done = time.process_time(), 0
        while (took := time.process_time() - start) < seconds / 3 or not done:
            for batch in batches:
                work(batch)
            done += size * len(batches)
        took = time.process_time() - start
        best = max(best, done / took)
    return best


def main():
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    positions = json.loads((folder / "positions.json").read_text())["positions"]
    cut = lambda size: [
        Batch(positions[start : start + size])
        for start in range(0, len(positions) - size + 1, size)
    ]
    net = Net(read_tensors(folder / "network.safetensors"))

    raw, logits = net(*(whole := Batch(positions)).inputs())
    value = torch.tanh((raw[:, 0] - raw[:, 1]) / 2)
    expected = torch.tensor([position["value"] for position in positions])
    expected_logits = torch.tensor([x for position in positions for x in position["logits"]])
    difference = max(
        (value - expected).abs().max().item(), (logits - expected_logits).abs().max().item()
    )

    with torch.inference_mode():
        singles, batches = cut(1), cut(INFERENCE_BATCH)
        evaluate = lambda batch: net(*batch.inputs())
        single = per_second(singles, 1, seconds, evaluate)
        batched = per_second(batches, INFERENCE_BATCH, seconds, evaluate)
        # Without the interpreter between the operations, if that is faster.
        scripted = torch.jit.freeze(torch.jit.script(net.eval()))
        evaluate = lambda batch: scripted(*batch.inputs())
        evaluate(singles[0]), evaluate(singles[1])
        single = max(single, per_second(singles, 1, seconds, evaluate))
        batched = max(batched, per_second(batches, INFERENCE_BATCH, seconds, evaluate))

    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1.0, fused=True)

    def learn(batch):
        optimiser.zero_grad()
        batch.loss(net).backward()
        optimiser.step()

    trained = per_second(cut(TRAINING_BATCH), TRAINING_BATCH, seconds, learn)
    print(
        json.dumps(
            {
                "version": torch.__version__,
                "difference": difference,
                "single": single,
                "batched": batched,
                "trained": trained,
                "loss": whole.loss(net).item(),
            }
        )
    )


main()
