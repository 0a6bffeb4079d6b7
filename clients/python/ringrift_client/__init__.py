"""Asks a running ringrift manager over HTTP. Standard library alone.

Reading needs nothing; what changes something needs the operator's token, which lies beside the port in
`run/` of the data directory. So a client of a data directory finds both by itself.
"""

import asyncio
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional
from urllib.parse import quote

__all__ = ["AsyncDaemonManager", "DaemonInfo", "DaemonManager", "DaemonType", "RequestFailed", "get_daemon_manager"]


class _Names(type):
    """Any name is taken: which ones there are, the manager knows."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class DaemonType(metaclass=_Names):
    """`DaemonType.AUTO_SYNC` is "AUTO_SYNC"; a name that does not exist is refused by the manager."""


class RequestFailed(Exception):
    """The manager refused, and says why in one sentence; `status` is that of HTTP."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class DaemonInfo:
    """What the manager knows of one daemon."""

    name: str
    category: str
    state: str
    health: str
    message: Optional[str]
    restart_count: int
    last_error: Optional[str]
    uptime_seconds: float
    critical: bool
    asked: bool
    details: Any


class DaemonManager:
    """A manager, by its data directory; `url` and `token` beat what lies there."""

    def __init__(self, data: Optional[str] = None, url: Optional[str] = None, token: Optional[str] = None, timeout: float = 65.0):
        self._run = Path(data or os.environ.get("RINGRIFT_DATA_DIR") or "ringrift-data") / "run"
        self._url, self._token, self._timeout = url, token, timeout

    # ---- what an operator changes

    def start(self, *names: str, profile: Optional[str] = None, all: bool = False) -> Dict[str, Any]:
        """Starts these and all they need, or a profile, or all; says what it started."""
        wanted = [body for body in ({"daemons": list(names)} if names else None, {"profile": profile} if profile else None, {"all": True} if all else None) if body]
        if len(wanted) != 1:
            raise ValueError("start takes names, or profile=NAME, or all=True")
        return self._post("/api/daemons/start", wanted[0])

    def stop(self, name: Optional[str] = None) -> Dict[str, Any]:
        """Stops one and waits for its end; without a name the manager and all it runs."""
        return self._post("/api/manager/stop") if name is None else self._act(name, "stop")

    def restart(self, name: str) -> Dict[str, Any]:
        """Ends one in good order and starts a fresh one."""
        return self._act(name, "restart")

    def retry(self, name: str, force: bool = False) -> Dict[str, Any]:
        """Tries one that was given up at once; with `force` its crashes are forgotten."""
        return self._act(name, "retry", {"force": force})

    def pause(self, name: str) -> Dict[str, Any]:
        """Lets one begin no new cycle until it is resumed."""
        return self._act(name, "pause")

    def resume(self, name: str) -> Dict[str, Any]:
        """Takes the operator's pause back."""
        return self._act(name, "resume")

    # ---- what is so

    def get_daemon_health(self, name: str) -> Dict[str, Any]:
        """status (healthy, degraded, unhealthy, unknown), state, message and details of one."""
        return _health(self._get(f"/api/daemons/{quote(name, safe='')}"))

    def get_all_daemon_health(self) -> Dict[str, Dict[str, Any]]:
        """The same of all, by name."""
        return {daemon["name"]: _health(daemon) for daemon in self._get("/api/daemons")}

    def get_daemon_info(self, name: str) -> DaemonInfo:
        """State, restart_count, last_error and more of one."""
        daemon = self._get(f"/api/daemons/{quote(name, safe='')}")
        return DaemonInfo(**{field.name: daemon[field.name] for field in fields(DaemonInfo)})

    def liveness_probe(self) -> bool:
        """Is every critical daemon that was asked for alive? Nobody there counts as no."""
        return self._probe("/health")

    def readiness_probe(self) -> bool:
        """Is everything that was asked for running?"""
        return self._probe("/ready")

    def get_daemons_by_category(self, category: str) -> List[str]:
        """Names in the order of the registry, retired ones too; none for an unknown category."""
        return [daemon["name"] for daemon in self._get("/api/registry")["daemons"] if daemon["category"] == category]

    def validate_registry(self) -> List[str]:
        """What is wrong with the registry; empty = valid."""
        return self._get("/api/registry")["errors"]

    def get_ratings(self, config: Optional[str] = None) -> Dict[str, Dict[str, Any]]:
        """By configuration: models, the oldest first, with elo, elo_low, elo_high and games; who is pinned at 0; others that played."""
        return self._get("/api/ratings" + (f"?config={quote(config, safe='')}" if config else ""))

    # ---- over HTTP

    def _act(self, name: str, verb: str, body: Any = None) -> Dict[str, Any]:
        return self._post(f"/api/daemons/{quote(name, safe='')}/{verb}", body)

    def _post(self, path: str, body: Any = None) -> Dict[str, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token or self._kept('token')}"}
        if data:
            headers["Content-Type"] = "application/json"
        return self._ask(urllib.request.Request(self._address() + path, data=data, headers=headers, method="POST"))

    def _get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(self._address() + path))

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            with _DIRECT.open(request, timeout=self._timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                body = json.load(refusal)
            raise RequestFailed(refusal.code, body.get("error", str(body))) from None

    def _probe(self, path: str) -> bool:
        try:
            with _DIRECT.open(self._address() + path, timeout=self._timeout) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _address(self) -> str:
        return self._url or f"http://127.0.0.1:{self._kept('port')}"

    def _kept(self, name: str) -> str:
        try:
            return (self._run / name).read_text().strip()
        except FileNotFoundError:
            raise FileNotFoundError(f"no manager is running on {self._run.parent}: there is no run/{name}") from None


# A proxy of the environment is not asked for this very machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _health(daemon: Dict[str, Any]) -> Dict[str, Any]:
    return {"status": daemon["health"], "state": daemon["state"], "message": daemon["message"], "details": daemon["details"]}


class AsyncDaemonManager:
    """The same calls to await, each on a thread of its own: `await dm.start(DaemonType.AUTO_SYNC)`."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._manager = DaemonManager(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._manager, name)
        return lambda *args, **kwargs: asyncio.to_thread(call, *args, **kwargs)


def get_daemon_manager(*args: Any, **kwargs: Any) -> DaemonManager:
    """The manager of RINGRIFT_DATA_DIR or ./ringrift-data, or of the directory that is named."""
    return DaemonManager(*args, **kwargs)
