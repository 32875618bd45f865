# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that prove from a user's side that the cluster does its job.

A check is a function that takes a `Context` and returns its detail, a dict of JSON data. It has failed if it raises
`CheckFailed`, or if its detail has a non-empty list under ``failures``. To add one, write the function and put it into
`CHECKS`.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.turnkey.hpc.plugins.module_utils._mpi_network import PING_PONG_C, ROUNDS, summarise

__all__ = [
    "CHECKS",
    "CheckFailed",
    "Context",
    "Run",
    "jupyterhub",
    "mpi_hello",
    "mpi_network",
    "mpi_service",
    "run_checks",
    "run_command",
    "shared_directory",
    "slurm_accounting",
    "slurm_batch",
    "slurm_mpi",
    "ssh_mesh",
]

# (argv, stdin, timeout in seconds) -> (rc, out, err). A command that takes too long returns 124.
Run = Callable[[list[str], Optional[str], float], "tuple[int, str, str]"]

PARALLEL = 8
POLL_SECONDS = 0.3
# Little of each node, so that a node that works for others has room for it.
SLURM_JOB = ["--job-name=turnkey-verify", "--time=5", "--ntasks-per-node=1", "--cpus-per-task=1", "--mem=100M"]
ENDED = re.compile(r"^(?!PENDING|RUNNING|CONFIGURING|COMPLETING|SUSPENDED|REQUEUE)[A-Z_]+")
# Role jupyterhub puts them there.
NOTEBOOK_PYTHON = "/opt/turnkey/jupyterhub/current/bin/python"
NOTEBOOK_CHECK = "/usr/local/lib/turnkey-jupyterhub/notebook_check.py"
NOTEBOOK_AUTHORITY = "/etc/jupyterhub/tls/ca.crt"
SSH = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10"]

HELLO_C = r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int rank, size, length, sum = 0;
    char name[MPI_MAX_PROCESSOR_NAME] = "", *names = NULL;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(name, &length);
    /* Starting proves little: let data cross the network between all ranks. */
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0)
        names = malloc((size_t)size * sizeof name);
    MPI_Gather(name, sizeof name, MPI_CHAR, names, sizeof name, MPI_CHAR, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        for (int i = 0; i < size; i++)
            printf("{\"rank\": %d, \"host\": \"%s\"}\n", i, names + (size_t)i * sizeof name);
        printf("{\"sum\": %d}\n", sum);
    }
    MPI_Finalize();
    return 0;
}
"""


class CheckFailed(Exception):
    """A check can't go on. The text says why; ``detail`` is what it found out before."""

    def __init__(self, reason: str, detail: Mapping[str, Any] | None = None) -> None:
        """Keep the ``reason`` and the ``detail``."""
        super().__init__(reason)
        self.detail = dict(detail or {})


@dataclass
class Context:
    """What checks may use. ``options`` is for checks that need more than the rest."""

    run: Run
    hosts: Sequence[str]
    mpi_hosts: Sequence[str]
    shared_dir: str
    hostfile: str
    timeout_seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    deadline: float = 0.0

    def command(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        """Run ``argv`` within what is left of the check's time."""
        left = self.deadline - self.clock()
        if left <= 0:
            return 124, "", f"no time left of the {self.timeout_seconds:g} seconds that a check may take"
        return self.run(list(argv), stdin, left)


Check = Callable[[Context], "dict[str, Any]"]


def run_checks(
    names: Sequence[str], context: Context, checks: Mapping[str, Check] | None = None
) -> list[dict[str, Any]]:
    """Run the checks called ``names``, each with a deadline of its own, and return an entry a check for the report."""
    known = CHECKS if checks is None else checks
    results = []
    for name in names:
        start = context.clock()
        context.deadline = start + context.timeout_seconds
        try:
            detail = known[name](context)
        except CheckFailed as error:
            detail = {**error.detail, "failures": [str(error)]}
        except (OSError, ValueError) as error:
            detail = {"failures": [f"{type(error).__name__}: {error}"]}
        results.append(
            {
                "name": name,
                "ok": not detail.get("failures"),
                "seconds": round(context.clock() - start, 2),
                "detail": detail,
            }
        )
    return results


def run_command(argv: list[str], stdin: str | None, timeout: float) -> tuple[int, str, str]:
    """Run a command with all its children in a group of their own, and end them all if it takes too long."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return 127, "", f"{argv[0]}: {error.strerror}"
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        return 124, out, f"{err.rstrip()}\n{argv[0]} did not end within {timeout:.0f} seconds"
    return process.returncode, out, err


def same_host(expected: str, answer: str) -> bool:
    """Compare two host names without their domains."""
    return expected.split(".")[0].lower() == answer.strip().split(".")[0].lower()


def complaint(rc: int, err: str) -> str:
    """Return the last lines that a failed command wrote to stderr, or its exit code."""
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or f"exit code {rc}"


def for_all(function: Callable[[str], list[str]], hosts: Sequence[str]) -> list[str]:
    """Call ``function`` for all ``hosts``, a few at a time, and return all the failures they report."""
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        return [failure for failures in pool.map(function, hosts) for failure in failures]


@contextlib.contextmanager
def scratch(shared_dir: str) -> Iterator[Path]:
    """Make a directory in the shared one that is gone afterwards."""
    try:
        path = Path(tempfile.mkdtemp(prefix=".turnkey-verify-", dir=shared_dir))
    except OSError as error:
        raise CheckFailed(f"Can't write to the shared directory {shared_dir}: {error.strerror or error}") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def ssh_mesh(context: Context) -> dict[str, Any]:
    """Log in from here to every node, and from each on to the next one, with no prompt and only known host keys."""
    hosts = list(context.hosts)
    following = dict(zip(hosts, [*hosts[1:], *hosts[:1]]))

    def visit(host: str) -> list[str]:
        onward = " ".join(["uname -n &&", *SSH, "-n", "--", following[host], "uname -n"])
        rc, out, err = context.command([*SSH, "-n", "--", host, onward])
        return summarise_visit(host, following[host], rc, out, err)

    failures = for_all(visit, hosts)
    return {"hosts": hosts, "connections": 2 * len(hosts), "failures": failures}


def summarise_visit(host: str, following: str, rc: int, out: str, err: str) -> list[str]:
    """Return what went wrong on the way to ``host`` and on to ``following``."""
    answers = out.split()
    failures = []
    if not answers:
        return [f"{host}: {complaint(rc, err)}"]
    if not same_host(host, answers[0]):
        failures.append(f"{host}: the host that answers calls itself {answers[0]}")
    if len(answers) < 2:
        failures.append(f"{host} to {following}: {complaint(rc, err)}")
    elif not same_host(following, answers[1]):
        failures.append(f"{host} to {following}: the host that answers calls itself {answers[1]}")
    return failures


def shared_directory(context: Context) -> dict[str, Any]:
    """Write here and read on every node, write on every node and read here."""
    hosts = list(context.hosts)
    with scratch(context.shared_dir) as directory:
        written = secrets.token_hex(16)
        (directory / "from-here").write_text(written, encoding="ascii")

        def exchange(host: str) -> list[str]:
            token = secrets.token_hex(16)
            # mkdtemp's random part has no character that a shell would mind, but the shared directory's name may.
            quoted = "'" + str(directory).replace("'", "'\\''") + "'"
            remote = f"cd {quoted} && cat from-here && cat > from-{host}"
            rc, out, err = context.command([*SSH, "--", host, remote], stdin=token)
            if rc != 0:
                return [f"{host}: {complaint(rc, err)}"]
            failures = []
            if out.strip() != written:
                failures.append(f"{host}: reads something else than what was written here")
            try:
                answer = (directory / f"from-{host}").read_text(encoding="ascii", errors="replace")
            except OSError as error:
                answer = ""
                failures.append(f"{host}: what it wrote can't be read here: {error.strerror}")
            if answer and answer != token:
                failures.append(f"{host}: what it wrote arrives here as something else")
            return failures

        return {"path": context.shared_dir, "hosts": hosts, "failures": for_all(exchange, hosts)}


def mpi_hello(context: Context) -> dict[str, Any]:
    """Compile an MPI program in the shared directory and run a rank on every compute node."""
    hosts = workers(context)
    with mpi_program(context) as program:
        command = ["mpirun", "--hostfile", context.hostfile, "--map-by", "node", "-n", str(len(hosts)), program]
        rc, out, err = context.command(command)
    return summarise_mpi(hosts, rc, out, err)


def workers(context: Context) -> list[str]:
    """Return the nodes that run jobs."""
    if not context.mpi_hosts:
        raise CheckFailed("There are no compute nodes to run a job on.")
    return list(context.mpi_hosts)


@contextlib.contextmanager
def mpi_program(context: Context, source: str = HELLO_C) -> Iterator[str]:
    """Compile an MPI program in the shared directory; it is gone afterwards."""
    with scratch(context.shared_dir) as directory:
        program = directory / "program"
        (directory / "program.c").write_text(source, encoding="ascii")
        rc, out, err = context.command(["mpicc", "-O1", "-o", str(program), str(directory / "program.c")])
        if rc != 0:
            raise CheckFailed(f"mpicc: {complaint(rc, err or out)}")
        yield str(program)


def summarise_mpi(hosts: Sequence[str], rc: int, out: str, err: str, starter: str = "mpirun") -> dict[str, Any]:
    """Return the detail of an MPI run: the ranks, what its starter complained about, and what is wrong."""
    ranks: list[dict[str, Any]] = []
    total = None
    for line in out.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "rank" in record:
            ranks.append(record)
        elif isinstance(record, dict) and "sum" in record:
            total = record["sum"]
    failures = []
    if rc != 0:
        # What went wrong comes first; then mpirun goes on about what may be the reason.
        lines = [line.strip() for line in err.splitlines() if line.strip(" -")]
        failures.append(f"{starter}: {' '.join(lines[:4]) or f'exit code {rc}'}")
    else:
        used = [rank["host"] for rank in ranks]
        failures += [f"{host}: has no rank" for host in hosts if not any(same_host(host, name) for name in used)]
        expected = len(ranks) * (len(ranks) - 1) // 2
        if total != expected:
            failures.append(f"The ranks add up to {total} instead of {expected}: data got lost between them")
    detail: dict[str, Any] = {"ranks": ranks, "failures": failures}
    if err.strip():
        detail["stderr"] = err.strip()[-2000:]
    return detail


def on_each(hosts: Sequence[str]) -> list[str]:
    """Return the options of a Slurm job that runs on every one of ``hosts``."""
    return [*SLURM_JOB, f"--nodes={len(hosts)}", f"--nodelist={','.join(hosts)}"]


def submit(context: Context, options: Sequence[str], script: str) -> str:
    """Hand a batch job to Slurm and return its number."""
    rc, out, err = context.command(["sbatch", "--parsable", *SLURM_JOB, *options], stdin=script)
    if rc != 0:
        raise CheckFailed(f"sbatch: {complaint(rc, err or out)}")
    return out.strip().split(";")[0]


def wait_for(context: Context, job: str, argv: Sequence[str]) -> str:
    """Ask for the state of a job until it has ended, and return it; a job that doesn't end in time is cancelled."""
    said = ""
    while context.clock() < context.deadline:
        rc, out, err = context.command(argv)
        said = out.strip() or said or err.strip()
        ended = ENDED.match(out.strip())
        if rc == 0 and ended:
            return ended[0]
        # poll interval
        context.pause(POLL_SECONDS)
    context.run(["scancel", job], None, 10)
    raise CheckFailed(
        f"job {job} did not end within {context.timeout_seconds:g} seconds. The last word of {argv[0]}: {said}"
    )


def slurm_batch(context: Context) -> dict[str, Any]:
    """Submit a batch job that does something on every compute node, and read its output."""
    hosts = workers(context)
    with scratch(context.shared_dir) as directory:
        output = directory / "output"
        options = [*on_each(hosts), f"--output={output}", f"--chdir={directory}"]
        job = submit(context, options, "#!/bin/sh\nsrun uname -n\n")
        state = wait_for(context, job, ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T %r"])
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.exists() else []
    failures = [f"{host}: did nothing" for host in hosts if not any(same_host(host, line) for line in lines)]
    if state != "COMPLETED":
        failures.insert(0, f"job {job} ended as {state}: {' / '.join(lines[-3:]) or 'without output'}")
    return {"job": int(job), "state": state, "hosts": hosts, "failures": failures}


def slurm_mpi(context: Context) -> dict[str, Any]:
    """Run an MPI program with a rank on every compute node, started by srun, and by mpirun within an allocation."""
    hosts = workers(context)
    with mpi_program(context) as program:
        started = {
            "srun": context.command(["srun", "--mpi=pmix", *on_each(hosts), program]),
            "salloc and mpirun": context.command(["salloc", "--quiet", *on_each(hosts), "mpirun", program]),
        }
    details = {name: summarise_mpi(hosts, *result, starter=name) for name, result in started.items()}
    detail = {"ranks": details["srun"]["ranks"], "failures": []}
    for name, one in details.items():
        detail["failures"] += [text if text.startswith(name) else f"{name}: {text}" for text in one["failures"]]
        if one.get("stderr"):
            detail["stderr"] = f"{detail.get('stderr', '')}{name}: {one['stderr']}\n"
    return detail


def slurm_accounting(context: Context) -> dict[str, Any]:
    """Run a small job and find it in the accounting database."""
    job = submit(context, ["--output=/dev/null", "--chdir=/"], "#!/bin/sh\nexit 0\n")
    argv = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,Cluster,User"]
    state = wait_for(context, job, argv)
    failures = [] if state == "COMPLETED" else [f"job {job} is in the accounting as {state}"]
    return {"job": int(job), "state": state, "failures": failures}


def mpi_network(context: Context) -> dict[str, Any]:
    """Measure latency and bandwidth between the compute nodes. A slow link is named, but is no failure."""
    hosts = workers(context)
    if len(hosts) < 2:
        raise CheckFailed("There is one compute node, and no network to measure.")
    with mpi_program(context, PING_PONG_C) as program:
        if context.options.get("scheduler") == "slurm":
            command = ["srun", "--mpi=pmix", *on_each(hosts), program, str(ROUNDS)]
        else:
            size = ["--map-by", "node", "-n", str(len(hosts))]
            command = ["mpirun", "--hostfile", context.hostfile, *size, program, str(ROUNDS)]
        rc, out, err = context.command(command)
    detail = summarise(out)
    failures = [f"{command[0]}: {complaint(rc, err)}"] if rc else []
    failures += [
        f"{host}: was not measured" for host in hosts if not any(same_host(host, one) for one in detail["hosts"])
    ]
    return {**detail, "failures": failures}


def mpi_service(context: Context) -> dict[str, Any]:
    """Push an MPI program to the service with git over SSH, as a user does, and see it run on up to four hosts."""
    hosts = min(4, len(workers(context)))
    name = f"turnkey-verify-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="turnkey-verify-") as place:
        Path(place, "hello.c").write_text(HELLO_C, encoding="ascii")
        Path(place, "mpi.yml").write_text(f"from: hello.c\nto: hello\nhosts: {hosts}\n", encoding="ascii")
        git = [
            "env",
            "-C",
            place,
            f"GIT_SSH_COMMAND={' '.join(SSH)}",
            "git",
            "-c",
            "user.name=verify",
            "-c",
            "user.email=verify",
        ]
        for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=hello"]):
            rc, _out, err = context.command([*git, *arguments])
            if rc:
                raise CheckFailed(f"git {arguments[0]}: {complaint(rc, err)}")
        try:
            rc, _out, err = context.command(
                [*git, "push", f"{os.uname().nodename}:apps/{name}", "HEAD:refs/heads/main"]
            )
        finally:
            context.run(["apps", "cancel", name], None, 20)
            context.run(["apps", "remove", "--yes", name], None, 20)
    said = "\n".join(line.partition("remote:")[2].strip() for line in err.splitlines() if "remote:" in line)
    if rc:
        raise CheckFailed(f"git push: {complaint(rc, err)}", {"log": said[-2000:]})
    detail = summarise_mpi([], rc, said, "", starter="git push")
    used = {rank["host"] for rank in detail["ranks"]}
    if len(used) != hosts:
        detail["failures"].append(f"{hosts} hosts were asked for, and {len(used)} used")
    return detail


def jupyterhub(context: Context) -> dict[str, Any]:
    """Log in to the notebooks through HTTPS with a one-time password, start a server, run a cell and stop it."""
    argv = [NOTEBOOK_PYTHON, "-I", NOTEBOOK_CHECK, "--url", str(context.options.get("jupyterhub_url", ""))]
    argv += ["--authority", NOTEBOOK_AUTHORITY, "--user", getpass.getuser()]
    argv += ["--seconds", f"{context.timeout_seconds:g}"]
    rc, out, err = context.command(argv)
    try:
        detail = json.loads(out)
    except ValueError:
        detail = None
    if rc != 0 or not isinstance(detail, dict):
        raise CheckFailed(f"jupyterhub: {complaint(rc, err or out)}")
    return detail


CHECKS: dict[str, Check] = {
    "ssh_mesh": ssh_mesh,
    "shared_directory": shared_directory,
    "mpi_hello": mpi_hello,
    "mpi_network": mpi_network,
    "mpi_service": mpi_service,
    "slurm_batch": slurm_batch,
    "slurm_mpi": slurm_mpi,
    "slurm_accounting": slurm_accounting,
    "jupyterhub": jupyterhub,
}
