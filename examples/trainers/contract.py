"""The worker contract, for trainers in Python. Needs numpy and nothing else.

A worker reads one JSON line from stdin, the job; stdin then stays open, and its end means that the parent died.
It answers in JSON lines on stdout and logs on stderr; it writes only into the job's folder. Exit codes: 0 done,
75 try again, 125 never again.
"""

import json
import os
import signal
import struct
import sys
import threading

import numpy as np

CONTRACT = 1
TRY_AGAIN, NEVER_AGAIN = 75, 125


class Refused(Exception):
    """The job cannot be done, now or ever."""


class Worker:
    """One job: what to do, what to say, whether to stop."""

    def __init__(self):
        self.job = json.loads(sys.stdin.readline())
        if self.job.get("contract") != CONTRACT:
            raise Refused(f"this worker speaks contract {CONTRACT}, the job is of {self.job.get('contract')}")
        self.train = self.job["job"]
        if self.train["kind"] != "train":
            raise Refused(f"this worker trains; it cannot do '{self.train['kind']}'")
        self.stopping = False
        self._lock = threading.Lock()
        signal.signal(signal.SIGTERM, self._stop)
        threading.Thread(target=self._watch_parent, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def input(self, hash_):
        """Path of an input."""
        return self.job["inputs"][hash_]

    def progress(self, done, total, note):
        self._say({"type": "progress", "done": done, "total": total, "note": note})

    def hand_over(self, role, name, data):
        """Writes a file into the job's folder and hands it over."""
        path = os.path.join(self.job["dir"], name)
        with open(path + ".part", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".part", path)
        self._say({"type": "artefact", "role": role, "file": name, "hash": blake3(data), "bytes": len(data)})

    def report(self, **figures):
        self._say({"type": "result", "report": figures})

    def _say(self, line):
        with self._lock:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def _stop(self, *_):
        self.stopping = True

    def _beat(self):
        while not threading.Event().wait(5):
            self._say({"type": "beat"})

    def _watch_parent(self):
        while os.read(0, 4096):
            pass
        os._exit(1)  # the parent died: nobody waits for a result


def main(train):
    """Runs a trainer: `train(worker)` hands over `weights` and reports."""
    try:
        train(Worker())
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(NEVER_AGAIN)
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(TRY_AGAIN)


class Window:
    """A training window, as NPZ without pickle."""

    def __init__(self, path):
        arrays = np.load(path, allow_pickle=False)
        self.meta = json.loads(arrays["meta"].tobytes())
        self.feature_offsets = arrays["feature_offsets"]
        self.features = arrays["features"].astype(np.int64)
        self.views = arrays["feature_views"].astype(np.int64)
        self.results = arrays["result_values"]
        self.searches = arrays["search_values"]
        self.policy_offsets = arrays["policy_offsets"]
        self.policy_rows = arrays["policy_rows"].astype(np.int64)
        self.policy_values = arrays["policy_values"]
        self.game = arrays["game"]
        if self.views.shape[0] != 2:
            raise Refused("these examples train two-player configurations only")

    def __len__(self):
        return len(self.game)

    def split(self, share, seed):
        """Rows for training and for validation, divided by game."""
        games = np.unique(self.game)
        np.random.default_rng(seed).shuffle(games)
        held = games[: max(1, int(len(games) * share))]
        validation = np.isin(self.game, held)
        return np.flatnonzero(~validation), np.flatnonzero(validation)

    def batch(self, rows):
        """Ragged parts of some rows: features per view with their row, moves with their row, targets."""
        feature_row, features = ragged(self.feature_offsets, rows, self.features)
        move_row, moves = ragged(self.policy_offsets, rows, np.arange(len(self.policy_values)))
        value = 0.7 * self.results[rows, 0] + 0.3 * self.searches[rows, 0]
        return {
            "size": len(rows),
            "feature_row": feature_row,
            "views": [self.views[0][features], self.views[1][features]],
            "move_row": move_row,
            "moves": self.policy_rows[moves],
            "target": self.policy_values[moves],
            "value": value,
        }


def ragged(offsets, rows, values):
    """Concatenates `values[offsets[r]:offsets[r+1]]` of the rows; also which row each belongs to."""
    lengths = offsets[rows + 1] - offsets[rows]
    owner = np.repeat(np.arange(len(rows)), lengths)
    start = np.repeat(offsets[rows] - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
    return owner, values[start + np.arange(len(owner))]


def read_safetensors(path):
    """Header text of ours, and the tensors."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    text = header.pop("__metadata__")["ringrift"]
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"]).copy()
    return text, tensors


def write_safetensors(text, tensors):
    """The bytes of a file with our header text."""
    header, body, offset = {"__metadata__": {"ringrift": text}}, [], 0
    for name in sorted(tensors):
        raw = np.ascontiguousarray(tensors[name], "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + len(raw)]}
        body.append(raw)
        offset += len(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(body)


def next_generation(text, generation):
    """The parent's header with another generation: encoder, rules and configuration stay."""
    header = json.loads(text)
    header["generation"] = generation
    return json.dumps(header, separators=(",", ":"))


IV = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32
)
ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def blake3(data):
    """BLAKE3 of some bytes, hexadecimal; all chunks side by side in numpy."""
    chunks = max(1, -(-len(data) // 1024))
    block = np.frombuffer(data.ljust(chunks * 1024, b"\0"), "<u4").reshape(chunks, 16, 16)
    length = np.full(chunks, 1024)
    length[-1] = len(data) - 1024 * (chunks - 1)
    blocks = np.maximum(1, -(-length // 64))
    chain = np.tile(IV, (chunks, 1))
    counter = np.arange(chunks)
    single = chunks == 1
    for index in range(16):
        active = np.flatnonzero(blocks > index)
        if not len(active):
            break
        last = blocks[active] - 1 == index
        flags = np.where(last, CHUNK_END | (ROOT if single else 0), 0) | (CHUNK_START if index == 0 else 0)
        used = np.where(last, length[active] - 64 * index, 64)
        chain[active] = compress(chain[active], block[active, index], counter[active], used, flags)
    while len(chain) > 1:
        pairs = len(chain) // 2
        root = ROOT if len(chain) == 2 else 0
        merged = compress(
            np.tile(IV, (pairs, 1)),
            chain[: 2 * pairs].reshape(pairs, 16),
            np.zeros(pairs, np.int64),
            np.full(pairs, 64),
            np.full(pairs, PARENT | root),
        )
        chain = np.concatenate([merged, chain[2 * pairs :]])
    return chain[0].astype("<u4").tobytes().hex()


def compress(chain, message, counter, length, flags):
    """One compression of many blocks; returns the first half of each state."""
    state = np.empty((16, len(chain)), np.uint32)
    state[:8], state[8:12] = chain.T, IV[:4, None]
    state[12], state[13] = counter & 0xFFFFFFFF, counter >> 32
    state[14], state[15] = length, flags
    words = message.T.astype(np.uint32)

    def mix(a, b, c, d, x, y):
        state[a] += state[b] + x
        state[d] = rotate(state[d] ^ state[a], 16)
        state[c] += state[d]
        state[b] = rotate(state[b] ^ state[c], 12)
        state[a] += state[b] + y
        state[d] = rotate(state[d] ^ state[a], 8)
        state[c] += state[d]
        state[b] = rotate(state[b] ^ state[c], 7)

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, words[2 * i], words[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, words[8 + 2 * i], words[9 + 2 * i])
        words = words[ORDER]
    return (state[:8] ^ state[8:]).T


def rotate(word, bits):
    return (word >> np.uint32(bits)) | (word << np.uint32(32 - bits))
