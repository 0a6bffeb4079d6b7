"""Network files: safetensors with a header of ours, as `crates/ringrift-player/src/weights.rs` reads and writes them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Dict, Iterable, Tuple, Union

import numpy as np
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from . import Refused

Path = Union[str, "os.PathLike[str]"]

FORMAT = "nnue-pv-2"
#: Key of our JSON text in the safetensors header; a single key keeps the bytes of equal networks equal.
HEADER_KEY = "ringrift"

#: Names of the tensors of a network, and their shapes in features, move rows and widths.
SHAPES: Dict[str, Tuple[str, ...]] = {
    "features.weight": ("features", "accumulator"),
    "features.bias": ("accumulator",),
    "hidden.weight": ("accumulator", "hidden"),
    "hidden.bias": ("hidden",),
    "value.weight": ("hidden",),
    "auxiliary.weight": ("hidden", "auxiliary"),
    "auxiliary.bias": ("auxiliary",),
    "policy.weight": ("accumulator", "policy"),
    "policy.bias": ("policy",),
    "moves.weight": ("rows", "policy"),
    "moves.bias": ("rows",),
}


@dataclass(frozen=True)
class Header:
    """What stands in the header of a network file."""

    format: str
    encoder: str
    rules: str
    config: str
    generation: int


@dataclass(frozen=True)
class Weights:
    """A network as numbers: its header, and its tensors by name."""

    header: Header
    tensors: Dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Reads a network file; like the program itself it ignores tensors and header fields that it does not know."""
        text, tensors = read_tensors(path, SHAPES)
        try:
            found = json.loads(text)
            header = Header(**{field.name: found[field.name] for field in fields(Header)})
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(f"{path} is damaged: its header is unreadable: {error}") from None
        if header.format != FORMAT:
            raise Refused(f"{path} has format {header.format!r}, this program needs {FORMAT!r}")
        _check_shapes(path, tensors)
        return cls(header, tensors)

    def to_bytes(self) -> bytes:
        """The file; equal networks give equal bytes, and those that the program itself would write."""
        for name, tensor in self.tensors.items():
            if not np.isfinite(tensor).all():
                raise Refused(f"tensor {name} contains a number that is not finite: the training diverged")
        header = json.dumps(asdict(self.header), separators=(",", ":"))
        return tensor_bytes(header, {name: self.tensors[name] for name in SHAPES})

    @property
    def features(self) -> int:
        """Number of features that it has rows for."""
        return len(self.tensors["features.weight"])

    @property
    def rows(self) -> int:
        """Number of rows that its moves are made of."""
        return len(self.tensors["moves.weight"])


def read_tensors(path: Path, names: Iterable[str]) -> Tuple[str, Dict[str, np.ndarray]]:
    """Header text and the named tensors of a safetensors file of ours: networks, and checkpoints, which have more."""
    try:
        with safe_open(os.fspath(path), framework="np") as file:
            header = (file.metadata() or {}).get(HEADER_KEY)
            there = set(file.keys())
            if header is None:
                raise Refused(f"{path} is damaged: it has no {HEADER_KEY!r} header")
            tensors = {}
            for name in names:
                if name not in there:
                    raise Refused(f"{path} is damaged: it has no tensor {name}")
                if file.get_slice(name).get_dtype() != "F32":
                    raise Refused(f"{path} is damaged: tensor {name} is not of type f32")
                tensors[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise Refused(f"{path} is damaged: {error}") from None
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise Refused(f"tensor {name} of {path} contains a number that is not finite")
    return header, tensors


def tensor_bytes(header: str, tensors: Dict[str, np.ndarray]) -> bytes:
    """A safetensors file of ours; equal input gives equal bytes."""
    plain = {name: np.ascontiguousarray(tensor, "<f4") for name, tensor in tensors.items()}
    return save(plain, metadata={HEADER_KEY: header})


def hash_of(data: bytes) -> str:
    """The name of some bytes: their BLAKE3, hexadecimal."""
    return blake3(data).hexdigest()


def _check_shapes(path: Path, tensors: Dict[str, np.ndarray]) -> None:
    # The widths are those of the file itself: that they are the program's own, the program checks.
    lengths: Dict[str, int] = {}
    for name, wanted in SHAPES.items():
        found = tensors[name].shape
        if len(found) == len(wanted):
            for axis, length in zip(wanted, found):
                lengths.setdefault(axis, length)
        right = tuple(lengths.get(axis, 0) for axis in wanted)
        if found != right:
            raise Refused(f"tensor {name} of {path} has shape {list(found)}, not {list(right)}")
