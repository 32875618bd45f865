# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Systemd services that run with the configuration that is on disk, however it came there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._state import STATE_DIR, Run

__all__ = ["RECORDS", "Status", "act", "calls", "look", "newest", "own_units", "plan"]

RECORDS = Path(STATE_DIR) / "services.json"
"""Where the state is kept that a service had before, so that a reset gives it back."""

PROPERTIES = "LoadState,UnitFileState,ActiveState,ActiveEnterTimestamp,NeedDaemonReload"
STAMP = "%a %Y-%m-%d %H:%M:%S.%f UTC"


@dataclass(frozen=True)
class Status:
    """What systemd says of a unit. ``since`` is the time at which it became active, in seconds since 1970."""

    exists: bool = False
    enabled: bool = False
    active: bool = False
    since: float = 0.0
    stale: bool = False


def parse(text: str) -> Status:
    """Read the output of ``systemctl show``."""
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    stamp = values.get("ActiveEnterTimestamp", "")
    return Status(
        exists=values.get("LoadState") not in (None, "", "not-found"),
        # A unit that others start, or that is generated, has no switch of its own.
        enabled=values.get("UnitFileState")
        in ("enabled", "enabled-runtime", "static", "indirect", "alias", "generated"),
        active=values.get("ActiveState") in ("active", "activating", "reloading"),
        since=datetime.strptime(stamp, STAMP).replace(tzinfo=timezone.utc).timestamp() if stamp else 0.0,
        stale=values.get("NeedDaemonReload") == "yes",
    )


def look(run: Run, names: Sequence[str]) -> dict[str, Status]:
    """Return the states of the units ``names``; on a system that systemd does not run, none of them exists."""
    argv = ["systemctl", "show", f"--property={PROPERTIES}", "--timestamp=us+utc", "--", *names]
    code, out, _err = run(argv, None)
    blocks = out.strip().split("\n\n") if code == 0 else []
    return {name: parse(block) for name, block in zip(names, blocks)} if blocks else dict.fromkeys(names, Status())


def newest(paths: Iterable[str]) -> float:
    """Return when the youngest of the files and directories in ``paths`` was changed; missing ones don't count."""
    return max((Path(path).stat().st_mtime for path in paths if Path(path).exists()), default=0.0)


def plan(status: Status, enabled: bool, active: bool, changed_at: float, units_changed: bool = False) -> list[str]:
    """Return the verbs of systemctl that bring the service into the wanted state, in order.

    ``changed_at`` is the time of the last change of its configuration: a service that became active before is
    restarted, also when the run that made the change was cut off before it could see to it. ``units_changed``: unit
    files are among its configuration; systemd doesn't notice by itself that a directory of drop-ins has appeared.
    """
    if not status.exists and not active:
        return []
    verbs = []
    if enabled != status.enabled:
        verbs.append("enable" if enabled else "disable")
    if active != status.active:
        verbs.append("start" if active else "stop")
    elif active and (status.stale or changed_at > status.since):
        verbs.append("restart")
    return ["daemon-reload"] * (status.stale or (units_changed and bool(verbs))) + verbs


def own_units(paths: Iterable[str]) -> bool:
    """Return whether systemd's unit files are among ``paths``."""
    return any(path.startswith("/etc/systemd/system/") for path in paths)


def calls(verbs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the arguments of systemctl, a list a call, that do what ``verbs`` says of each unit, in that order.

    What systemd does for all units at once costs as much as for one, and comes first: to read unit files, to enable.
    """
    result = [["daemon-reload"]] if any("daemon-reload" in wanted for wanted in verbs.values()) else []
    for verb in ("enable", "disable"):
        names = [name for name, wanted in verbs.items() if verb in wanted]
        result += [[verb, *names]] if names else []
    for name, wanted in verbs.items():
        result += [[verb, name] for verb in wanted if verb in ("start", "stop", "restart")]
        result += [["kill", "--signal=KILL", name]] * ("kill" in wanted)
    return result


def act(run: Run, arguments: Iterable[Sequence[str]]) -> None:
    """Call systemctl with each of ``arguments``; an error shows the last lines of the unit's journal."""
    for call in arguments:
        argv = ["systemctl", *call]
        code, _out, err = run(argv, None)
        # systemd forgets a unit that nothing is left of.
        if code and not (call[0] == "kill" and "not loaded" in err):
            units = [f"--unit={name}" for name in call[1:] if not name.startswith("-")]
            _code, journal, _err = run(["journalctl", "--no-pager", "--lines=15", "--output=cat", *units], None)
            raise HpcError(
                f"'{' '.join(argv)}' failed: {err.strip()}\n{journal.strip()}".strip(),
                "See what the lines above say, mend it, and run again "
                f"('journalctl {' '.join(units) or '--boot'}' has more).",
            )
