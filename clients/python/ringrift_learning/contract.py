"""The worker contract, for trainers; written down in `crates/ringrift-pipeline/src/job.rs`.

A worker reads one JSON line from stdin, the job; stdin then stays open, and its end means that the manager died. It answers in JSON
lines on stdout and logs on stderr; it writes only into the job's folder. SIGTERM means: finish the unit in hand, hand over what is
complete, leave. Exit codes: 0 done, 75 try again, 125 never again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, Callable, Dict, NoReturn, Optional

from . import Refused
from .weights import hash_of

CONTRACT = 1
TRY_AGAIN, NEVER_AGAIN = 75, 125

#: Seconds between two signs of life; the contract asks for one every 10 s.
BEAT = 5.0
#: Work that has not moved for so long gives no more of them, so that the manager sees it as stuck.
STUCK = 300.0
#: Shortest time between two progress lines: people see no more, and a line costs the manager work.
PAUSE = 0.25


@dataclass(frozen=True)
class TrainJob:
    """What a trainer is asked to do; `parent`, `window` and `checkpoint` are the hashes of inputs."""

    candidate: str
    generation: int
    parent: str
    window: str
    steps: int
    batch: int
    learning_rate: float
    checkpoint_steps: int
    checkpoint: Optional[str]
    seed: int


class Worker:
    """One job: what to do, what to say, whether to stop."""

    def __init__(self, line: bytes, out: BinaryIO):
        job = _read_job(line)
        self.job, self.config = _train_job(job["job"]), str(job["config"])
        self.stopping = False
        self._inputs: Dict[str, str] = job["inputs"]
        self._dir: str = job["dir"]
        self._out, self._lock = out, threading.Lock()
        self._moved, self._told = time.monotonic(), 0.0

    def input(self, hash_: str) -> str:
        """Path of an input, once its bytes are what its name says."""
        if hash_ not in self._inputs:
            raise Refused(f"the job needs the input {hash_} and names no file for it")
        path = self._inputs[hash_]
        with open(path, "rb") as file:
            found = hash_of(file.read())
        if found != hash_:
            raise Refused(f"{path} has the hash {found}: it is damaged")
        self._moved = time.monotonic()
        return path

    def progress(self, done: int, total: int, note: str) -> None:
        """How far the work is; said at every step, passed on four times a second."""
        self._moved = time.monotonic()
        if done == total or self._moved - self._told >= PAUSE:
            self._told = self._moved
            self._say({"type": "progress", "done": done, "total": total, "note": note})

    def hand_over(self, role: str, name: str, data: bytes) -> None:
        """Writes a file into the job's folder and hands it over."""
        path = os.path.join(self._dir, name)
        with open(path + ".part", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".part", path)
        self._say({"type": "artefact", "role": role, "file": name, "hash": hash_of(data), "bytes": len(data)})

    def report(self, **figures: Any) -> None:
        """The last line of a job that was done to its end."""
        self._say({"type": "result", "report": figures})

    def listen(self) -> None:
        """Minds SIGTERM and the manager's death, and gives signs of life, from here on."""

        def stop(*_: Any) -> None:
            self.stopping = True

        signal.signal(signal.SIGTERM, stop)
        threading.Thread(target=self._leave_with_the_manager, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def _say(self, line: Dict[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(line).encode() + b"\n")
            self._out.flush()

    def _beat(self) -> None:
        while True:
            if time.monotonic() - self._moved < STUCK:
                try:
                    self._say({"type": "beat"})
                except OSError:
                    os._exit(TRY_AGAIN)  # nobody listens any more
            time.sleep(BEAT)

    def _leave_with_the_manager(self) -> None:
        while os.read(0, 4096):
            pass
        os._exit(TRY_AGAIN)


def run(train: Callable[[Worker], None]) -> NoReturn:
    """Runs a trainer as a worker process: `train(worker)` hands over `weights` and reports."""
    try:
        worker = Worker(sys.stdin.buffer.readline(), sys.stdout.buffer)
        worker.listen()
        train(worker)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(NEVER_AGAIN)
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(TRY_AGAIN)
    sys.exit(0)


def _read_job(line: bytes) -> Dict[str, Any]:
    try:
        job = json.loads(line)
    except ValueError as error:
        raise Refused(f"the job is no JSON line: {error}") from None
    contract = job.get("contract") if isinstance(job, dict) else None
    if contract != CONTRACT:
        raise Refused(f"the job follows version {contract} of the worker contract, this worker {CONTRACT}")
    for key in ("job", "dir", "config", "inputs"):
        if key not in job:
            raise Refused(f"the job has no {key!r}")
    return job


def _train_job(job: Dict[str, Any]) -> TrainJob:
    if job.get("kind") != "train":
        raise Refused(f"this worker trains; it cannot do {job.get('kind')!r}")
    found = {"checkpoint": None, **job, "parent": (job.get("parent") or {}).get("weights")}
    missing = [field.name for field in fields(TrainJob) if field.name not in found]
    if missing:
        raise Refused(f"the job has no {missing[0]!r}")
    wanted = TrainJob(**{field.name: found[field.name] for field in fields(TrainJob)})
    for name in ("steps", "batch", "checkpoint_steps", "learning_rate"):
        if not getattr(wanted, name) > 0:
            raise Refused(f"{name} is {getattr(wanted, name)}, not above 0")
    return wanted
