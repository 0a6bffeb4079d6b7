"""Against files that the program wrote: `cargo nextest run -p ringrift python` makes them and runs this.

RINGRIFT_LEARNING_FILES names a folder with samples.npz, model.safetensors and outputs.npz, what that network says of these
samples, for each of several configs.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import struct
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent.parent
sys.path[:0] = [str(HERE), str(HERE / "examples")]

import numpy_trainer  # noqa: E402
from ringrift_learning import Refused, contract  # noqa: E402
from ringrift_learning.samples import Samples  # noqa: E402
from ringrift_learning.weights import Weights, hash_of, tensor_bytes  # noqa: E402

FILES = Path(os.environ["RINGRIFT_LEARNING_FILES"])
CONFIGS = ("square8_2p", "hex8_2p", "square8_4p")


def of(config):
    folder = FILES / config
    return Samples.read(folder / "samples.npz"), Weights.read(folder / "model.safetensors"), folder


class SampleFiles(unittest.TestCase):
    def test_numpy_reads_every_array_without_pickle(self):
        for config in CONFIGS:
            with np.load(FILES / config / "samples.npz", allow_pickle=False) as npz:
                self.assertTrue(all(npz[name].dtype != object for name in npz.files))
            samples, weights, _ = of(config)
            samples.check_fits(weights, config)
            self.assertGreaterEqual(len(samples), 1000)
            self.assertEqual(samples.meta.config, config)
            self.assertEqual(samples.meta.policies, np.count_nonzero(np.diff(samples.policy_offsets)))

    def test_a_batch_has_the_ragged_parts_of_its_rows(self):
        samples, _, _ = of("square8_4p")
        rows = np.array([7, 3, 7, len(samples) - 1])
        batch = samples.batch(rows)
        self.assertEqual(batch.features.shape[0], 4)
        for place, row in enumerate(rows):
            features = samples.features[samples.feature_offsets[row] : samples.feature_offsets[row + 1]]
            found = batch.features[:, batch.feature_offsets[place] : batch.feature_offsets[place + 1]]
            np.testing.assert_array_equal(found, samples.views[:, features])
            moves = slice(samples.policy_offsets[row], samples.policy_offsets[row + 1])
            found = batch.policy_rows[batch.owners() == place]
            np.testing.assert_array_equal(found, samples.policy_rows[moves])
            np.testing.assert_array_equal(batch.policy_values[batch.owners() == place], samples.policy_values[moves])

    def test_a_symmetry_takes_cells_to_cells_and_leaves_what_is_said_of_them(self):
        for config in CONFIGS:
            samples, _, _ = of(config)
            self.assertEqual(samples.symmetries, 12 if "hex" in config else 8)
            for images, classes in ((samples.feature_images, "feature_classes"), (samples.row_images, "row_classes")):
                self.assertEqual(len({line.tobytes() for line in images}), samples.symmetries)
                for line in images:
                    np.testing.assert_array_equal(np.sort(line), np.arange(len(line)))
                    np.testing.assert_array_equal(samples.arrays[classes][line], samples.arrays[classes])
            rows = np.arange(100)
            plain, turned = samples.batch(rows), samples.batch(rows, rows % samples.symmetries)
            np.testing.assert_array_equal(turned.feature_offsets, plain.feature_offsets)
            self.assertTrue((turned.features != plain.features).any())

    def test_batches_are_shuffled_passes_that_depend_on_seed_and_number_alone(self):
        samples, _, _ = of("hex8_2p")
        rows = np.arange(50)
        stream = samples.batches(rows, 20, 3)
        first = [next(stream) for _ in range(10)]
        seen = np.concatenate([batch.rows for batch in first])
        for turn in range(4):
            np.testing.assert_array_equal(np.sort(seen[turn * 50 : (turn + 1) * 50]), rows)
        self.assertTrue((seen[:50] != seen[50:100]).any())
        again = next(samples.batches(rows, 20, 3, first=7))
        np.testing.assert_array_equal(again.rows, first[7].rows)
        np.testing.assert_array_equal(again.features, first[7].features)
        self.assertTrue((next(samples.batches(rows, 20, 4)).rows != first[0].rows).any())

    def test_value_targets_look_ahead_seat_by_seat(self):
        for config in CONFIGS:
            samples, _, _ = of(config)
            np.testing.assert_array_equal(samples.value_targets(1.0), samples.results)
            expected = samples.results.copy()
            for game in range(samples.meta.games):
                rows = np.flatnonzero(samples.game == game)
                for here, later in list(zip(rows, rows[1:]))[::-1]:
                    for view in range(samples.seats):
                        seat = (view + samples.mover[here] - samples.mover[later]) % samples.seats
                        expected[here, view] = 0.3 * samples.opinions[here, view] + 0.7 * expected[later, seat]
            np.testing.assert_allclose(samples.value_targets(0.7), expected, atol=1e-5)

    def test_no_game_is_learned_from_and_measured_on(self):
        samples, _, _ = of("hex8_2p")
        learned, kept_out = samples.split(0.5)
        self.assertTrue(len(learned) and len(kept_out))
        self.assertEqual(len(learned) + len(kept_out), len(samples))
        self.assertFalse(set(samples.game[learned]) & set(samples.game[kept_out]))


class Networks(unittest.TestCase):
    def test_a_network_file_is_written_as_the_program_writes_it(self):
        for config in CONFIGS:
            _, weights, folder = of(config)
            data = (folder / "model.safetensors").read_bytes()
            self.assertEqual(hash_of(weights.to_bytes()), hash_of(data))
            self.assertEqual((weights.header.config, weights.header.generation), (config, 1))

    def test_the_network_in_numpy_says_what_the_program_says(self):
        for config in CONFIGS:
            samples, weights, folder = of(config)
            raw, logits, _ = numpy_trainer.forward(weights.tensors, samples.batch(np.arange(len(samples))))
            chances = numpy_trainer.softmax(raw)
            values = 2 * chances - 1 if samples.seats == 2 else chances
            with np.load(folder / "outputs.npz", allow_pickle=False) as outputs:
                self.assertGreater(outputs["values"].std(), 0.05)
                np.testing.assert_allclose(values, outputs["values"], rtol=0, atol=1e-4)
                np.testing.assert_allclose(logits, outputs["logits"], rtol=0, atol=1e-4)


class Refusals(unittest.TestCase):
    """Bad input gets one sentence that names the file."""

    def setUp(self):
        self.samples, self.weights, folder = of("hex8_2p")
        self.npz, self.model = folder / "samples.npz", folder / "model.safetensors"
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)

    def refused(self, part, call, *args):
        with self.assertRaises(Refused) as caught:
            call(*args)
        self.assertIn(part, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def changed(self, name=None, value=None, **meta):
        with np.load(self.npz, allow_pickle=False) as npz:
            arrays = {key: npz[key] for key in npz.files}
        text = json.dumps({**json.loads(arrays["meta"].tobytes()), **meta})
        arrays["meta"] = np.frombuffer(text.encode(), np.uint8)
        if name is not None:
            arrays.pop(name)
        if value is not None:
            arrays[name] = value
        np.savez(self.place / "samples.npz", **arrays)
        return self.place / "samples.npz"

    def test_samples_of_another_encoder_rules_or_game(self):
        def fits(config=None, **meta):
            Samples.read(self.changed(**meta)).check_fits(self.weights, config)

        fits()
        self.refused("have encoder 'other', the network needs 'nnue-pv-features-", lambda: fits(encoder="other"))
        self.refused("have rules version 'r0', the network needs", lambda: fits(rules="r0"))
        self.refused("have config 'hex8_2p', the network needs 'square8_2p'", lambda: fits("square8_2p"))
        other = Weights(self.weights.header, {**self.weights.tensors, "features.weight": np.zeros((9, 128), np.float32)})
        self.refused(f"have number of features {self.samples.views.shape[1]}, the network needs 9", self.samples.check_fits, other)

    def test_a_file_that_is_no_sample_file(self):
        path = self.place / "samples.npz"
        self.refused("its format is 'x', this program needs 'ringrift-samples-2'", Samples.read, self.changed(format="x"))
        data = self.npz.read_bytes()
        for cut in (0, 10, len(data) // 2, len(data) - 30):
            path.write_bytes(data[:cut])
            self.refused("samples.npz is damaged", Samples.read, path)
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 0x10
        path.write_bytes(flipped)
        self.refused("samples.npz is damaged", Samples.read, path)
        np.savez(path, a=np.zeros(1))
        self.refused("it has no header", Samples.read, path)
        with open(path, "wb") as file:
            np.save(file, np.zeros(1))
        self.refused("it is no NPZ file", Samples.read, path)
        with self.assertRaisesRegex(FileNotFoundError, "nowhere.npz"):
            Samples.read(self.place / "nowhere.npz")

    def test_numbers_that_would_poison_a_training(self):
        def check(part, name, change):
            value = self.samples.arrays[name].copy() if change else None
            self.refused(part, Samples.read, self.changed(name, change(value) if change else None))

        def put(index, number):
            def change(array):
                array[index] = number
                return array

            return change

        check("feature 1000000 does not exist", "features", put(5, 1_000_000))
        check("feature -1 does not exist", "features", put(5, -1))
        check("move row 65535 does not exist", "policy_rows", put((0, 3), 65535))
        check("nan is no value of a position", "search_values", put((1, 0), np.nan))
        check("nan is no value of a position", "result_values", put((1, 1), np.nan))
        check("no proper policy", "policy_values", put(0, np.nan))
        check("no proper policy", "policy_values", put(0, 1.5))
        check("mover 2 does not exist", "mover", put(2, 2))
        check("game 99 does not exist", "game", put(0, 99))
        check("reason 6 does not exist", "game_reasons", put(1, 6))
        check("1.5 is no share", "game_territory", put((1, 0), 1.5))
        check("feature_offsets does not fit", "feature_offsets", put(1, -4))
        check("feature of a symmetry", "feature_turns", put((0, 0), -1))
        check("it has no array row_turns", "row_turns", None)
        check("policy_values has shape [3]", "policy_values", lambda array: array[:3])
        check("mover is int64 with 1 dimensions, not int8", "mover", lambda array: array.astype(np.int64))
        check("it has 4 seats, its config is 'hex8_2p'", "feature_views", lambda array: np.vstack((array, array)))
        self.refused("its header says 3", Samples.read, self.changed(rows=3))

    def test_a_network_file_that_cannot_be_used(self):
        path = self.place / "model.safetensors"

        def check(part, **changes):
            tensors = {**self.weights.tensors}
            header = json.dumps({**self.weights.header.__dict__, **changes.pop("header", {})})
            for name, change in changes.items():
                tensor = change(tensors[name.replace("_", ".")].copy())
                tensors[name.replace("_", ".")] = tensor
            path.write_bytes(tensor_bytes(header, {name: t for name, t in tensors.items() if t is not None}))
            self.refused(part, Weights.read, path)

        def nan(tensor):
            tensor.flat[3] = np.nan
            return tensor

        check("tensor hidden.weight of", hidden_weight=lambda tensor: tensor[:64])
        check("has shape [64, 32], not [128, 32]", hidden_weight=lambda tensor: tensor[:64])
        check("has shape [32, 1], not [32]", value_weight=lambda tensor: tensor[:, None])
        check("contains a number that is not finite", moves_bias=nan)
        check("has no tensor moves.bias", moves_bias=lambda _: None)
        check("has format 'nnue-pv-0', this program needs 'nnue-pv-2'", header={"format": "nnue-pv-0"})
        data = self.model.read_bytes()
        for bad in (b"", data[:100], data[:-3], struct.pack("<Q", 1 << 60) + data[8:]):
            path.write_bytes(bad)
            self.refused("model.safetensors is damaged", Weights.read, path)
        self.weights.tensors["value.weight"][0] = np.inf
        self.refused("value.weight contains a number that is not finite", self.weights.to_bytes)

    def test_what_a_later_program_may_add_is_ignored_as_the_program_does(self):
        path = self.place / "model.safetensors"
        header = json.dumps({**self.weights.header.__dict__, "new": 1})
        path.write_bytes(tensor_bytes(header, {**self.weights.tensors, "later.weight": np.zeros(3, np.float32)}))
        self.assertEqual(Weights.read(path).to_bytes(), self.model.read_bytes())


class Contract(unittest.TestCase):
    """What a manager may say, and what it hears."""

    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        (self.place / "window.npz").write_bytes(b"bytes")
        self.window = hash_of(b"bytes")
        self.job = {
            "kind": "train",
            "candidate": "hex8_2p-m0001",
            "generation": 1,
            "parent": {"id": "hex8_2p-m0000", "weights": "00"},
            "window": self.window,
            "steps": 5,
            "batch": 16,
            "learning_rate": 0.002,
            "checkpoint_steps": 2,
            "seed": 1,
        }
        inputs = {self.window: str(self.place / "window.npz")}
        self.line = {"contract": 1, "dir": str(self.place), "config": "hex8_2p", "inputs": inputs, "job": self.job}

    def worker(self, **changes):
        self.out = io.BytesIO()
        return contract.Worker(json.dumps({**self.line, **changes}).encode(), self.out)

    def said(self):
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    def test_a_file_is_whole_before_it_is_handed_over(self):
        worker = self.worker()
        self.assertEqual((worker.job.window, worker.job.checkpoint), (self.window, None))
        worker.hand_over("weights", "candidate.safetensors", b"abc")
        worker.report(steps=5)
        self.assertEqual((self.place / "candidate.safetensors").read_bytes(), b"abc")
        self.assertFalse(list(self.place.glob("*.part")))
        handed, report = self.said()
        self.assertEqual((handed["hash"], handed["bytes"], handed["file"]), (hash_of(b"abc"), 3, "candidate.safetensors"))
        self.assertEqual(report, {"type": "result", "report": {"steps": 5}})

    def test_an_input_is_read_only_when_it_is_what_its_name_says(self):
        worker = self.worker()
        self.assertEqual(worker.input(self.window), str(self.place / "window.npz"))
        (self.place / "window.npz").write_bytes(b"bytez")
        with self.assertRaisesRegex(Refused, "window.npz has the hash [0-9a-f]{64}: it is damaged"):
            worker.input(self.window)
        with self.assertRaisesRegex(Refused, "names no file for it"):
            worker.input("00")

    def test_a_job_that_cannot_be_done_is_refused(self):
        def check(part, **changes):
            with self.assertRaisesRegex(Refused, part):
                self.worker(**changes)

        check("follows version 2 of the worker contract, this worker 1", contract=2)
        check("it cannot do 'dance'", job={"kind": "dance"})
        check("has no 'steps'", job={key: value for key, value in self.job.items() if key != "steps"})
        check("batch is 0, not above 0", job={**self.job, "batch": 0})
        with self.assertRaisesRegex(Refused, "no JSON line"):
            contract.Worker(b"", io.BytesIO())
        with self.assertRaisesRegex(Refused, "version None"):
            contract.Worker(b"[]", io.BytesIO())


class Readme(unittest.TestCase):
    def test_its_snippets_on_learning_run(self):
        snippets = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text().split("\n## Learning\n")[1], re.DOTALL)
        self.assertEqual(len(snippets), 2)
        if importlib.util.find_spec("torch") is None:
            snippets = [snippet for snippet in snippets if "import torch" not in snippet]
        self.assertTrue(snippets)
        names, here = {}, os.getcwd()
        os.chdir(FILES / "hex8_2p")
        self.addCleanup(os.chdir, here)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            for snippet in snippets:
                exec(snippet, names)
        self.assertIn("(2, ", said.getvalue())


if __name__ == "__main__":
    unittest.main()
