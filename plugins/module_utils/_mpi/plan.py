# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do with an MPI application: decisions without input or output."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._errors import InvalidInput, join_problems
from .manifest import Manifest
from .runner import FINAL, mpirun_argv

__all__ = [
    "Entry",
    "Settings",
    "Step",
    "app_of",
    "build_steps",
    "check_entries",
    "clean_environment",
    "command",
    "compilers",
    "escapes",
    "expired",
    "prospect",
    "rank_map",
    "sbatch_argv",
    "start_plan",
    "summary",
    "table",
    "usable_nodes",
]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
# Nodes in these states run nothing soon; a powered down one (idle~) does.
AWAY = ("down", "drain", "drng", "fail", "futr", "inval", "maint", "npc", "unk")
MOST_FILES = 50_000
SIGNALS = {
    132: "illegal instruction",
    134: "aborted",
    136: "arithmetic error",
    137: "killed",
    139: "segmentation fault",
    143: "terminated",
}
KEPT_VARIABLES = ("SLURM_CONF_SERVER", "SLURM_CONF", "LANG", "LC_ALL", "TZ")


@dataclass(frozen=True)
class Settings:
    """What the role wrote down. Sizes are in MB."""

    scheduler: str
    directory: str
    hostfile: str
    queue: str
    library: str
    keep_runs: int = 20
    push_mb: int = 100
    tree_mb: int = 1000
    output_mb: int = 100
    build_seconds: int = 600

    def place(self, user: str, home: str) -> str:
        """Return the directory of the runs of ``user``."""
        found = {"%u": user, "%h": home, "%%": "%"}
        return re.sub("%[uh%]", lambda match: found[match[0]], self.directory)


class Step(NamedTuple):
    """A command of a build, and how it is shown."""

    argv: tuple[str, ...]
    text: str


class Entry(NamedTuple):
    """A file of a commit."""

    mode: str
    size: int
    path: str


def app_of(argument: str, home: str, user: str) -> str | None:
    """Return the application that the path in a URL stands for, or nothing if it is another repository."""
    for prefix in ("~/", f"~{user}/"):
        if argument.startswith(prefix):
            argument = posixpath.join(home, argument[len(prefix) :])
    path = posixpath.normpath(posixpath.join(home, argument))
    if posixpath.dirname(path) != posixpath.join(home, "apps"):
        return None
    return posixpath.basename(path)


def check_name(name: str) -> str:
    """Return the name of an application, which may become part of paths and of the names of jobs."""
    if not NAME.fullmatch(name) or name.endswith(".git"):
        raise InvalidInput(
            f"'{name}' is no name of an application.",
            "use up to 64 letters, digits, '.', '_' and '-', without '.git' at the end: USER@HOST:apps/hello.",
        )
    return name


def clean_environment(before: Mapping[str, str], user: str, home: str) -> dict[str, str]:
    """Return the environment of builds and runs, whatever came with the login."""
    kept = {name: before[name] for name in KEPT_VARIABLES if name in before}
    fixed = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh"}
    return {"LANG": "C.UTF-8", **kept, **fixed}


# --- the tree --------------------------------------------------------------------------------------------------------


def check_entries(entries: Sequence[Entry], most_mb: int) -> None:
    """Refuse a tree that is too big, or that has parts that are not in it."""
    problems = []
    total = sum(entry.size for entry in entries)
    if total > most_mb * 1_000_000:
        large = max(entries, key=lambda entry: entry.size)
        problems.append(
            f"The tree has {total / 1e6:.0f} MB, and {most_mb} are allowed; the largest file is {large.path}."
        )
    if len(entries) > MOST_FILES:
        problems.append(f"The tree has {len(entries)} files, and {MOST_FILES} are allowed.")
    modules = [entry.path for entry in entries if entry.mode == "160000"]
    if modules:
        problems.append(f"Submodules are not fetched: {', '.join(modules[:5])}. Add their files to the tree.")
    if problems:
        raise InvalidInput(join_problems(problems))


def escapes(path: str, target: str) -> bool:
    """Return whether a symbolic link at ``path`` leads out of the tree."""
    if target.startswith("/") or not target:
        return True
    # What is behind a name may be elsewhere, if the name is a link: ".." counts at the beginning only.
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((place for place, part in enumerate(parts) if part != ".."), len(parts))
    if ".." in parts[ups:]:
        return True
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return reached.split("/")[0] in ("..", ".git")


# --- the build -------------------------------------------------------------------------------------------------------


def language(path: str) -> str:
    """Return the wrapper that compiles a source."""
    suffix = posixpath.splitext(path)[1]
    if suffix == ".c":
        return "mpicc"
    return "mpifort" if suffix.lower() in (".f", ".f77", ".f90", ".f95", ".f03", ".f08") else "mpicxx"


def compilers(manifest: Manifest) -> tuple[str, ...]:
    """Return the compilers whose versions belong to the record of a run."""
    return tuple(dict.fromkeys(language(path) for path in manifest.sources)) or ("mpicc",)


def build_steps(manifest: Manifest) -> list[Step]:
    """Return the commands that make the program."""
    if manifest.build:
        return [Step(("/bin/sh", "-ec", command), command) for command in manifest.build]
    used = compilers(manifest)
    if len(used) == 1:
        return [step([used[0], "-O2", "-o", manifest.target, *manifest.sources, "-lm"])]
    steps, objects = [], []
    for number, source in enumerate(manifest.sources, start=1):
        objects.append(f".turnkey-{number}.o")
        steps.append(step([language(source), "-O2", "-c", "-o", objects[-1], source]))
    linker = "mpifort" if "mpifort" in used else "mpicxx"
    more = ["-lstdc++"] if linker == "mpifort" and "mpicxx" in used else []
    return [*steps, step([linker, "-o", manifest.target, *objects, *more, "-lm"])]


def step(argv: Sequence[str]) -> Step:
    """Return a step that is shown as it is run."""
    return Step(tuple(argv), " ".join(argv))


# --- the run ---------------------------------------------------------------------------------------------------------


def usable_nodes(sinfo: str, partition: str) -> tuple[int, str]:
    """Return the number of nodes that run jobs now or after powering up, and their partition.

    ``sinfo`` is what ``sinfo --noheader --format=%P|%D|%t`` printed; the default partition has a star.
    """
    rows = [line.strip().split("|") for line in sinfo.splitlines() if line.count("|") == 2]
    known = list(dict.fromkeys(name.rstrip("*") for name, _count, _state in rows))
    default = [name.rstrip("*") for name, _count, _state in rows if name.endswith("*")]
    wanted = partition or (default + known + [""])[0]
    if wanted not in known:
        raise InvalidInput(
            f"Slurm has no partition '{wanted}'.", f"set 'partition' to one of {', '.join(known) or '(none)'}."
        )
    usable = [int(count) for name, count, state in rows if name.rstrip("*") == wanted and not state.startswith(AWAY)]
    # The star after a state means that the node doesn't answer.
    silent = [
        int(count)
        for name, count, state in rows
        if name.rstrip("*") == wanted and not state.startswith(AWAY) and state.endswith("*")
    ]
    return sum(usable) - sum(silent), wanted


def sbatch_argv(name: str, manifest: Manifest, source: str, log: str) -> list[str]:
    """Return the command that hands the runner, on its stdin, to Slurm."""
    argv = ["sbatch", "--parsable", f"--job-name={name}", f"--nodes={manifest.hosts}"]
    argv += [f"--ntasks-per-node={manifest.ranks_per_host}", "--no-requeue", f"--chdir={source}", f"--output={log}"]
    if manifest.cpus_per_rank > 1:
        argv.append(f"--cpus-per-task={manifest.cpus_per_rank}")
    if manifest.partition:
        argv.append(f"--partition={manifest.partition}")
    if manifest.time_limit:
        # Slurm counts minutes, and the runner seconds.
        argv.append(f"--time={-(-manifest.time_limit // 60)}")
    return argv


def start_plan(manifest: Manifest, settings: Settings, directory: str) -> dict[str, Any]:
    """Return what the runner has to know."""
    source = f"{directory}/source"
    if settings.scheduler == "slurm":
        # srun does not take the number of CPUs from the job that it is in.
        cpus = [f"--cpus-per-task={manifest.cpus_per_rank}"] * (manifest.cpus_per_rank > 1)
        starter = ["srun", "--mpi=pmix", "--kill-on-bad-exit=1", "--distribution=block", *cpus]
    else:
        names = sorted(manifest.env)
        bound = manifest.cpus_per_rank == 1
        starter = mpirun_argv(f"{directory}/hosts", manifest.ranks, manifest.ranks_per_host, names, bound)
    return {
        "scheduler": settings.scheduler,
        "argv": [*starter, f"{source}/{manifest.target}", *manifest.args],
        "cwd": source,
        "env": manifest.env,
        "seconds": manifest.time_limit,
        "hosts": manifest.hosts,
        "ranks_per_host": manifest.ranks_per_host,
        "hostfile": settings.hostfile,
        "queue": settings.queue,
        "output_bytes": settings.output_mb * 1_000_000,
    }


def command(manifest: Manifest, scheduler: str) -> str:
    """Return in short how the program is started."""
    what = " ".join([f"./{manifest.target}", *manifest.args])
    if scheduler == "slurm":
        return f"srun --nodes={manifest.hosts} --ntasks-per-node={manifest.ranks_per_host} {what}"
    return f"mpirun -n {manifest.ranks} --map-by ppr:{manifest.ranks_per_host}:node {what}"


def prospect(manifest: Manifest) -> dict[str, Any]:
    """Return what would be built and run, for check mode."""
    return {
        "build": [one.text for one in build_steps(manifest)],
        "program": " ".join([f"./{manifest.target}", *manifest.args]),
        "hosts": manifest.hosts,
        "ranks": manifest.ranks,
    }


def rank_map(hosts: Sequence[str], ranks_per_host: int) -> dict[str, list[int]]:
    """Return the ranks of each host; both starters fill one host after the other."""
    return {host: list(range(place * ranks_per_host, (place + 1) * ranks_per_host)) for place, host in enumerate(hosts)}


def expired(runs: Sequence[Mapping[str, Any]], keep: int) -> list[int]:
    """Return the numbers of the runs that are no longer kept. One that has not ended stays in any case.

    One that is ``built`` will not be started any more: nobody else is at work when runs are removed.
    """
    ended = sorted((run["number"] for run in runs if run["state"] in (*FINAL, "built", "rejected")), reverse=True)
    return sorted(ended[keep:])


def summary(run: Mapping[str, Any]) -> str:
    """Return in one line how a run went."""
    code = run.get("exit_code")
    ending = {
        "completed": "completed",
        "failed": "failed",
        "timeout": "stopped at its time limit",
        "cancelled": "cancelled",
        "lost": "lost, because a node or what ran it is gone",
    }.get(run["state"], run["state"])
    parts = [f"{run['app']} run {run['number']}: {ending}"]
    if run.get("seconds") is not None:
        parts.append(f"{run['seconds']:.1f} s")
    if code is not None:
        parts.append(f"exit code {code}" + (f" ({SIGNALS[code]})" if code in SIGNALS else ""))
    hosts = run.get("hosts") or []
    if hosts:
        many = "" if len(hosts) <= 8 else f" and {len(hosts) - 8} more"
        ranks = sum(len(each) for each in run["ranks"].values())
        parts.append(
            f"{ranks} rank{'s' * (ranks != 1)} on {len(hosts)} host{'s' * (len(hosts) != 1)}"
            f" ({', '.join(hosts[:8])}{many})"
        )
    return ", ".join(parts)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
