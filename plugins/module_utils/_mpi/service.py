# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of applications: built, started, watched, kept and removed, all as the user whose they are.

A run is a directory with a number: ``source`` is the tree, where it was built and where it runs; ``run.json`` says what
was asked for, ``result.json`` what became of it; ``build.log`` and ``output`` are texts.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .._errors import HpcError, InvalidInput, join_problems
from . import manifest as manifests
from .manifest import NAMES, Manifest
from .plan import (
    Settings,
    Step,
    build_steps,
    clean_environment,
    command,
    compilers,
    expired,
    rank_map,
    sbatch_argv,
    start_plan,
    usable_nodes,
)
from .repository import Repository
from .runner import FINAL, Output, answering, parse_hostfile, write_result

__all__ = ["Gone", "Person", "Say", "Service"]

PYTHON = ["/usr/bin/python3", "-I"]
POLL_SECONDS = 0.3
# How often Slurm is asked about a job.
ASK_SECONDS = 3.0
BUILD_LOG_BYTES = 10_000_000
ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING")
SLURM_ENDS = {"CANCELLED": ("cancelled", 130), "TIMEOUT": ("timeout", 124), "DEADLINE": ("timeout", 124)}

# Shows bytes to the person who waits.
Say = Callable[[bytes], None]


class Gone(Exception):
    """Nobody listens any more."""


@dataclass(frozen=True)
class Person:
    """An account."""

    name: str
    home: Path
    uid: int

    @classmethod
    def current(cls) -> Person:
        """Return who this process runs as, whatever the environment says."""
        entry = pwd.getpwuid(os.getuid())
        return cls(entry.pw_name, Path(entry.pw_dir), entry.pw_uid)

    @classmethod
    def named(cls, name: str) -> Person:
        """Return the account ``name``."""
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError) as error:
            raise InvalidInput(
                f"There is no user '{name}'.", "write USER/APP for an application of somebody else."
            ) from error
        return cls(entry.pw_name, Path(entry.pw_dir), entry.pw_uid)


def read_json(path: Path) -> dict[str, Any]:
    """Return what is in a file, or nothing if it is not there. One that is being written is read again."""
    for _attempt in range(40):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            time.sleep(0.05)  # poll interval
            continue
        return found if isinstance(found, dict) else {}
    return {}


def works(pid: object) -> bool:
    """Return whether a process of this program has that number."""
    try:
        return b"turnkey-mpi" in Path(f"/proc/{int(str(pid))}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


class Service:
    """The applications of one person."""

    def __init__(self, settings: Settings, person: Person, environment: Mapping[str, str]) -> None:
        """Look at the applications of ``person``."""
        self.settings = settings
        self.person = person
        self.environment = clean_environment(environment, person.name, str(person.home))
        self.base = Path(settings.place(person.name, str(person.home)))

    # --- where things are ---

    def make_base(self) -> None:
        """Make the directory of all runs; nobody else may have put something in its place."""
        with contextlib.suppress(FileExistsError):
            self.base.mkdir(mode=0o711, parents=True)
        found = self.base.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.person.uid or found.st_mode & 0o022:
            raise HpcError(
                f"{self.base} is not a directory of {self.person.name} alone.",
                "ask an administrator of the cluster to remove it.",
            )

    def repository(self, name: str, git: Mapping[str, str] | None = None) -> Repository:
        """Return the repository of an application."""
        return Repository(name, self.person.home, {**self.environment, **(git or {})})

    def numbers(self, name: str, must_be: bool = False) -> list[int]:
        """Return the numbers of the runs of an application."""
        try:
            return sorted(int(path.name) for path in (self.base / name).iterdir() if path.name.isdigit())
        except FileNotFoundError as error:
            if must_be:
                raise InvalidInput(f"There is no run of '{name}'.", "see 'apps list'.") from error
            return []
        except PermissionError as error:
            raise HpcError(
                f"{self.person.name} does not share '{name}'.",
                f"{self.person.name} may do so with 'apps share {name}'.",
            ) from error

    def apps(self) -> list[str]:
        """Return the applications that have a repository or runs."""
        names = {path.parent.name for path in (self.person.home / "apps").glob("*/turnkey-mpi-app")}
        if self.base.is_dir():
            names |= {path.name for path in self.base.iterdir() if path.is_dir()}
        return sorted(names)

    def directory(self, run: Mapping[str, Any]) -> Path:
        """Return where a run is."""
        return self.base / str(run["app"]) / str(run["number"])

    # --- what became of a run ---

    def load(self, name: str, number: int) -> dict[str, Any]:
        """Return a run with what is known of it."""
        directory = self.base / name / str(number)
        run = {"app": name, "number": number, "state": "building", **read_json(directory / "run.json")}
        result = read_json(directory / "result.json")
        run.update(
            {
                key: result[key]
                for key in ("state", "exit_code", "hosts", "pid", "queued", "error", "truncated")
                if key in result
            }
        )
        if result.get("hosts"):
            run["ranks"] = rank_map(result["hosts"], int(run["manifest"]["ranks_per_host"]))
        if result.get("started"):
            run["seconds"] = round((result.get("ended") or time.time()) - result["started"], 2)
        run["user"] = self.person.name
        run["directory"] = str(directory)
        return run

    def current(self, name: str, number: int) -> dict[str, Any]:
        """Return a run, after a look at whether what should run does."""
        run = self.load(name, number)
        if (
            run["state"] == "building"
            and not works(run.get("builder"))
            and self.load(name, number)["state"] == "building"
        ):
            return {**run, "state": "rejected", "exit_code": 1, "error": "the build was cut off"}
        if run["state"] not in ("queued", "running") or self.alive(run):
            return run
        # It has ended: what it wrote last may have come after the first look.
        ended = self.load(name, number)
        if ended["state"] in FINAL:
            return ended
        state, code = SLURM_ENDS.get(str(run.get("slurm_state")), ("lost", 1))
        if self.person.uid == os.getuid():
            result = read_json(self.directory(run) / "result.json")
            write_result(
                self.directory(run) / "result.json", {**result, "state": state, "exit_code": code, "ended": time.time()}
            )
            return self.load(name, number)
        return {**ended, "state": state, "exit_code": code}

    def alive(self, run: dict[str, Any]) -> bool:
        """Return whether something runs that will write how the run ended."""
        if run.get("job"):
            argv = ["squeue", "--noheader", "--states=all", f"--jobs={run['job']}", "--format=%T|%r"]
            done = subprocess.run(argv, capture_output=True, text=True, env=self.environment, check=False)
            state, _bar, reason = done.stdout.strip().partition("|")
            run["slurm_state"] = state
            run["reason"] = reason
            # slurmctld that does not answer says nothing about the job; one that has forgotten it has ended it.
            return state.startswith(ALIVE) or (done.returncode != 0 and "Invalid job id" not in done.stderr)
        if not run.get("pid"):
            # Its process is about to say who it is.
            return time.time() - float(run.get("queued", 0)) < 30
        return works(run["pid"])

    # --- from a commit to a run ---

    def prepare(
        self, repository: Repository, commit: str, origin: str, overrides: Sequence[str], say: Say
    ) -> dict[str, Any]:
        """Unpack, check and build a commit; return the run, which is not started yet."""
        name = repository.name
        self.make_base()
        place = self.base / name
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        self.prune(name)
        run: dict[str, Any] = {
            "app": name,
            "commit": commit,
            "origin": origin,
            "begun": time.time(),
            "builder": os.getpid(),
        }
        for number in range(max([0, *self.numbers(name)]) + 1, 1 << 31):
            with contextlib.suppress(FileExistsError):
                (place / str(number)).mkdir(mode=0o755)
                run["number"] = number
                break
        directory = self.directory(run)
        self.save(run, "run.json")
        try:
            (directory / "source").mkdir(mode=0o755)
            files = repository.export(commit, directory / "source", self.settings.tree_mb)
            manifest = manifests.change(read_manifest(directory / "source", files), overrides)
            run["manifest"] = manifest.as_json()
            self.save(run, "run.json")
            problems = manifests.missing_sources(manifest, files)
            if problems:
                raise InvalidInput(join_problems(problems))
            self.check_hosts(manifest)
            run["versions"] = self.versions(manifest)
            say(f"{name} run {run['number']}: building\n".encode())
            for step in build_steps(manifest):
                self.build(step, directory, say)
            self.check_target(manifest, directory)
            self.save(run, "run.json")
            write_result(directory / "result.json", {"state": "built"})
        except (HpcError, Gone, OSError) as error:
            self.save(run, "run.json")
            text = str(error) or "the connection was cut while it was built"
            write_result(directory / "result.json", {"state": "rejected", "exit_code": 1, "error": text})
            shutil.rmtree(directory / "source", ignore_errors=True)
            raise
        return run

    def save(self, run: Mapping[str, Any], name: str) -> None:
        """Write what is known about a run."""
        path = self.directory(run) / name
        path.write_text(json.dumps(run, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def check_hosts(self, manifest: Manifest) -> None:
        """Refuse what there are too few hosts for, before time is spent on a build."""
        if self.settings.scheduler == "slurm":
            done = self.ask(["sinfo", "--noheader", "--format=%P|%D|%t"])
            count, where = usable_nodes(done, manifest.partition)
            there = f"partition {where} has {count}"
        else:
            known = parse_hostfile(Path(self.settings.hostfile).read_text(encoding="utf-8"))
            found = answering(known, manifest.hosts)
            count, there = len(found), f"{len(found)} of {len(known)} answer now ({', '.join(found) or 'none'})"
        if count < manifest.hosts:
            raise HpcError(
                f"The application asks for {manifest.hosts} hosts, and {there}.",
                "lower 'hosts', or push again when more hosts are up.",
            )

    def ask(self, argv: Sequence[str]) -> str:
        """Return what a command says."""
        try:
            done = subprocess.run(argv, capture_output=True, text=True, env=self.environment, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HpcError(f"{argv[0]}: {error}") from error
        if done.returncode:
            raise HpcError(f"{argv[0]}: {done.stderr.strip()[-500:] or done.returncode}")
        return done.stdout

    def versions(self, manifest: Manifest) -> dict[str, str]:
        """Return the versions of what builds and starts the program."""
        return {
            name: (self.ask([name, "--version"]).strip().splitlines() or [""])[0]
            for name in (*compilers(manifest), "mpirun")
        }

    def build(self, step: Step, directory: Path, say: Say) -> None:
        """Run one command of a build; all it says is shown and kept."""
        log = Output(directory / "build.log", BUILD_LOG_BYTES)
        text = f"$ {step.text}\n".encode()
        say(text)
        log.write(text)
        process = subprocess.Popen(
            step.argv,
            cwd=directory / "source",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + self.settings.build_seconds
        stream = process.stdout.fileno() if process.stdout else -1
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise HpcError(
                        f"The build took longer than {self.settings.build_seconds} seconds.",
                        "build less, or ask an administrator.",
                    )
                ready, _w, _x = select.select([stream], [], [], min(left, POLL_SECONDS))
                data = os.read(stream, 65536) if ready else b""
                log.write(data)
                if data:
                    say(data)
                # A child that was left behind may keep the stream open.
                if (ready and not data) or (not ready and process.poll() is not None):
                    break
            if process.wait(POLL_SECONDS * 10):
                raise HpcError(f"The build failed with exit code {process.returncode}: {step.text.splitlines()[0]}")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(log.handle)

    @staticmethod
    def check_target(manifest: Manifest, directory: Path) -> None:
        """See that the build made the program, inside of the tree."""
        source = (directory / "source").resolve()
        target = source / manifest.target
        real = target.resolve()
        if not target.is_file():
            raise HpcError(f"The build made no file '{manifest.target}'.", f"see 'to' in {manifest.file}.")
        if source not in real.parents:
            raise HpcError(f"'{manifest.target}' leads out of the tree, to {real}.", "build it inside of the tree.")
        if not os.access(target, os.X_OK):
            raise HpcError(f"'{manifest.target}' can't be executed.", f"see 'to' in {manifest.file}.")

    def start(self, run: dict[str, Any], say: Say) -> None:
        """Hand a run to Slurm, or to a process of its own."""
        manifest = Manifest(**{**run["manifest"], "build": tuple(run["manifest"]["build"])})
        directory = self.directory(run)
        plan = start_plan(manifest, self.settings, str(directory))
        (directory / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        (directory / "output").touch()
        write_result(directory / "result.json", {"state": "queued", "queued": time.time()})
        runner = Path(self.settings.library) / "turnkey/_mpi/runner.py"
        environment = {**self.environment, "TURNKEY_MPI_RUN": str(directory)}
        log = str(directory / "runner.log")
        if self.settings.scheduler == "slurm":
            script = f"#!{' '.join(PYTHON)}\n{runner.read_text(encoding='utf-8')}"
            argv = sbatch_argv(str(run["app"]), manifest, str(directory / "source"), log)
            done = subprocess.run(argv, input=script, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                text = done.stderr.strip()[-500:]
                write_result(directory / "result.json", {"state": "failed", "exit_code": 1, "error": f"sbatch: {text}"})
                raise HpcError(f"Slurm takes no such job: {text}", f"change {manifest.file}, or ask an administrator.")
            run["job"] = int(done.stdout.strip().split(";")[0])
        else:
            with Path(log).open("wb") as text_of_runner:
                subprocess.Popen(
                    [*PYTHON, str(runner)],
                    cwd="/",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=text_of_runner,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        self.save(run, "run.json")
        job = f" (job {run['job']})" if "job" in run else ""
        say(f"{run['app']} run {run['number']}{job}: {command(manifest, self.settings.scheduler)}\n".encode())

    def follow(self, name: str, number: int, say: Say) -> dict[str, Any]:
        """Show what a run says, until it has ended; return it."""
        path = self.base / name / str(number) / "output"
        offset, asked, told = 0, 0.0, ""
        run = self.load(name, number)
        while True:
            # Before the output is read: so what was said before the end is seen.
            now = time.monotonic()
            if run["state"] not in FINAL and now - asked >= ASK_SECONDS:
                run = self.current(name, number)
                asked = now
            else:
                run = {**self.load(name, number), "reason": run.get("reason")}
            with contextlib.suppress(FileNotFoundError), path.open("rb") as output:
                output.seek(offset)
                while data := output.read(65536):
                    offset += len(data)
                    say(data)
            if run["state"] in FINAL or run["state"] == "rejected":
                return run
            reason = str(run.get("reason") or "")
            if run["state"] == "queued" and reason not in ("", "None", told):
                told = reason
                say(f"waiting in the queue: {reason}\n".encode())
            time.sleep(POLL_SECONDS)  # poll interval

    # --- what users do with runs ---

    def cancel(self, run: Mapping[str, Any]) -> None:
        """End a run."""
        if run["state"] not in ("queued", "running"):
            raise HpcError(f"{run['app']} run {run['number']} has ended already ({run['state']}).")
        if run.get("job"):
            self.ask(["scancel", str(run["job"])])
        elif run.get("pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(run["pid"]), signal.SIGTERM)

    def prune(self, name: str) -> None:
        """Remove the oldest runs, so that with the one to come there are as many as are kept."""
        runs = [self.current(name, number) for number in self.numbers(name)]
        for number in expired(runs, max(0, self.settings.keep_runs - 1)):
            shutil.rmtree(self.base / name / str(number), ignore_errors=True)

    def share(self, name: str, shared: bool) -> None:
        """Let others see the runs of an application, or no longer."""
        place = self.base / name
        if not place.is_dir():
            raise HpcError(f"'{name}' has no run.", "push it first.")
        place.chmod(0o755 if shared else 0o700)

    def remove(self, name: str) -> None:
        """Remove an application with its repository and its runs."""
        runs = [self.current(name, number) for number in self.numbers(name)]
        active = [str(run["number"]) for run in runs if run["state"] in ("queued", "running")]
        if active:
            raise HpcError(f"'{name}' runs (run {', '.join(active)}).", f"end it with 'apps cancel {name}'.")
        repository = self.repository(name)
        if not runs and not repository.ours:
            raise HpcError(f"There is no application '{name}'.", "see 'apps list'.")
        shutil.rmtree(self.base / name, ignore_errors=True)
        if repository.ours:
            shutil.rmtree(repository.path)
        for place in (self.base, repository.path.parent):
            # Unless it holds other applications.
            with contextlib.suppress(OSError):
                place.rmdir()


def read_manifest(source: Path, files: Sequence[str]) -> Manifest:
    """Return the manifest of a tree."""
    found = [name for name in NAMES if name in files]
    if len(found) != 1:
        problem = "both mpi.yml and mpi.xml" if found else "no file mpi.yml"
        raise InvalidInput(
            f"The tree has {problem} at its top.",
            "keep one of them." if found else "add one with the lines 'from: app.c', 'to: app' and 'hosts: 4'.",
        )
    with (source / found[0]).open("rb") as file:
        return manifests.parse(found[0], file.read(manifests.MOST_BYTES + 1))
