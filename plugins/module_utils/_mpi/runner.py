# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs an application, as its user, and writes down what it says and how it ends.

Under Slurm this file is the batch script, on the first node of the job; else it runs on the head node, cut loose from
the connection that brought the push. It imports nothing of the collection, and nobody needs to watch it.

In the directory of the run it reads ``plan.json``, and writes ``output`` and ``result.json``. Both exist before, and
are written in place: over NFS a new name may be seen late, new content is seen by whoever opens the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["FINAL", "answering", "main", "mpirun_argv", "parse_hostfile", "write_result"]

FINAL = ("completed", "failed", "timeout", "cancelled", "lost")
SSH_PORT = 22
ANSWER_SECONDS = 3.0
# What a stopped application may take to end, before it is killed.
GRACE_SECONDS = 10.0
FLUSH_SECONDS = 0.3
PROBES = 64


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write ``result`` in place. Somebody who reads at this moment sees no JSON, and reads again."""
    data = (json.dumps(result, sort_keys=True) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(handle, data, 0)
        os.ftruncate(handle, len(data))
        os.fsync(handle)
    finally:
        os.close(handle)


# --- where there is no scheduler -------------------------------------------------------------------------------------


def parse_hostfile(text: str) -> list[str]:
    """Return the hosts of an OpenMPI host file, each once."""
    names = [line.split("#")[0].split()[0] for line in text.splitlines() if line.split("#")[0].strip()]
    return list(dict.fromkeys(names))


def answers(host: str) -> bool:
    """Return whether an SSH server answers at ``host``: a machine may be up and reachable, and yet hang."""
    try:
        with socket.create_connection((host, SSH_PORT), timeout=ANSWER_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def answering(hosts: Sequence[str], wanted: int, probe: Callable[[str], bool] = answers) -> list[str]:
    """Return the first ``wanted`` hosts that answer now. No more are asked than it takes."""
    found: list[str] = []
    with ThreadPoolExecutor(max_workers=PROBES) as pool:
        for begin in range(0, len(hosts), PROBES):
            some = hosts[begin : begin + PROBES]
            found += [host for host, up in zip(some, pool.map(probe, some)) if up]
            if len(found) >= wanted:
                break
    return found[:wanted]


def mpirun_argv(hostfile: str, ranks: int, ranks_per_host: int, variables: Sequence[str], bound: bool) -> list[str]:
    """Return mpirun with the options that put the same number of ranks on every host, each bound to a core or free."""
    exports = [word for name in variables for word in ("-x", name)]
    size = ["-n", str(ranks), "--map-by", f"ppr:{ranks_per_host}:node"]
    return ["mpirun", "--hostfile", hostfile, *size, *([] if bound else ["--bind-to", "none"]), *exports]


# --- the run ---------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """Somebody wants the run to end: the text is the state that it ends in."""


class Output:
    """The file of what the application says, up to a number of bytes."""

    def __init__(self, path: Path, most: int) -> None:
        """Open the file, which exists."""
        self.handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.left = most
        self.truncated = False
        self.dirty = False

    def write(self, data: bytes) -> None:
        """Append ``data``, or what there is room for."""
        kept = data[: self.left]
        self.left -= len(kept)
        if len(kept) < len(data) and not self.truncated:
            self.truncated = True
            kept += b"\n[turnkey: what follows is too long and is not kept]\n"
        while kept:
            kept = kept[os.write(self.handle, kept) :]
            self.dirty = True

    def flush(self) -> None:
        """Let other hosts see it."""
        if self.dirty:
            with contextlib.suppress(OSError):
                os.fsync(self.handle)
            self.dirty = False


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the starter with all that it started here, politely at first."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def copy(process: subprocess.Popen[bytes], output: Output, deadline: float) -> None:
    """Write down what the application says until it ends. A second too long raises `Stopped`."""
    stream = process.stdout.fileno() if process.stdout else -1
    flushed = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= deadline:
            raise Stopped("timeout")
        ready, _w, _x = select.select([stream], [], [], min(FLUSH_SECONDS, deadline - now))
        data = os.read(stream, 65536) if ready else b""
        output.write(data)
        if time.monotonic() - flushed >= FLUSH_SECONDS or not ready:
            output.flush()
            flushed = time.monotonic()
        # The stream stays open as long as a child that was left behind has it.
        if (ready and not data) or (not ready and process.poll() is not None):
            return


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals that end a job into `Stopped`, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)
        raise Stopped("cancelled")

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    try:
        yield
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)


def in_turn(plan: dict[str, Any]) -> None:
    """Wait for all runs before this one. The kernel gives the lock back, however a run ends."""
    handle = os.open(plan["queue"], os.O_RDONLY)
    os.set_inheritable(handle, False)
    fcntl.flock(handle, fcntl.LOCK_EX)


def slurm_hosts(run: Callable[..., Any] = subprocess.run) -> list[str]:
    """Return the hosts of the Slurm job that this is."""
    argv = ["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")]
    return list(run(argv, capture_output=True, text=True, check=True).stdout.split())


def why_stopped(run: Callable[..., Any] = subprocess.run) -> str:
    """Return the state of the Slurm job that this is, which somebody or something ends."""
    argv = ["squeue", "--noheader", "--states=all", f"--jobs={os.environ.get('SLURM_JOB_ID', '')}", "--format=%T %r"]
    said = run(argv, capture_output=True, text=True, check=False).stdout
    if "NODE_FAIL" in said or "NodeDown" in said:
        return "lost"
    return "timeout" if "TIMEOUT" in said or "TimeLimit" in said or "DEADLINE" in said else "cancelled"


def choose_hosts(plan: dict[str, Any], directory: Path) -> list[str]:
    """Return the hosts to run on. Without Slurm these are ones that answer now."""
    if plan["scheduler"] == "slurm":
        return slurm_hosts()
    known = parse_hostfile(Path(plan["hostfile"]).read_text(encoding="utf-8"))
    hosts = answering(known, plan["hosts"])
    if len(hosts) < plan["hosts"]:
        raise OSError(f"{plan['hosts']} hosts are wanted, and {len(hosts)} answer now ({', '.join(hosts) or 'none'})")
    lines = [f"{host} slots={plan['ranks_per_host']}\n" for host in hosts]
    (directory / "hosts").write_text("".join(lines), encoding="utf-8")
    return hosts


def run(directory: Path) -> int:
    """Run what ``plan.json`` says, and return the exit code."""
    plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    result: dict[str, Any] = {"state": "queued", "pid": os.getpid(), "host": socket.gethostname()}
    output = Output(directory / "output", plan["output_bytes"])
    process: subprocess.Popen[bytes] | None = None
    code, state = 1, "failed"
    try:
        with stoppable():
            if plan["scheduler"] != "slurm":
                write_result(directory / "result.json", result)
                in_turn(plan)
            result["hosts"] = choose_hosts(plan, directory)
            result.update(state="running", started=time.time())
            write_result(directory / "result.json", result)
            process = subprocess.Popen(
                plan["argv"],
                cwd=plan["cwd"],
                env={**os.environ, **plan["env"]},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            copy(process, output, time.monotonic() + (plan["seconds"] or 10 * 366 * 86400))
            code = process.wait(GRACE_SECONDS)
            code = 128 - code if code < 0 else code
            state = "completed" if code == 0 else "failed"
    except Stopped as stopped:
        state = str(stopped)
        if state == "cancelled" and plan["scheduler"] == "slurm":
            state = why_stopped()
        code = {"timeout": 124, "cancelled": 130, "lost": 1}[state]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        output.write(f"[turnkey: {error}]\n".encode())
    finally:
        if process and process.poll() is None:
            end_group(process)
    if process and process.stdout:
        # The last words of an application that was stopped.
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(OSError):
            output.write(os.read(process.stdout.fileno(), 65536) or b"")
    output.flush()
    result.update(state=state, exit_code=code, ended=time.time(), truncated=output.truncated)
    write_result(directory / "result.json", result)
    return code


def main() -> int:
    """Run as a program; the environment says where the run is."""
    directory = Path(os.environ.pop("TURNKEY_MPI_RUN"))
    if not re.fullmatch(r"/.*/[0-9]+", str(directory)):
        return 2
    os.umask(0o022)
    return run(directory)


if __name__ == "__main__":
    raise SystemExit(main())
