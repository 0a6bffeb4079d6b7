"""A trainer in plain numpy: stochastic gradient descent on the whole network, forward and backward written out by hand.

It shows, and tests without torch, that the worker contract needs no more than this. It takes 30 steps at most, as it is slow, and
leaves the auxiliary outputs, which play does not use, as they were.
"""

import time

import numpy as np

from ringrift_learning import contract
from ringrift_learning.samples import Samples
from ringrift_learning.weights import Header, Weights

RATE, STEPS, BATCH = 0.05, 30, 64


def forward(net, batch):
    """Raw numbers per seat, one logit per legal move, and what the backward pass needs."""
    size, views = len(batch), []
    row = np.repeat(np.arange(size), np.diff(batch.feature_offsets))
    for features in batch.features:
        sums = np.tile(net["features.bias"], (size, 1))
        np.add.at(sums, row, net["features.weight"][features])
        lanes = np.maximum(sums, 0)
        views.append((lanes, np.maximum(lanes @ net["hidden.weight"] + net["hidden.bias"], 0)))
    raw = np.stack([hidden @ net["value.weight"] for _, hidden in views], 1)
    vector = views[0][0] @ net["policy.weight"] + net["policy.bias"]
    moves = net["moves.weight"][batch.policy_rows].sum(1)
    logits = net["moves.bias"][batch.policy_rows].sum(1) + (moves * vector[batch.owners()]).sum(1)
    return raw, logits, (row, views, vector, moves)


def softmax(raw):
    scores = np.exp(raw - raw.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def softmax_of_rows(logits, owner, rows):
    """Softmax over the moves of each row."""
    highest = np.full(rows, -np.inf, np.float32)
    np.maximum.at(highest, owner, logits)
    scores = np.exp(logits - highest[owner])
    return scores / np.bincount(owner, scores, rows)[owner].astype(np.float32)


def chances(values):
    """Chances to win of each seat."""
    return (values + 1) / 2 if values.shape[1] == 2 else values


def step(net, batch, targets):
    """One step against the gradient of both cross entropies."""
    raw, logits, (row, views, vector, moves) = forward(net, batch)
    size, owner = len(batch), batch.owners()
    change = {name: np.zeros_like(tensor) for name, tensor in net.items()}
    slope = (softmax_of_rows(logits, owner, size) - batch.policy_values)[:, None] / size
    np.add.at(change["moves.bias"], batch.policy_rows, np.repeat(slope, batch.policy_rows.shape[1], 1))
    spread = (slope * vector[owner])[:, None, :]
    np.add.at(change["moves.weight"], batch.policy_rows, np.repeat(spread, batch.policy_rows.shape[1], 1))
    up = np.zeros_like(vector)
    np.add.at(up, owner, slope * moves)
    change["policy.weight"] += views[0][0].T @ up
    change["policy.bias"] += up.sum(0)
    error = (softmax(raw) - chances(targets)) / size
    for seat, (lanes, hidden) in enumerate(views):
        change["value.weight"] += hidden.T @ error[:, seat]
        to_hidden = np.outer(error[:, seat], net["value.weight"]) * (hidden > 0)
        change["hidden.weight"] += lanes.T @ to_hidden
        change["hidden.bias"] += to_hidden.sum(0)
        to_lanes = to_hidden @ net["hidden.weight"].T
        if seat == 0:
            to_lanes += up @ net["policy.weight"].T
        to_lanes *= lanes > 0
        np.add.at(change["features.weight"], batch.features[seat], to_lanes[row])
        change["features.bias"] += to_lanes.sum(0)
    for name, tensor in net.items():
        tensor -= RATE * change[name]


def losses(net, batch, targets):
    """Means of the cross entropies of policy and value."""
    raw, logits, _ = forward(net, batch)
    policy = softmax_of_rows(logits, batch.owners(), len(batch))
    rows = max(1, np.count_nonzero(np.diff(batch.policy_offsets)))
    cross = -(batch.policy_values * np.log(np.maximum(policy, 1e-9))).sum() / rows
    return float(cross), float(-(chances(targets) * np.log(softmax(raw))).sum() / len(batch))


def train(worker):
    started, job = time.monotonic(), worker.job
    samples = Samples.read(worker.input(job.window))
    parent = Weights.read(worker.input(job.parent))
    samples.check_fits(parent, worker.config)
    net = {name: tensor.copy() for name, tensor in parent.tensors.items()}
    learned, kept_out = samples.split(0.1)
    steps, size, done = min(job.steps, STEPS), min(job.batch, BATCH), 0
    for batch in samples.batches(learned, size, job.seed):
        step(net, batch, samples.results[batch.rows])
        done += 1
        worker.progress(done, steps, "numpy")
        if worker.stopping:
            return  # 30 steps are begun again
        if done == steps:
            break
    measured = kept_out[:512] if len(kept_out) else learned[:512]
    policy, value = losses(net, samples.batch(measured), samples.results[measured])
    header = Header(**{**parent.header.__dict__, "generation": job.generation})
    worker.hand_over("weights", "candidate.safetensors", Weights(header, net).to_bytes())
    worker.report(
        steps=done, samples=done * size, policy_loss=policy, value_loss=value, seconds=time.monotonic() - started
    )


if __name__ == "__main__":
    contract.run(train)
