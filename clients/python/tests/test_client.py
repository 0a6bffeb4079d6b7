"""Against a running manager: `RINGRIFT_DATA_DIR=DIR python3 -m unittest discover -s clients/python/tests`.

`cargo nextest run -p ringrift python` starts one and does that.
"""

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

from ringrift_client import AsyncDaemonManager, DaemonManager, DaemonType, RequestFailed, get_daemon_manager  # noqa: E402


def wait_for(what, condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"waited a minute for {what}")


class Client(unittest.TestCase):
    def setUp(self):
        self.dm = get_daemon_manager()

    def state(self, name):
        return self.dm.get_daemon_info(name).state

    def test_a_daemon_is_started_paused_restarted_and_stopped(self):
        started = self.dm.start(DaemonType.AUTO_SYNC)
        self.assertIn("AUTO_SYNC", started["started"] + started["running_already"])
        wait_for("AUTO_SYNC to run", lambda: self.state("AUTO_SYNC") == "running")
        self.assertEqual(self.dm.pause("AUTO_SYNC"), {"paused": "AUTO_SYNC"})
        wait_for("the pause to show", lambda: "operator" in (self.dm.get_daemon_health("AUTO_SYNC")["message"] or ""))
        self.assertEqual(self.dm.resume("AUTO_SYNC"), {"resumed": "AUTO_SYNC"})
        self.assertEqual(self.dm.restart("AUTO_SYNC"), {"restarted": "AUTO_SYNC"})
        wait_for("it to run again", lambda: self.state("AUTO_SYNC") == "running")
        self.assertEqual(self.dm.stop("AUTO_SYNC"), {"stopped": "AUTO_SYNC"})
        info = self.dm.get_daemon_info("auto_sync")
        self.assertEqual((info.name, info.state, info.restart_count, info.last_error), ("AUTO_SYNC", "stopped", 0, None))

    def test_health_is_told_of_one_and_of_all(self):
        # Running is not yet "has told something": the first result comes with the first cycle.
        wait_for("a first result", lambda: self.dm.get_daemon_health(DaemonType.EVENT_ROUTER)["details"])
        health = self.dm.get_daemon_health(DaemonType.EVENT_ROUTER)
        self.assertIn(health["status"], ("healthy", "degraded"))
        self.assertIn("routed", health["details"])
        everything = self.dm.get_all_daemon_health()
        self.assertEqual(len(everything), 89)
        self.assertEqual(everything["HEALTH_CHECK"]["state"], "stopped")
        self.assertTrue(self.dm.liveness_probe())

    def test_the_registry_is_told_by_category(self):
        self.assertEqual(len(self.dm.get_daemons_by_category("sync")), 14)
        self.assertEqual(self.dm.get_daemons_by_category("nothing"), [])
        self.assertEqual(self.dm.validate_registry(), [])

    def test_a_refusal_is_the_managers_sentence(self):
        def refused(status, part, call, *args, **kwargs):
            with self.assertRaises(RequestFailed) as caught:
                call(*args, **kwargs)
            self.assertEqual(caught.exception.status, status)
            self.assertRegex(str(caught.exception), part)

        refused(404, "did you mean AUTO_SYNC", self.dm.start, DaemonType.AUTO_SINK)
        refused(404, "did you mean AUTO_SYNC", self.dm.get_daemon_info, "AUTO_SINK")
        refused(404, "did you mean training", self.dm.start, profile="trainin")
        refused(404, "unknown daemon", self.dm.get_daemon_info, "a/../b?c")
        refused(409, "not built yet", self.dm.start, "DISTILLATION")
        refused(409, "nothing to retry", self.dm.retry, "EVENT_ROUTER")
        refused(401, "run/token", DaemonManager(token="wrong").stop, "EVENT_ROUTER")
        with self.assertRaises(ValueError):
            self.dm.start("AUTO_SYNC", all=True)

    def test_nobody_there_is_said_and_is_not_alive(self):
        nobody = DaemonManager(data="nowhere")
        self.assertFalse(nobody.liveness_probe())
        with self.assertRaisesRegex(FileNotFoundError, "no manager is running on nowhere"):
            nobody.get_all_daemon_health()
        self.assertFalse(DaemonManager(url="http://127.0.0.1:1").liveness_probe())

    def test_the_same_calls_can_be_awaited(self):
        async def ask():
            dm = AsyncDaemonManager()
            return await dm.get_daemon_health(DaemonType.EVENT_ROUTER), await dm.liveness_probe()

        health, alive = asyncio.run(ask())
        self.assertIn(health["status"], ("healthy", "degraded"))
        self.assertTrue(alive)

    def test_every_snippet_of_the_readme_runs(self):
        of_the_manager = (HERE / "README.md").read_text().split("\n## Learning\n")[0]
        snippets = re.findall(r"```python\n(.*?)```", of_the_manager, re.DOTALL)
        self.assertEqual(len(snippets), 5)
        names = {}
        for snippet in snippets:
            exec(snippet, names)
        asyncio.run(names["main"]())


class LearningCurve(unittest.TestCase):
    """examples/learning_curve.py, as a program."""

    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)

    def draw(self, data, *more):
        command = [sys.executable, "-B", str(HERE / "examples" / "learning_curve.py"), str(data), *more]
        path = {**os.environ, "PYTHONPATH": str(HERE)}
        return subprocess.run(command, cwd=self.place, env=path, capture_output=True, text=True)

    def refused(self, part, data, *more):
        ended = self.draw(data, *more)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), ended.stderr)
        self.assertIn(part, ended.stderr)
        self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)

    def run_of(self, **changes):
        rating = {"player": "ab@64", "elo": 210.5, "low": 150.0, "high": 280.0, "games": 200}
        points = [{"seconds": 30.0, "rating": None}, {"seconds": 90.0, "rating": rating}]
        run = {"config": "square8_2p", "points": points, **changes}
        folder = self.place / "runs" / "square8_2p-seed1-1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps({key: value for key, value in run.items() if value is not None}))
        return folder

    def test_a_run_becomes_a_table_or_a_picture(self):
        ended = self.draw(self.run_of(), "--csv")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(
            ended.stdout.splitlines(),
            ["config,model,minutes,elo,elo_low,elo_high,games", "square8_2p,ab@64,1.5,210.5,150.0,280.0,200"],
        )
        self.assertEqual(self.draw(self.place, "--csv").stdout, ended.stdout)
        if importlib.util.find_spec("matplotlib") is None:
            self.refused("matplotlib is absent", self.place)
        else:
            self.assertEqual(self.draw(self.place, "--out", "curve.svg").returncode, 0)
            self.assertIn("<svg", (self.place / "curve.svg").read_text())

    def test_a_run_that_cannot_be_drawn_is_one_sentence(self):
        self.refused("the run has no 'points'", self.run_of(points=None), "--csv")
        self.refused("an iteration has no 'rating'", self.run_of(points=[{"seconds": 1}]), "--csv")
        self.refused("no network of this run has a match yet", self.run_of(points=[]), "--csv")
        self.refused("is a run of square8_2p, not of hex8_2p", self.run_of(), "--csv", "--config", "hex8_2p")
        (self.place / "runs" / "other").mkdir()
        (self.place / "runs" / "other" / "run.json").write_text("{}")
        self.refused("has 2 runs: name one of", self.place, "--csv")

    def test_a_manager_without_matches_says_so(self):
        data = Path(os.environ["RINGRIFT_DATA_DIR"])
        self.refused("no model of hex8_2p has a match yet", data, "--csv")
        self.assertEqual(get_daemon_manager().get_ratings("hex8_2p"), {"hex8_2p": {"anchor": None, "models": [], "others": []}})
        self.refused("hex9_2p", data, "--csv", "--config", "hex9_2p")
        self.refused("no manager is running on nowhere", "nowhere")


if __name__ == "__main__":
    os.environ.setdefault("RINGRIFT_DATA_DIR", "ringrift-data")
    unittest.main()
