"""A trainer in PyTorch that speaks the worker contract: `python -m ringrift_learning.trainer`.

It learns as the built-in trainer of `crates/ringrift-learn/src/train` does, from the same window to the same file: AdamW with a warm-up
and a cosine, targets that look ahead, questions about how the game ended, a random symmetry of the board for each row, and a step that
rows of a class share. Only the order of the rows is another one. Equal jobs give equal files on one machine, interrupted or not.
"""

from __future__ import annotations

import os

# One worker per core: pools of several workers fight for the cores. Read when the libraries load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json  # noqa: E402
import math  # noqa: E402
import time  # noqa: E402
from typing import Any, Dict, Iterator, Tuple  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.func import functional_call  # noqa: E402

from . import Refused, contract  # noqa: E402
from .network import Network, Outputs  # noqa: E402
from .samples import Batch, Samples  # noqa: E402
from .weights import Weights, read_tensors, tensor_bytes  # noqa: E402

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

#: Said by checkpoints: one of another trainer, or of another version of this one, cannot be gone on from.
TRAINER = "ringrift_learning.trainer 1"

# As `Settings::default()` of the built-in trainer; what is not here comes with the job.
LAST_RATE = 1e-4
WARMUP = 30
WEIGHT_DECAY = 1.0
LOOK_AHEAD = 0.9
AUXILIARY_WEIGHT = 0.2
#: Moves to the end at which a position is half near to it.
HALF_WAY = 32.0
VALIDATION_SHARE = 0.05
#: Most rows that are looked at to measure a loss without learning.
MEASURED_ROWS = 4000


class Shared(torch.nn.Module):
    """Common rows: each row of the network is the sum of an own row and one that it has in common with its class.

    Features, or moves, of a class say the same of different cells, so what is learned on one cell helps on all. The sums are
    folded into the network at the end.
    """

    def __init__(self, samples: Samples, network: Network):
        super().__init__()
        features, rows = (torch.from_numpy(samples.arrays[name]).long() for name in ("feature_classes", "row_classes"))
        self.features = torch.nn.Parameter(torch.zeros(_count(features), network.features.weight.shape[1]))
        self.moves = torch.nn.Parameter(torch.zeros(_count(rows), network.moves.weight.shape[1]))
        self.moves_bias = torch.nn.Parameter(torch.zeros(_count(rows)))
        self._classes = features, rows

    def sums(self, network: Network) -> Dict[str, torch.Tensor]:
        """The tensors of the network that are sums of own and common rows."""
        features, rows = self._classes
        return {
            "features.weight": network.features.weight + _of_class(self.features, features),
            "moves.weight": network.moves.weight + _of_class(self.moves, rows),
            "moves.bias": network.moves.bias + _of_class(self.moves_bias, rows),
        }


def _count(classes: torch.Tensor) -> int:
    return int(classes.max()) + 1


def _of_class(common: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    # Class -1, alone of its kind, takes the last line: nothing.
    return torch.cat((common, torch.zeros_like(common[:1])))[classes]


class Training:
    """Where a training stands, and how it takes a step."""

    def __init__(self, job: contract.TrainJob, samples: Samples, parent: Weights):
        self.job, self.samples = job, samples
        self.network = Network(parent)
        self.shared = Shared(samples, self.network)
        self.parameters = dict(self.network.named_parameters())
        self.parameters.update((f"shared.{name}", parameter) for name, parameter in self.shared.named_parameters())
        self.optimiser = torch.optim.AdamW(self.parameters.values(), lr=job.learning_rate, weight_decay=WEIGHT_DECAY)
        self.targets = samples.value_targets(LOOK_AHEAD)
        self.learned, kept_out = samples.split(VALIDATION_SHARE)
        if not (len(self.learned) and np.diff(samples.policy_offsets)[self.learned].any()):
            raise Refused("no row of the window has a policy target: the policy would not learn")
        # A small window may keep no game out; then the losses are those on what was learned from.
        self.measured = (kept_out if np.diff(samples.policy_offsets)[kept_out].any() else self.learned)[:MEASURED_ROWS]
        self.step = 0
        self._batches = self._draw()

    def advance(self) -> Tuple[float, float]:
        """One step of the optimiser; gives the losses of policy and value."""
        batch = next(self._batches)
        outputs, policy, value, _ = self._losses(batch, self.targets)
        loss = (policy + value + AUXILIARY_WEIGHT * self._ending_loss(batch, outputs.auxiliary)) / len(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.param_groups[0]["lr"] = rate_at(self.job, self.step)
        self.optimiser.step()
        self.step += 1
        if not math.isfinite(loss.item()):
            raise Refused(f"the loss of step {self.step} is not a finite number: the learning rate is too high")
        return policy.item() / len(batch), value.item() / len(batch)

    def measure(self) -> Tuple[float, float]:
        """Losses of policy, per row that has one, and value, against the end of the game, on rows kept out."""
        with torch.no_grad():
            _, policy, value, policies = self._losses(self.samples.batch(self.measured), self.samples.results)
        return policy.item() / policies, value.item() / len(self.measured)

    def result(self) -> Weights:
        """The trained network."""
        with torch.no_grad():
            weights = self.network.to_weights(self.job.generation)
            weights.tensors.update((name, sums.numpy()) for name, sums in self.shared.sums(self.network).items())
        return weights

    def checkpoint(self) -> bytes:
        """All that a training needs to go on as if it had never been interrupted."""
        tensors: Dict[str, np.ndarray] = {}
        for name, parameter in self.parameters.items():
            state = self.optimiser.state[parameter]
            tensors[name] = parameter.detach().numpy()
            tensors[f"{name}.mean"], tensors[f"{name}.square"] = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
        return tensor_bytes(json.dumps({**self._identity(), "step": self.step}), tensors)

    def resume(self, path: str) -> None:
        """Goes on from a checkpoint of this very training."""
        names = [f"{name}{part}" for name in self.parameters for part in ("", ".mean", ".square")]
        text, _ = read_tensors(path, [])
        header = json.loads(text)
        if header.get("trainer") != TRAINER:
            raise Refused(f"the checkpoint {path} was written by another trainer than {TRAINER}")
        step = header.pop("step")
        if header != self._identity():
            raise Refused(f"the checkpoint {path} belongs to a training with other settings, samples or parent")
        _, tensors = read_tensors(path, names)
        for name, parameter in self.parameters.items():
            parts = [torch.from_numpy(tensors[name + part]) for part in ("", ".mean", ".square")]
            with torch.no_grad():
                parameter.copy_(parts[0])
            self.optimiser.state[parameter] = {"step": torch.tensor(float(step)), "exp_avg": parts[1], "exp_avg_sq": parts[2]}
        self.step = step
        self._batches = self._draw()

    def _draw(self) -> Iterator[Batch]:
        return self.samples.batches(self.learned, self.job.batch, self.job.seed, self.step)

    def _identity(self) -> Dict[str, Any]:
        job = self.job
        return {
            "trainer": TRAINER,
            "window": job.window,
            "parent": job.parent,
            "steps": job.steps,
            "batch": job.batch,
            "learning_rate": job.learning_rate,
            "seed": job.seed,
        }

    def _losses(self, batch: Batch, targets: np.ndarray) -> Tuple[Outputs, torch.Tensor, torch.Tensor, int]:
        """Outputs, sums of the cross entropies of policy and value over the rows, and the number of rows with a policy."""
        outputs = functional_call(self.network, self.shared.sums(self.network), (batch,))
        chances = torch.from_numpy(targets[batch.rows])
        if self.samples.seats == 2:
            chances = (chances + 1) / 2
        value = -(chances * torch.log_softmax(outputs.raw, 1)).sum()
        owners = torch.from_numpy(batch.owners())
        logs = _log_softmax(outputs.logits, owners, len(batch))
        policy = -(torch.from_numpy(batch.policy_values) * logs).sum()
        return outputs, policy, value, int((np.diff(batch.policy_offsets) > 0).sum())

    def _ending_loss(self, batch: Batch, outputs: torch.Tensor) -> torch.Tensor:
        """How far the network is from how the games ended: half the square errors of each seat's share of the board, of its share of
        the rings that win, and of the nearness of the end, and the cross entropy of the reason, summed over the rows.
        """
        shares, nearness, reasons = endings(self.samples, batch.rows)
        count = shares.shape[2]
        errors = ((outputs[:, :, :count] - torch.from_numpy(shares)) ** 2).sum()
        # Only the mover's view is asked about the game as a whole.
        whole = outputs[:, 0, count:]
        errors = errors + ((whole[:, 0] - torch.from_numpy(nearness)) ** 2).sum()
        of_play = torch.from_numpy(np.flatnonzero(reasons < whole.shape[1] - 1))
        logs = torch.log_softmax(whole[of_play, 1:], 1)
        return errors / 2 - logs.gather(1, torch.from_numpy(reasons)[of_play, None]).sum()


def endings(samples: Samples, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How the games of some rows ended: shares of each seat from the mover's on, nearness of the end, reason."""
    arrays, game = samples.arrays, samples.game[rows]
    seats = (samples.mover[rows][:, None] + np.arange(samples.seats)) % samples.seats
    shares = [arrays[name][game[:, None], seats] for name in ("game_territory", "game_eliminated")]
    left = arrays["game_lengths"][game] - arrays["move_number"][rows]
    nearness = (HALF_WAY / (HALF_WAY + left)).astype(np.float32)
    return np.stack(shares, 2), nearness, arrays["game_reasons"][game].astype(np.int64)


def _log_softmax(logits: torch.Tensor, owners: torch.Tensor, rows: int) -> torch.Tensor:
    """Log-softmax over the moves of each row."""
    highest = torch.full((rows,), -torch.inf).scatter_reduce(0, owners, logits.detach(), "amax")
    shifted = logits - highest[owners]
    return shifted - torch.zeros(rows).index_add(0, owners, shifted.exp()).log()[owners]


def rate_at(job: contract.TrainJob, step: int) -> float:
    """Learning rate of a step, counted from 0: a warm-up, then half a cosine."""
    if step < WARMUP:
        return job.learning_rate * (step + 1) / WARMUP
    course = (step - WARMUP) / max(1, job.steps - WARMUP)
    return LAST_RATE + (job.learning_rate - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * course))


def train(worker: contract.Worker) -> None:
    """Does one job."""
    started, job = time.monotonic(), worker.job
    samples = Samples.read(worker.input(job.window))
    parent = Weights.read(worker.input(job.parent))
    samples.check_fits(parent, worker.config)
    training = Training(job, samples, parent)
    if job.checkpoint is not None:
        training.resume(worker.input(job.checkpoint))
    handed = training.step

    def hand_over() -> None:
        worker.hand_over("checkpoint", f"checkpoint-{training.step}.safetensors", training.checkpoint())

    while training.step < job.steps:
        if worker.stopping:
            # The next attempt goes on from here.
            if training.step > handed:
                hand_over()
            return
        policy, value = training.advance()
        worker.progress(training.step, job.steps, f"policy {policy:.3f} value {value:.3f}")
        if training.step % job.checkpoint_steps == 0 and training.step < job.steps:
            hand_over()
            handed = training.step
    policy, value = training.measure()
    worker.hand_over("weights", "candidate.safetensors", training.result().to_bytes())
    worker.report(
        steps=job.steps,
        samples=job.steps * job.batch,
        policy_loss=policy,
        value_loss=value,
        seconds=time.monotonic() - started,
    )


if __name__ == "__main__":
    contract.run(train)
