"""What needs torch: `cargo xtask check --long torch`. Files as for test_learning.py."""

import os
import sys
import unittest
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

from ringrift_learning import Refused, contract, trainer  # noqa: E402
from ringrift_learning.network import Network, values  # noqa: E402
from ringrift_learning.samples import Samples  # noqa: E402
from ringrift_learning.weights import Weights, tensor_bytes  # noqa: E402

FILES = Path(os.environ["RINGRIFT_LEARNING_FILES"])
CONFIGS = ("square8_2p", "hex8_2p", "square8_4p")

JOB = contract.TrainJob(
    candidate="x-m0002",
    generation=2,
    parent="1" * 64,
    window="2" * 64,
    steps=40,
    batch=32,
    learning_rate=2e-3,
    checkpoint_steps=10,
    checkpoint=None,
    seed=1,
)


def of(config):
    folder = FILES / config
    return Samples.read(folder / "samples.npz"), Weights.read(folder / "model.safetensors"), folder


class TheNetwork(unittest.TestCase):
    def test_it_says_what_the_program_says_of_a_thousand_positions(self):
        for config in CONFIGS:
            samples, weights, folder = of(config)
            self.assertGreaterEqual(len(samples), 1000)
            with torch.no_grad():
                raw, logits, _ = Network(weights)(samples.batch(np.arange(len(samples))))
            with np.load(folder / "outputs.npz", allow_pickle=False) as outputs:
                np.testing.assert_allclose(values(raw).numpy(), outputs["values"], rtol=0, atol=1e-4)
                np.testing.assert_allclose(logits.numpy(), outputs["logits"], rtol=0, atol=1e-4)

    def test_seats_share_what_there_is_to_win(self):
        raw = torch.randn(100, 2)
        worth, swapped = values(raw), values(raw.flip(1))
        self.assertTrue(torch.equal(worth[:, 0], -worth[:, 1]))
        self.assertTrue(torch.equal(swapped, worth.flip(1)))
        torch.testing.assert_close(values(torch.randn(100, 4)).sum(1), torch.ones(100))

    def test_its_names_and_numbers_are_those_of_the_file(self):
        _, weights, folder = of("hex8_2p")
        network = Network(weights)
        self.assertEqual(set(network.state_dict()), set(weights.tensors))
        self.assertEqual(network.to_weights(1).to_bytes(), (folder / "model.safetensors").read_bytes())


class TheTrainer(unittest.TestCase):
    def train(self, config, steps, job=JOB):
        samples, weights, _ = of(config)
        training = trainer.Training(job, samples, weights)
        losses = [training.advance() for _ in range(steps)]
        return training, losses

    # Against the end of the game, as it is measured.
    @patch.object(trainer, "LOOK_AHEAD", 1.0)
    def test_it_lowers_both_losses_and_hands_over_the_network_that_does(self):
        for config in ("hex8_2p", "square8_4p"):
            training, _ = self.train(config, 0)
            training.measured = training.learned
            before = training.measure()
            training, _ = self.train(config, 150, replace(JOB, steps=150, learning_rate=5e-3))
            training.measured = training.learned
            after = training.measure()
            self.assertLess(after[0], 0.98 * before[0])
            self.assertLess(after[1], 0.98 * before[1])
            # Folded into one network, own and common rows say the same.
            folded, _ = self.train(config, 0)
            folded.network = Network(training.result())
            folded.measured = training.learned
            np.testing.assert_allclose(folded.measure(), after, rtol=1e-5)

    def test_the_same_job_gives_the_same_bytes_and_another_seed_others(self):
        first = self.train("hex8_2p", 5)[0].result().to_bytes()
        self.assertEqual(self.train("hex8_2p", 5)[0].result().to_bytes(), first)
        self.assertNotEqual(self.train("hex8_2p", 5, replace(JOB, seed=2))[0].result().to_bytes(), first)

    def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_been_interrupted(self):
        path = FILES / "checkpoint.safetensors"
        training, _ = self.train("hex8_2p", 7)
        path.write_bytes(training.checkpoint())
        for _ in range(5):
            training.advance()
        samples, weights, folder = of("hex8_2p")
        resumed = trainer.Training(JOB, samples, weights)
        resumed.resume(str(path))
        self.assertEqual(resumed.step, 7)
        for _ in range(5):
            resumed.advance()
        self.assertEqual(resumed.result().to_bytes(), training.result().to_bytes())
        self.assertEqual(resumed.checkpoint(), training.checkpoint())

        def refused(part, job, file):
            with self.assertRaisesRegex(Refused, part):
                trainer.Training(job, samples, weights).resume(str(file))

        refused("belongs to a training with other settings", replace(JOB, batch=64), path)
        refused("was written by another trainer", JOB, folder / "model.safetensors")
        path.write_bytes(path.read_bytes()[:-3])
        refused("checkpoint.safetensors is damaged", JOB, path)

    def test_it_asks_how_the_game_ended_as_each_seat_sees_it(self):
        for config in ("hex8_2p", "square8_4p"):
            samples, weights, _ = of(config)
            training = trainer.Training(JOB, samples, weights)
            rows = np.arange(len(samples))[:: len(samples) // 30]
            batch, expected = samples.batch(rows), 0.0
            with torch.no_grad():
                auxiliary = training.network(batch).auxiliary
                found = training._ending_loss(batch, auxiliary).item()
            for outputs, row in zip(auxiliary.numpy().astype(float), rows):
                game = samples.game[row]
                for view in range(samples.seats):
                    seat = (samples.mover[row] + view) % samples.seats
                    for output, name in enumerate(("game_territory", "game_eliminated")):
                        expected += (outputs[view, output] - samples.arrays[name][game, seat]) ** 2 / 2
                left = samples.arrays["game_lengths"][game] - samples.arrays["move_number"][row]
                expected += (outputs[0, 2] - 32 / (32 + left)) ** 2 / 2
                logits, reason = outputs[0, 3:], samples.arrays["game_reasons"][game]
                expected += np.log(np.exp(logits).sum()) - logits[reason]
            self.assertAlmostEqual(found, expected, delta=1e-3)

    def test_the_rate_warms_up_and_falls_to_its_last_value(self):
        job = replace(JOB, steps=1000)
        rates = [trainer.rate_at(job, step) for step in range(1001)]
        self.assertAlmostEqual(rates[0], job.learning_rate / trainer.WARMUP)
        self.assertEqual(max(rates), job.learning_rate)
        self.assertAlmostEqual(rates[-1], trainer.LAST_RATE)
        self.assertEqual(rates[trainer.WARMUP :], sorted(rates[trainer.WARMUP :], reverse=True))

    def test_what_cannot_be_learned_from_is_refused(self):
        with self.assertRaisesRegex(Refused, "is not a finite number: the learning rate is too high"):
            self.train("hex8_2p", 60, replace(JOB, learning_rate=1e30))
        samples, weights, _ = of("hex8_2p")
        samples.policy_offsets = np.zeros_like(samples.policy_offsets)
        with self.assertRaisesRegex(Refused, "no row of the window has a policy target"):
            trainer.Training(JOB, samples, weights)


if __name__ == "__main__":
    unittest.main()
