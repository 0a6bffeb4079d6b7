"""A trainer in PyTorch, on the CPU: AdamW on the same network, from the same window, to the same file."""

import time

import numpy as np
import torch

from contract import Window, main, next_generation, read_safetensors, write_safetensors


class Network(torch.nn.Module):
    """Sparse policy and value network; tensor names are those of the weights file."""

    def __init__(self, tensors):
        super().__init__()
        self.tensors = torch.nn.ParameterDict(
            {name.replace(".", "_"): torch.nn.Parameter(torch.from_numpy(array)) for name, array in tensors.items()}
        )

    def __getitem__(self, name):
        return self.tensors[name.replace(".", "_")]

    def forward(self, batch):
        lanes = []
        for features in batch["views"]:
            sums = self["features.bias"].repeat(batch["size"], 1)
            lanes.append(torch.relu(sums.index_add(0, batch["feature_row"], self["features.weight"][features])))
        raw = [torch.relu(x @ self["hidden.weight"] + self["hidden.bias"]) @ self["value.weight"] for x in lanes]
        value = torch.tanh((raw[0] - raw[1]) / 2)
        vector = lanes[0] @ self["policy.weight"] + self["policy.bias"]
        rows = self["moves.weight"][batch["moves"]].sum(1)
        logits = self["moves.bias"][batch["moves"]].sum(1) + (rows * vector[batch["move_row"]]).sum(1)
        # Log-softmax over the legal moves of each row.
        size, owner = batch["size"], batch["move_row"]
        highest = torch.full((size,), -torch.inf).scatter_reduce(0, owner, logits.detach(), "amax")
        shifted = logits - highest[owner]
        sums = torch.zeros(size).index_add(0, owner, shifted.exp())
        return value, shifted - sums.log()[owner]


def tensors_of(batch):
    def tensor(value):
        if isinstance(value, list):
            return [torch.from_numpy(part) for part in value]
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return {name: tensor(value) for name, value in batch.items()}


def losses(net, batch):
    value, log_policy = net(batch)
    rows = max(1, len(torch.unique(batch["move_row"])))
    return -(batch["target"] * log_policy).sum() / rows, ((value - batch["value"]) ** 2).mean()


def train(worker):
    started = time.monotonic()
    torch.set_num_threads(1)  # one worker per core; pools of several workers fight for the cores
    job = worker.train
    torch.manual_seed(job["seed"])
    window = Window(worker.input(job["window"]))
    text, arrays = read_safetensors(worker.input(job["parent"]["weights"]))
    net = Network(arrays)
    training, validation = window.split(0.1, job["seed"])
    optimiser = torch.optim.AdamW(net.parameters(), lr=job["learning_rate"], weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, job["steps"], job["learning_rate"] / 10)
    choose = np.random.default_rng(job["seed"])
    done = 0
    for done in range(1, job["steps"] + 1):
        batch = tensors_of(window.batch(choose.choice(training, job["batch"])))
        policy, value = losses(net, batch)
        optimiser.zero_grad(set_to_none=True)
        (policy + value).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if done % 10 == 0:
            worker.progress(done, job["steps"], f"policy {policy.item():.3f} value {value.item():.3f}")
        if worker.stopping:
            break
    with torch.no_grad():
        policy, value = losses(net, tensors_of(window.batch(validation[:4096])))
    arrays = {name: net[name].detach().numpy() for name in arrays}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise FloatingPointError("training diverged: a weight is not finite")
    worker.hand_over(
        "weights", "weights.safetensors", write_safetensors(next_generation(text, job["generation"]), arrays)
    )
    worker.report(
        steps=done,
        samples=done * job["batch"],
        policy_loss=policy.item(),
        value_loss=value.item(),
        seconds=time.monotonic() - started,
    )


if __name__ == "__main__":
    main(train)
