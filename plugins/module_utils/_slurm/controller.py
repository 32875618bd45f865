# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller's files: tried with the real slurmctld, written, and put into force with the least that does."""

from __future__ import annotations

import os
import pwd
import re
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand, fold
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.changes import Change, compare
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import (
    FILES,
    HANDS_OVER,
    at_least,
    normal,
    release_of,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.text import parse_line
from ansible_collections.turnkey.hpc.plugins.module_utils._state import STATE_DIR, Run, load_json, save_json

__all__ = ["CONFIG_DIR", "Controller", "trial_text", "try_daemon"]

CONFIG_DIR = "/etc/slurm"
RECORDS = f"{STATE_DIR}/slurm"
READY = "Running as primary controller"
TRIAL_SECONDS = 60
# A network of its own keeps the trial from the running daemon's port, and from the nodes. Without an address other than
# 127.0.0.1 slurmctld finds no protocol to listen with.
TRIAL = "ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec slurmctld -D -v -f {}/slurm.conf"

# What would reach out of the trial, or needs what is not there in it: the database, munge, other hosts.
_LEFT_OUT = re.compile(r"accountingstorage|authalt|jobcomp|slurmctldprimary|slurm(ctld|sched)logfile|slurmctldsyslog")
_REPLACED = {
    "authtype": "AuthType=auth/none",
    "credtype": "CredType=cred/none",
    "slurmctldpidfile": "SlurmctldPidFile={place}/slurmctld.pid",
    "statesavelocation": "StateSaveLocation={place}/state",
}


def trial_text(text: str, place: str, host: str) -> str:
    """Return slurm.conf as it is tried in ``place``: state and log there, no other host, no database. Pure."""
    kept, replaced = [], dict(_REPLACED)
    for row in text.splitlines():
        pairs = parse_line(row)
        key = normal(pairs[0][0]) if pairs else ""
        if key == "nodename":
            # The addresses of nodes for later use are not looked up.
            kept.append(re.sub(r"\s+State=\S+", "", row) + " State=FUTURE")
        elif key not in replaced and key != "slurmctldhost" and not _LEFT_OUT.match(key):
            kept.append(row)
    kept += [f"SlurmctldHost={host}(127.0.0.1)", *(row.format(place=place) for row in replaced.values())]
    return "\n".join(kept) + "\n"


def try_daemon(argv: Sequence[str], ready: str, seconds: float) -> tuple[bool, list[str]]:
    """Run a daemon until it says ``ready``, ends, or the time is over; return whether it did, and what it said."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    said = b""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        try:
            if process.stdout is None:
                return False, []
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                end = time.monotonic() + seconds
                while ready.encode() not in said:
                    if not selector.select(max(end - time.monotonic(), 0)):
                        return False, [*said.decode(errors="replace").splitlines(), f"not ready after {seconds:.0f} s"]
                    part = os.read(process.stdout.fileno(), 65536)
                    if not part:
                        return False, said.decode(errors="replace").splitlines()
                    said += part
        finally:
            process.kill()
    return True, said.decode(errors="replace").splitlines()


def complaint(said: Sequence[str], place: str) -> str:
    """Return the daemon's own words on what is wrong."""
    lines = [line.replace(place, CONFIG_DIR) for line in said if re.search(r"(error|fatal): ", line)]
    # Nothing is recovered in an empty place, which it calls errors.
    lines = [line for line in lines if "state file" not in line and "state save file" not in line]
    return "\n".join(lines[-5:] or list(said)[-3:])


class Controller:
    """This host as a controller; its files and records lie below ``root`` (tests use a directory of their own)."""

    def __init__(
        self,
        run: Run,
        root: str = "/",
        trial: Callable[[Sequence[str], str, float], tuple[bool, list[str]]] = try_daemon,
    ) -> None:
        self.run = run
        self.trial = trial
        self.config_dir = Path(root) / CONFIG_DIR.lstrip("/")
        self._records = Path(root) / RECORDS.lstrip("/")

    def release(self, announced: str | None) -> str:
        """Return the installed release, else the one that is ``announced``."""
        code, out, _err = self.run(["slurmctld", "-V"], None)
        if code == 0:
            return release_of(out)
        if announced:
            return release_of(announced)
        raise HpcError(
            "slurmctld isn't installed on this host.", "install it first, or say which `release` it will be."
        )

    def record(self, name: str) -> dict[str, Any]:
        """Return what was recorded: `in_force`, the files slurmctld runs with, or `hardware`, what was measured."""
        return load_json(self._records / f"{name}.json")

    def save(self, name: str, data: Mapping[str, Any]) -> None:
        """Record something, or forget it if there is nothing to record."""
        if self.record(name) != data:
            save_json(self._records / f"{name}.json", dict(data))

    def runs(self) -> bool:
        """Return whether slurmctld runs."""
        return self.run(["systemctl", "is-active", "--quiet", "slurmctld.service"], None)[0] == 0

    def check(self, files: Mapping[str, str]) -> None:
        """Raise with the daemon's words if slurmctld doesn't start with the files."""
        place = tempfile.mkdtemp(prefix="turnkey-slurm-", dir="/run")
        try:
            host = os.uname().nodename.partition(".")[0]
            (Path(place) / "state").mkdir()
            # What plugins read beside slurm.conf: job_submit.lua, plugstack.conf and the like.
            for path in self.config_dir.glob("*"):
                if path.name not in FILES:
                    (Path(place) / path.name).symlink_to(path)
            for name, text in {**files, "slurm.conf": trial_text(files["slurm.conf"], place, host)}.items():
                (Path(place) / name).write_text(text, encoding="utf-8")
            user = next(
                (v for row in files["slurm.conf"].splitlines() for k, v in parse_line(row) if k == "SlurmUser"), ""
            )
            account = pwd.getpwnam(user or "root")
            for path in [Path(place), *Path(place).iterdir()]:
                os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
            argv = ["unshare", "--net", "--", "/bin/sh", "-c", TRIAL.format(place)]
            ready, said = self.trial(argv, READY, TRIAL_SECONDS)
            if not ready:
                raise HpcError(
                    f"slurmctld refuses the new configuration, so nothing was changed. It says:\n"
                    f"{complaint(said, place)}\n",
                    "correct the variables that these lines are made from, and run again.",
                )
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def jobs_on(self, nodes: Sequence[str]) -> list[str]:
        """Return the jobs that run on any of the nodes."""
        argv = [
            "squeue",
            "--noheader",
            "--format=%A",
            "--states=RUNNING,COMPLETING,SUSPENDED",
            f"--nodelist={fold(nodes)}",
        ]
        code, out, _err = self.run(argv, None)
        return sorted(set(out.split()), key=int) if code == 0 else []

    def refuse_to_lose_jobs(self, change: Change) -> None:
        """Raise if a node that leaves runs jobs."""
        jobs = self.jobs_on(change.leaving) if change.leaving else []
        if jobs:
            raise HpcError(
                f"{fold(change.leaving)} can't leave yet: jobs {', '.join(jobs)} run there. Nothing was changed.",
                "drain it and wait until the jobs are done (module slurm_node); if it is dead, set it down.",
            )

    def change(self, new: Mapping[str, str], on_disk: Mapping[str, str], release: str) -> Change:
        """Return what the running slurmctld needs for the files ``new``."""
        in_force = self.record("in_force").get("files") or {}
        if not in_force or (on_disk != in_force and on_disk != new):
            # Nobody knows what it runs with: somebody else wrote the files.
            change = Change()
            change.need("restart", "the files were not those that turnkey.hpc wrote" if in_force else "the first run")
            return change
        return compare(in_force, new, release)

    def put_into_force(self, change: Change, names: Callable[[], Sequence[str]], release: str) -> str:
        """Carry out a change in the running slurmctld; return the step that was taken."""
        step = change.step
        if step == "reconfigure" and not at_least(release, HANDS_OVER) and not self.same_names(names()):
            step = "restart"
        if step == "reconfigure":
            code, _out, err = self.run(["scontrol", "reconfigure"], None)
            if code and at_least(release, HANDS_OVER):
                # The process that should take over did not start, and the old one goes on.
                raise self.failed("scontrol reconfigure", err)
            if code:
                step = "restart"
        if step == "restart":
            self.do(["systemctl", "restart", "slurmctld.service"])
            self.wait_until_it_answers()
            # A slurmctld that starts doesn't tell the nodes that their files have changed.
            self.do(["scontrol", "reconfigure"])
            return step
        for command in change.commands:
            self.do(command)
        return step

    def wait_until_it_answers(self) -> None:
        """Wait until slurmctld serves again after a restart."""
        end = time.monotonic() + TRIAL_SECONDS
        while "UP" not in self.run(["scontrol", "ping"], None)[1]:
            if time.monotonic() > end or not self.runs():
                raise self.failed("systemctl restart slurmctld.service", "it doesn't answer")
            time.sleep(0.1)  # poll interval

    def same_names(self, names: Sequence[str]) -> bool:
        """Return whether the running slurmctld has just these nodes; else a reconfiguration would kill it."""
        code, out, _err = self.run(["scontrol", "--future", "--oneliner", "show", "nodes"], None)
        return code == 0 and set(re.findall(r"^NodeName=(\S+)", out, re.MULTILINE)) == set(names)

    def do(self, argv: list[str]) -> None:
        """Run a command that must succeed."""
        code, _out, err = self.run(argv, None)
        if code:
            raise self.failed(" ".join(argv), err)

    def failed(self, command: str, err: str) -> HpcError:
        """Return an error with the last lines of the journal."""
        argv = ["journalctl", "--no-pager", "--lines=10", "--output=cat", "--unit=slurmctld.service"]
        journal = self.run(argv, None)[1]
        return HpcError(
            f"'{command}' failed: {err.strip()}\n{journal.strip()}",
            "the new files are written, and the next run puts them into force; see what the lines above say.",
        )

    @staticmethod
    def node_names(text: str) -> list[str]:
        """Return the names of all nodes of a slurm.conf."""
        lists = [pairs[0][1] for pairs in map(parse_line, text.splitlines()) if pairs and pairs[0][0] == "NodeName"]
        return [name for item in lists for name in expand(item)]
