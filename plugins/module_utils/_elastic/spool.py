# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests of slurmctld, as files: it writes one and goes on. systemd starts the worker when one is there.

A request stays until it is done, so a worker that dies loses none.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence

__all__ = ["SPOOL", "claim", "finish", "pending", "submit"]

SPOOL = "/var/spool/node-power"
VERBS = ("resume", "suspend", "resume-fail")
MAX_RESUME_FILE = 16 * 2**20


def submit(verb: str, nodes: str, environment: Mapping[str, str], spool: str = SPOOL) -> str:
    """Write a request; nothing is started, waited for or left open. Return its name."""
    jobs = None
    path = environment.get("SLURM_RESUME_FILE")
    if verb == "resume" and path:
        try:
            # slurmctld removes it as soon as we are done.
            with open(path, encoding="utf-8") as stream:  # noqa: PTH123 (pathlib would double the time that this takes)
                jobs = json.loads(stream.read(MAX_RESUME_FILE)).get("jobs")
        except (OSError, ValueError, AttributeError):
            jobs = None
    request = {"verb": verb, "nodes": nodes, "jobs": jobs, "at": time.time()}
    name = f"{time.time_ns():020d}-{os.getpid()}"
    new = f"{spool}/.{name}"
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(request, stream)
    os.rename(new, f"{spool}/{name}.json")  # noqa: PTH104
    return name


def _load(path: str) -> dict[str, object] | None:
    try:
        with open(path, encoding="utf-8") as stream:  # noqa: PTH123
            found = json.load(stream)
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if isinstance(found, dict) and found.get("verb") in VERBS and isinstance(found.get("nodes"), str):
        return found
    os.unlink(path)  # noqa: PTH108
    return None


def _files(spool: str, suffixes: Sequence[str]) -> list[str]:
    try:
        names = sorted(os.listdir(spool))  # noqa: PTH208
    except FileNotFoundError:
        return []
    return [f"{spool}/{name}" for name in names if name.endswith(tuple(suffixes)) and name[0] != "."]


def claim(spool: str = SPOOL, *, again: bool = False) -> list[tuple[str, dict[str, object]]]:
    """Return the new requests, oldest first, and mark them as begun; ``again``: those that were begun, too."""
    found = []
    for path in _files(spool, (".json", ".begun") if again else (".json",)):
        request = _load(path)
        if request is None:
            continue
        begun = path.rpartition(".")[0] + ".begun"
        os.rename(path, begun)  # noqa: PTH104
        found.append((begun, request))
    return found


def pending(spool: str = SPOOL) -> list[dict[str, object]]:
    """Return all requests that are not done."""
    return [request for path in _files(spool, (".json", ".begun")) if (request := _load(path)) is not None]


def finish(path: str) -> None:
    """Forget a request that is done."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
