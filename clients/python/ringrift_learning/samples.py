"""Sample files and training windows: NPZ without pickle, described in `crates/ringrift-learn/src/samples.rs`."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, fields
from typing import BinaryIO, Dict, Iterator, List, Optional, Tuple

import numpy as np

from . import Refused
from .weights import Path, Weights

FORMAT = "ringrift-samples-2"

#: Type and dimensions of every array.
ARRAYS: Dict[str, Tuple[str, int]] = {
    "feature_offsets": ("<i8", 1),
    "features": ("<i4", 1),
    "feature_views": ("<i4", 2),
    "feature_turns": ("<i4", 2),
    "row_turns": ("<i4", 2),
    "feature_classes": ("<i4", 1),
    "row_classes": ("<i4", 1),
    "result_values": ("<f4", 2),
    "search_values": ("<f4", 2),
    "policy_offsets": ("<i8", 1),
    "policy_rows": ("<u2", 2),
    "policy_values": ("<f4", 1),
    "mover": ("|i1", 1),
    "phase": ("|i1", 1),
    "move_number": ("<i4", 1),
    "game": ("<i4", 1),
    "game_fingerprints": ("<i8", 1),
    "game_lengths": ("<i4", 1),
    "game_territory": ("<f4", 2),
    "game_eliminated": ("<f4", 2),
    "game_reasons": ("|i1", 1),
}

#: Reasons a game can end for; the last two are no play: resignation, and time that ran out.
REASONS = 6

#: What reading a damaged file raises.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError)


@dataclass(frozen=True)
class Meta:
    """What a sample file says about itself."""

    format: str
    encoder: str
    rules: str
    config: str
    rows: int
    policies: int
    games: int
    sources: List[str]


@dataclass(frozen=True)
class Batch:
    """Some rows, ragged parts as offsets and values: those of row i lie at `offsets[i]:offsets[i + 1]`."""

    #: Which rows of the samples these are.
    rows: np.ndarray
    feature_offsets: np.ndarray
    #: Features that are on, one line per seat as that seat sees them, the mover's first.
    features: np.ndarray
    #: Legal moves; none where the search was a fast one.
    policy_offsets: np.ndarray
    #: The rows of the network that make up each move.
    policy_rows: np.ndarray
    #: The target probability of each move.
    policy_values: np.ndarray

    def owners(self) -> np.ndarray:
        """For each move, its row in this batch."""
        return np.repeat(np.arange(len(self.rows)), np.diff(self.policy_offsets))

    def __len__(self) -> int:
        return len(self.rows)


class Samples:
    """The rows of one sample file or window, in memory."""

    def __init__(self, meta: Meta, arrays: Dict[str, np.ndarray]):
        self.meta = meta
        self.arrays = arrays
        self.features, self.views = arrays["features"], arrays["feature_views"]
        self.feature_offsets, self.policy_offsets = arrays["feature_offsets"], arrays["policy_offsets"]
        self.policy_rows, self.policy_values = arrays["policy_rows"], arrays["policy_values"]
        # Images instead of differences: a batch looks them up.
        self.feature_images = arrays["feature_turns"] + np.arange(self.views.shape[1])
        self.row_images = arrays["row_turns"] + np.arange(arrays["row_turns"].shape[1])
        #: How each game ended, and what the search thought: utilities, a line per row, the mover's seat first.
        self.results, self.opinions = arrays["result_values"], arrays["search_values"]
        self.mover, self.game = arrays["mover"], arrays["game"]

    @classmethod
    def read(cls, path: Path) -> Samples:
        """Reads a file and checks that every number in it can be used."""
        try:
            with open(path, "rb") as file:
                npz = _open(file)
                meta = _meta(npz)
                samples = cls(meta, {name: _array(npz, name) for name in ARRAYS})
                samples._check()
        except Refused as refusal:
            raise Refused(f"{path}: {refusal}") from None
        except _DAMAGE as error:
            raise Refused(f"{path} is damaged: {error}") from None
        return samples

    def __len__(self) -> int:
        return len(self.mover)

    @property
    def seats(self) -> int:
        """Players of the game."""
        return len(self.views)

    @property
    def symmetries(self) -> int:
        """Symmetries of the board."""
        return len(self.feature_images)

    def check_fits(self, weights: Weights, config: Optional[str] = None) -> None:
        """Refuses a network made for other features, rules or games than these, and another config than the one that is asked for."""
        header, meta = weights.header, self.meta
        pairs = [
            ("encoder", meta.encoder, header.encoder),
            ("rules version", meta.rules, header.rules),
            ("config", meta.config, header.config),
            ("config", meta.config, config or meta.config),
            ("number of features", self.views.shape[1], weights.features),
            ("number of move rows", self.row_images.shape[1], weights.rows),
        ]
        for what, found, wanted in pairs:
            if found != wanted:
                raise Refused(f"the samples have {what} {found!r}, the network needs {wanted!r}")

    def split(self, share: float) -> Tuple[np.ndarray, np.ndarray]:
        """Rows to learn from and rows to measure on, divided by game: the same games as the built-in trainer keeps out."""
        place = self.arrays["game_fingerprints"].view(np.uint64) % np.uint64(10_000) / 10_000.0
        kept_out = (place < share)[self.game]
        return np.flatnonzero(~kept_out), np.flatnonzero(kept_out)

    def value_targets(self, decay: float) -> np.ndarray:
        """Per game, from its end backwards: (1 - decay) * opinion of the search + decay * target of the next row.

        0 takes the search's opinion of the position itself, 1 the end of the game (TD-lambda, Sutton 1988).
        """
        order = np.argsort(self.game, kind="stable")
        last = np.append(self.game[order][1:] != self.game[order][:-1], True)
        # How many rows of its game come after each row; all games take the same step back together.
        ends = np.flatnonzero(last)
        after = ends[np.searchsorted(ends, np.arange(len(order)))] - np.arange(len(order))
        targets = self.results.copy()
        seats = np.arange(self.seats)
        for distance in range(1, int(after.max(initial=0)) + 1):
            place = np.flatnonzero(after == distance)
            here, following = order[place], order[place + 1]
            # The same seat as the mover of the next row sees it.
            turn = self.mover[here].astype(np.int64) - self.mover[following]
            later = targets[following[:, None], (seats + turn[:, None]) % self.seats]
            targets[here] = (1 - decay) * self.opinions[here] + decay * later
        return targets.astype(np.float32)

    def batch(self, rows: np.ndarray, symmetries: Optional[np.ndarray] = None) -> Batch:
        """Some rows, each through a symmetry of the board if there are any given."""
        feature_offsets, chosen = _ragged(self.feature_offsets, rows)
        policy_offsets, moves = _ragged(self.policy_offsets, rows)
        features, policy_rows = self.features[chosen].astype(np.int64), self.policy_rows[moves].astype(np.int64)
        if symmetries is not None:
            features = self.feature_images[np.repeat(symmetries, np.diff(feature_offsets)), features]
            policy_rows = self.row_images[np.repeat(symmetries, np.diff(policy_offsets))[:, None], policy_rows]
        views = self.views[:, features].astype(np.int64)
        return Batch(rows, feature_offsets, views, policy_offsets, policy_rows, self.policy_values[moves])

    def batches(self, rows: np.ndarray, size: int, seed: int, first: int = 0) -> Iterator[Batch]:
        """Endless batches of shuffled passes over `rows`, each row through a symmetry of the board drawn for it.

        Batch number i depends on the seed and on i alone, so that a training that was interrupted can go on with `first`.
        """
        number, order, known = first, rows, -1
        while True:
            places = np.arange(number * size, (number + 1) * size)
            drawn = np.empty(size, np.int64)
            for turn in np.unique(places // len(rows)):
                if turn != known:
                    order, known = np.random.default_rng([seed, 0, int(turn)]).permutation(rows), turn
                of_turn = places // len(rows) == turn
                drawn[of_turn] = order[places[of_turn] % len(rows)]
            yield self.batch(drawn, np.random.default_rng([seed, 1, number]).integers(self.symmetries, size=size))
            number += 1

    def _check(self) -> None:
        """Refuses what would index out of range or poison training."""
        rows, moves = len(self), len(self.policy_rows)
        features, network_rows = self.views.shape[1], self.row_images.shape[1]
        games = len(self.arrays["game_fingerprints"])
        if rows != self.meta.rows:
            raise Refused(f"it has {rows} rows, its header says {self.meta.rows}")
        if not self.meta.config.endswith(f"_{self.seats}p"):
            raise Refused(f"it has {self.seats} seats, its config is {self.meta.config!r}")
        _check_offsets("feature_offsets", self.feature_offsets, rows, len(self.features))
        _check_offsets("policy_offsets", self.policy_offsets, rows, moves)
        shapes = {
            "result_values": (rows, self.seats),
            "search_values": (rows, self.seats),
            "policy_rows": (moves, self.policy_rows.shape[1]),
            "policy_values": (moves,),
            "phase": (rows,),
            "move_number": (rows,),
            "game": (rows,),
            "game_lengths": (games,),
            "game_territory": (games, self.seats),
            "game_eliminated": (games, self.seats),
            "game_reasons": (games,),
            "feature_turns": (self.symmetries, features),
            "row_turns": (self.symmetries, network_rows),
            "feature_classes": (features,),
            "row_classes": (network_rows,),
        }
        for name, wanted in shapes.items():
            if self.arrays[name].shape != wanted:
                raise Refused(f"{name} has shape {list(self.arrays[name].shape)} instead of {list(wanted)}")
        _check_below("feature", self.features, features)
        _check_below("feature of another seat", self.views, features)
        _check_below("feature of a symmetry", self.feature_images, features)
        _check_below("move row", self.policy_rows, network_rows)
        _check_below("move row of a symmetry", self.row_images, network_rows)
        _check_below("mover", self.mover, self.seats)
        _check_below("game", self.game, games)
        _check_below("reason", self.arrays["game_reasons"], REASONS)
        for name in ("game_territory", "game_eliminated"):
            wrong = self.arrays[name][~((self.arrays[name] >= 0) & (self.arrays[name] <= 1))]
            if len(wrong):
                raise Refused(f"{wrong[0]} is no share of a board or of rings")
        for values in (self.results, self.opinions):
            wrong = values[~((values >= -1) & (values <= 1))]
            if len(wrong):
                raise Refused(f"{wrong[0]} is no value of a position")
        sums = np.append(0, np.cumsum(self.policy_values, dtype=np.float64))[self.policy_offsets]
        with_policy = np.diff(self.policy_offsets) > 0
        # Rounding of a thousand probabilities stays below this.
        proper = ~with_policy | (np.abs(np.diff(sums) - 1) < 1e-2)
        if not (proper.all() and (self.policy_values >= 0).all()):
            raise Refused("a row has no proper policy: probabilities from 0 on that add up to 1")


def _open(file: BinaryIO) -> np.lib.npyio.NpzFile:
    npz = np.load(file, allow_pickle=False)
    if not isinstance(npz, np.lib.npyio.NpzFile):
        raise Refused("it is no NPZ file")
    return npz


def _meta(npz: np.lib.npyio.NpzFile) -> Meta:
    if "meta" not in npz.files:
        raise Refused("it has no header: it is no sample file")
    found = json.loads(npz["meta"].tobytes())
    if found.get("format") != FORMAT:
        raise Refused(f"its format is {found.get('format')!r}, this program needs {FORMAT!r}")
    missing = [field.name for field in fields(Meta) if field.name not in found]
    if missing:
        raise Refused(f"its header has no {missing[0]!r}")
    return Meta(**{field.name: found[field.name] for field in fields(Meta)})


def _array(npz: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    if name not in npz.files:
        raise Refused(f"it has no array {name}")
    array = npz[name]
    kind, dimensions = ARRAYS[name]
    if array.dtype != np.dtype(kind) or array.ndim != dimensions:
        wanted = f"{np.dtype(kind)} with {dimensions} dimension{'s' * (dimensions > 1)}"
        raise Refused(f"{name} is {array.dtype} with {array.ndim} dimensions, not {wanted}")
    return array


def _check_offsets(name: str, offsets: np.ndarray, rows: int, end: int) -> None:
    fits = len(offsets) == rows + 1 and offsets[0] == 0 and offsets[-1] == end and (np.diff(offsets) >= 0).all()
    if not fits:
        raise Refused(f"{name} does not fit the array it divides")


def _check_below(what: str, numbers: np.ndarray, limit: int) -> None:
    wrong = numbers[(numbers < 0) | (numbers >= limit)]
    if len(wrong):
        raise Refused(f"{what} {wrong[0]} does not exist: allowed are 0 to {limit - 1}")


def _ragged(offsets: np.ndarray, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Offsets of the chosen rows among themselves, and where their parts lie in the whole."""
    lengths = offsets[rows + 1] - offsets[rows]
    chosen = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(chosen[-1]) + np.repeat(offsets[rows] - chosen[:-1], lengths)
    return chosen, places
