# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of node-power that do more than to write a request down."""

from __future__ import annotations

import json
import os
import sys
import syslog
import time
from pathlib import Path

from .._errors import HpcError
from .host import Refused, answers, parse_request
from .member import become_a_member, plain_run

__all__ = ["clear", "join", "reconcile", "reset", "serve", "status", "work"]

HOST_SETTINGS = Path("/etc/turnkey/node-power/host.json")


def work(arguments: list[str]) -> int:
    """Carry out the requests."""
    from .worker import Place, Worker

    del arguments
    Worker(Place(), plain_run).work()
    return 0


def reconcile(arguments: list[str]) -> int:
    """Compare Slurm with the machines."""
    from . import worker

    del arguments
    worker.reconcile(worker.Worker(worker.Place(), plain_run))
    return 0


def status(arguments: list[str]) -> int:
    """Show what there is."""
    from .slurm_side import Scontrol
    from .status import overview, table
    from .worker import Place, remembered

    if arguments not in ([], ["--json"]):
        raise HpcError(f"status takes --json or nothing, not {arguments[0]!r}.")
    place = Place()
    found = overview(place.load(), remembered(place), Scontrol(plain_run).nodes(), time.time())
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if arguments else table(found))
    return 0


def reset(arguments: list[str]) -> int:
    """Open a partition again."""
    from .worker import Place, Worker

    with Worker(Place(), plain_run).engine() as engine:
        known = engine.reset(arguments[0])
    sys.stdout.write(f"{arguments[0]} is open{'' if known else ', and was'}.\n")
    return 0


def clear(arguments: list[str]) -> int:
    """Remove all machines that this host has made."""
    from .providers import machines_of

    del arguments
    machines, _allowed = machines_of(json.loads(HOST_SETTINGS.read_text(encoding="utf-8")))
    failed = [answer for answer in machines.clear() if "code" in answer]
    if failed:
        raise HpcError(f"{failed[0]['node']} could not be removed: {failed[0]['text']}")
    return 0


def serve(arguments: list[str]) -> int:
    """Answer a controller. The request is what SSH says that was asked for, not an argument."""
    from .providers import machines_of

    del arguments
    syslog.openlog("node-power", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    peer = os.environ.get("SSH_CONNECTION", "-").split(" ")[0]
    text = os.environ.get("SSH_ORIGINAL_COMMAND", "")

    def log(event: str, **values: object) -> None:
        syslog.syslog(syslog.LOG_INFO, f"from={peer} event={event} {json.dumps(values)[:900]}")

    try:
        machines, allowed = machines_of(json.loads(HOST_SETTINGS.read_text(encoding="utf-8")))
        # What exists may be removed, also when its kind was taken out of the configuration.
        names = {**allowed, **machines.status()} if text.startswith("suspend ") else allowed
        request = parse_request(text, names)
    except Refused as error:
        syslog.syslog(syslog.LOG_WARNING, f"from={peer} event=refused {json.dumps(error.what)[:300]}")
        sys.stderr.write("refused\n")
        return 3
    except HpcError as error:
        sys.stdout.write(json.dumps({"error": {"code": "HostFailed", "text": str(error)}}) + "\n")
        return 0
    for answer in answers(request, machines, log):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


def join(arguments: list[str]) -> int:
    """Become a node; what that takes comes on the standard input."""
    del arguments
    become_a_member(json.load(sys.stdin.buffer), plain_run)
    return 0
