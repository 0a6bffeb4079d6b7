"""A trainer in plain numpy: stochastic gradient descent on the whole network, written out by hand.

It exists to show, and to test, that the worker contract needs no more than this. It is slow.
"""

import time

import numpy as np

from contract import Window, main, next_generation, read_safetensors, write_safetensors


def forward(net, batch):
    """Everything that the backward pass needs."""
    views = []
    for features in batch["views"]:
        sums = np.tile(net["features.bias"], (batch["size"], 1))
        np.add.at(sums, batch["feature_row"], net["features.weight"][features])
        lanes = np.maximum(sums, 0)
        hidden = np.maximum(lanes @ net["hidden.weight"] + net["hidden.bias"], 0)
        views.append((lanes, hidden))
    raw = [hidden @ net["value.weight"] for _, hidden in views]
    value = np.tanh((raw[0] - raw[1]) / 2)
    vector = views[0][0] @ net["policy.weight"] + net["policy.bias"]
    rows = net["moves.weight"][batch["moves"]].sum(1)
    logits = net["moves.bias"][batch["moves"]].sum(1) + (rows * vector[batch["move_row"]]).sum(1)
    highest = np.full(batch["size"], -np.inf, np.float32)
    np.maximum.at(highest, batch["move_row"], logits)
    scores = np.exp(logits - highest[batch["move_row"]])
    sums = np.zeros(batch["size"], np.float32)
    np.add.at(sums, batch["move_row"], scores)
    policy = scores / sums[batch["move_row"]]
    return views, value, vector, rows, policy


def losses(batch, value, policy):
    rows = max(1, len(np.unique(batch["move_row"])))
    cross = -(batch["target"] * np.log(np.maximum(policy, 1e-9))).sum() / rows
    return float(cross), float(((value - batch["value"]) ** 2).mean())


def step(net, batch, rate):
    views, value, vector, rows, policy = forward(net, batch)
    size = batch["size"]
    change = {name: np.zeros_like(tensor) for name, tensor in net.items()}
    # Policy: softmax cross entropy.
    slope = (policy - batch["target"])[:, None] / size
    np.add.at(change["moves.bias"], batch["moves"], np.repeat(slope, batch["moves"].shape[1], 1))
    spread = (slope * vector[batch["move_row"]])[:, None, :]
    np.add.at(change["moves.weight"], batch["moves"], np.repeat(spread, batch["moves"].shape[1], 1))
    up = np.zeros_like(vector)
    np.add.at(up, batch["move_row"], slope * rows)
    change["policy.weight"] += views[0][0].T @ up
    change["policy.bias"] += up.sum(0)
    # Value: mean square error of tanh of half the difference of the two views.
    error = 2 * (value - batch["value"]) * (1 - value**2) / 2 / size
    for index, ((lanes, hidden), sign) in enumerate(zip(views, (1, -1))):
        back = sign * error
        change["value.weight"] += hidden.T @ back
        to_hidden = np.outer(back, net["value.weight"]) * (hidden > 0)
        change["hidden.weight"] += lanes.T @ to_hidden
        change["hidden.bias"] += to_hidden.sum(0)
        to_lanes = to_hidden @ net["hidden.weight"].T
        if index == 0:
            to_lanes += up @ net["policy.weight"].T
        to_lanes *= lanes > 0
        np.add.at(change["features.weight"], batch["views"][index], to_lanes[batch["feature_row"]])
        change["features.bias"] += to_lanes.sum(0)
    for name, tensor in net.items():
        tensor -= rate * change[name]


def train(worker):
    started = time.monotonic()
    job = worker.train
    window = Window(worker.input(job["window"]))
    text, net = read_safetensors(worker.input(job["parent"]["weights"]))
    training, validation = window.split(0.1, job["seed"])
    choose = np.random.default_rng(job["seed"])
    steps, size = min(job["steps"], 30), min(job["batch"], 64)
    done = 0
    for done in range(1, steps + 1):
        step(net, window.batch(choose.choice(training, size)), 0.05)
        worker.progress(done, steps, "numpy")
        if worker.stopping:
            break
    batch = window.batch(validation[:512])
    _, value, _, _, policy = forward(net, batch)
    cross, square = losses(batch, value, policy)
    worker.hand_over("weights", "weights.safetensors", write_safetensors(next_generation(text, job["generation"]), net))
    worker.report(
        steps=done,
        samples=done * size,
        policy_loss=cross,
        value_loss=square,
        seconds=time.monotonic() - started,
    )


if __name__ == "__main__":
    main(train)
