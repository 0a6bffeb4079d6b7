"""Against a running manager: `RINGRIFT_DATA_DIR=DIR python3 -m unittest discover -s clients/python/tests`.

`cargo nextest run -p ringrift python` starts one and does that.
"""

import asyncio
import os
import re
import sys
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
        refused(409, "not built yet", self.dm.start, "S3_BACKUP")
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


if __name__ == "__main__":
    os.environ.setdefault("RINGRIFT_DATA_DIR", "ringrift-data")
    unittest.main()
