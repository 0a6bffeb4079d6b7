"""Draws how strong the models became: `learning_curve.py DATA`.

DATA is the data directory of a running manager, the folder of a run of `ringrift train`, or the data directory of one that was kept.
Ratings are in Elo with 95 % intervals, with the anchor (`random`, or the first model) at 0. Needs matplotlib for a picture
(`--out curve.png`), and nothing for `--csv`.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from ringrift_client import DaemonManager, RequestFailed


class Point(NamedTuple):
    """A model and its rating; `place` is minutes of a run, or the generation of a manager's model."""

    config: str
    model: str
    place: float
    elo: float
    elo_low: float
    elo_high: float
    games: int


class Missing(Exception):
    """There is nothing to draw; the text says why."""


def find_run(data: Path) -> Optional[Path]:
    """The report of the run that lies there; none where a manager has to be asked."""
    runs = [path for path in (data / "run.json", *sorted(data.glob("runs/*/run.json"))) if path.exists()]
    if not runs or (data / "run" / "port").exists():
        return None
    if len(runs) > 1:
        raise Missing(f"{data} has {len(runs)} runs: name one of {', '.join(str(run.parent) for run in runs)}")
    return runs[0]


def of_manager(data: str, config: Optional[str]) -> List[Point]:
    """Models that a running manager has rated."""
    ratings = DaemonManager(data).get_ratings(config)
    points = [
        Point(name, model["id"], model["generation"], *(model[key] for key in ("elo", "elo_low", "elo_high", "games")))
        for name, curve in ratings.items()
        for model in curve["models"]
    ]
    if not points:
        raise Missing(f"no model of {', '.join(ratings) or 'any configuration'} has a match yet, so none has a rating")
    return points


def of_run(path: Path, config: Optional[str]) -> List[Point]:
    """The champion of each iteration of a run, as it was rated then."""
    run = json.loads(path.read_text())

    def need(of: Dict[str, Any], key: str, what: str) -> Any:
        if key not in of:
            raise Missing(f"{path}: {what} has no {key!r}, so it is of another version than this example")
        return of[key]

    name = need(run, "config", "the run")
    if config not in (None, name):
        raise Missing(f"{path} is a run of {name}, not of {config}")
    points = []
    for iteration in need(run, "points", "the run"):
        rating = need(iteration, "rating", "an iteration")
        if rating is not None:
            figures = [need(rating, key, "a rating") for key in ("player", "elo", "low", "high", "games")]
            minutes = need(iteration, "seconds", "an iteration") / 60
            points.append(Point(name, figures[0], minutes, *figures[1:]))
    if not points:
        raise Missing(f"{path}: no network of this run has a match yet, so none has a rating")
    return points


def write_csv(points: List[Point], place: str) -> None:
    table = csv.writer(sys.stdout)
    table.writerow([place if field == "place" else field for field in Point._fields])
    table.writerows(points)


def draw(points: List[Point], place: str, out: str) -> None:
    try:
        import matplotlib
    except ImportError:
        raise Missing("matplotlib is absent: pip install matplotlib, or use --csv") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    for config in dict.fromkeys(point.config for point in points):
        of = [point for point in points if point.config == config]
        places = [point.place for point in of]
        (line,) = pyplot.plot(places, [point.elo for point in of], marker="o", label=config)
        low, high = [point.elo_low for point in of], [point.elo_high for point in of]
        pyplot.fill_between(places, low, high, alpha=0.2, color=line.get_color())
    pyplot.xlabel(place)
    pyplot.ylabel("Elo, with 95 % interval")
    pyplot.grid(alpha=0.3)
    pyplot.legend()
    pyplot.savefig(out, dpi=150)
    print(f"{len(points)} ratings drawn to {out}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data directory of a running manager, or folder of a run of `ringrift train`")
    parser.add_argument("--config", help="only this configuration, such as hex8_2p")
    parser.add_argument("--out", default="learning_curve.png", help="the picture; its ending decides its format")
    parser.add_argument("--csv", action="store_true", help="print the points instead")
    asked = parser.parse_args()
    try:
        run = find_run(Path(asked.data))
        points = of_run(run, asked.config) if run else of_manager(asked.data, asked.config)
        place = "minutes" if run else "generation"
        write_csv(points, place) if asked.csv else draw(points, place, asked.out)
    except (Missing, RequestFailed, OSError, json.JSONDecodeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
