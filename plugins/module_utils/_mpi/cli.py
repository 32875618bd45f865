# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs on the head node: ``git-receive-pack``, the two hooks that it calls, and ``apps``.

All of them run as the user who logged in. None is setuid, no daemon stands behind them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .._errors import HpcError, InvalidInput
from .manifest import NAMES, OVERRIDES
from .plan import Settings, app_of, summary, table
from .repository import Repository, environment_of_git, pushed, receive_argv
from .service import Gone, Person, Service

__all__ = ["main"]

FAILED_RUN = """\
The commit is in the repository all the same, and 'apps run {app}' on {host} runs it again.
Git calls this push failed because the run was.
"""


def say(data: bytes) -> None:
    """Show bytes at once."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Gone from error


def line(text: str) -> None:
    """Show a line."""
    say(f"{text}\n".encode())


def complain(text: str) -> None:
    """Say what is wrong, or why it takes so long."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


# --- what git calls --------------------------------------------------------------------------------------------------


def receive_pack(service: Service, arguments: Sequence[str]) -> int:
    """Take a push. Repositories that are no application get git's own program, as if this one were not here."""
    person = service.person
    path = arguments[-1] if arguments else ""
    name = app_of(path, str(person.home), person.name)
    there = person.home / "apps" / (name or "")
    # Root's pushes are none of an application: nothing is built as root.
    if (
        not name
        or not person.uid
        or len(arguments) > 1
        or (there.exists() and not (there / "turnkey-mpi-app").is_file())
    ):
        os.execv("/usr/bin/git-receive-pack", ["git-receive-pack", *arguments])
    service.make_base()
    repository = service.repository(name)
    repository.create()
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "TURNKEY_"))}

    def waiting() -> None:
        complain(f"Another push of {name} is at work; this one waits.")

    with tempfile.NamedTemporaryFile(prefix="push-", suffix=".json", dir=repository.path) as note:
        with repository.lock(waiting) as handle:
            # The hooks get the lock, and the second one gives it back as soon as the application has been started.
            variables.update(TURNKEY_MPI_LOCK=str(handle), TURNKEY_MPI_PUSH=note.name)
            done = subprocess.run(
                receive_argv(service.settings, repository.path), env=variables, pass_fds=[handle], check=False
            )
        result = json.loads(Path(note.name).read_text(encoding="utf-8") or "{}")
    return done.returncode or min(int(result.get("exit_code") or 0), 255)


def repository_of_hook(service: Service) -> Repository:
    """Return the repository that git calls a hook for."""
    git_dir = Path(os.environ.get("GIT_DIR", ".")).resolve()
    return service.repository(git_dir.name, environment_of_git(os.environ))


def push_options() -> list[str]:
    """Return what the user gave with ``git push -o``."""
    count = os.environ.get("GIT_PUSH_OPTION_COUNT", "0")
    return [os.environ.get(f"GIT_PUSH_OPTION_{number}", "") for number in range(int(count) if count.isdigit() else 0)]


def pre_receive(service: Service, arguments: Sequence[str]) -> int:
    """Build what is pushed. A failure refuses the push."""
    changes = pushed(sys.stdin.read().splitlines())
    if not changes:
        return 0
    if len(changes) > 1:
        raise InvalidInput(
            f"This push changes {len(changes)} branches, and each would be run.", "push one branch after the other."
        )
    commit, ref = changes[0]
    repository = repository_of_hook(service)
    run = service.prepare(repository, commit, ref, push_options(), say)
    Path(os.environ["TURNKEY_MPI_PUSH"]).write_text(json.dumps({"number": run["number"]}), encoding="utf-8")
    return 0


def post_receive(service: Service, arguments: Sequence[str]) -> int:
    """Run what was built, and show what it says."""
    changes = pushed(sys.stdin.read().splitlines())
    note = Path(os.environ["TURNKEY_MPI_PUSH"])
    number = json.loads(note.read_text(encoding="utf-8") or "{}").get("number")
    if not changes or not number:
        return 0
    repository = repository_of_hook(service)
    repository.point_head(changes[0][1])
    result = {"number": number, "exit_code": 1}
    try:
        service.start(service.load(repository.name, number), say)
        fcntl.flock(int(os.environ["TURNKEY_MPI_LOCK"]), fcntl.LOCK_UN)
        run = service.follow(repository.name, number, say)
        result["exit_code"] = int(run["exit_code"])
        line(summary(run))
    finally:
        note.write_text(json.dumps(result), encoding="utf-8")
        if result["exit_code"]:
            say(FAILED_RUN.format(app=repository.name, host=os.uname().nodename).encode())
    return 0


# --- apps ------------------------------------------------------------------------------------------------------------


def find(service: Service, what: str) -> tuple[Service, str]:
    """Return whose application ``[USER/]APP`` is, and its name."""
    owner, slash, name = what.rpartition("/")
    if slash and owner != service.person.name:
        service = Service(service.settings, Person.named(owner), os.environ)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise InvalidInput(f"'{what}' is no application.", "see 'apps list'.")
    return service, name


def choose(service: Service, what: str, number: int | None) -> tuple[Service, dict[str, Any]]:
    """Return a run of an application, by default the last."""
    service, name = find(service, what)
    numbers = service.numbers(name)
    if not numbers:
        raise InvalidInput(f"There is no run of '{what}'.", "see 'apps list'.")
    if number is not None and number not in numbers:
        raise InvalidInput(f"There is no run {number} of '{what}'.", f"there are {', '.join(map(str, numbers))}.")
    return service, service.current(name, numbers[-1] if number is None else number)


def when(run: dict[str, Any]) -> str:
    """Return when a run began."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(run.get("begun", 0))))


def printable(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in which nothing moves the cursor, whoever wrote it."""
    return table([[re.sub(r"[^ -~\u00a1-\U0010ffff]", "?", cell) for cell in row] for row in rows])


def list_apps(service: Service, options: argparse.Namespace) -> int:
    """Show the applications with their last run."""
    rows = [("app", "run", "state", "begun", "commit")]
    found = []
    for name in service.apps():
        numbers = service.numbers(name)
        run = service.current(name, numbers[-1]) if numbers else {"app": name, "number": "-", "state": "-"}
        found.append(run)
        rows.append(
            (name, str(run["number"]), run["state"], when(run) if numbers else "-", run.get("commit", "-")[:10])
        )
    line(json.dumps(found) if options.json else printable(rows))
    return 0


def list_runs(service: Service, options: argparse.Namespace) -> int:
    """Show the runs of an application."""
    service, name = find(service, options.app)
    runs = [service.current(name, number) for number in service.numbers(name, must_be=True)]
    rows = [("run", "state", "exit", "seconds", "hosts", "begun", "commit", "origin")]
    for run in runs:
        hosts = len(run.get("hosts") or []) or run.get("manifest", {}).get("hosts", "-")
        values = (run["number"], run["state"], run.get("exit_code", "-"), run.get("seconds", "-"), hosts, when(run))
        rows.append((*map(str, values), str(run.get("commit"))[:10], str(run.get("origin"))))  # type: ignore[arg-type]
    line(json.dumps(runs) if options.json else printable(rows))
    return 0


def status(service: Service, options: argparse.Namespace) -> int:
    """Show all that is known of a run."""
    service, run = choose(service, options.app, options.run)
    if options.json:
        line(json.dumps({**run, **texts(service, run)}))
        return 0
    rows = [("", summary(run))] if run["state"] != "rejected" else [("", f"{run['app']} run {run['number']}: rejected")]
    rows += [
        (key, str(run[key]))
        for key in ("user", "commit", "origin", "job", "reason", "error", "directory")
        if run.get(key)
    ]
    rows += list(run.get("versions", {}).items())
    rows += [(f"ranks on {host}", ", ".join(map(str, ranks))) for host, ranks in run.get("ranks", {}).items()]
    line(printable(rows[1:]))
    line(rows[0][1])
    return 0


def texts(service: Service, run: dict[str, Any]) -> dict[str, str]:
    """Return what build and run said."""
    found = {}
    for key, name in (("build_log", "build.log"), ("output", "output")):
        path = service.directory(run) / name
        found[key] = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return found


def log(service: Service, options: argparse.Namespace) -> int:
    """Show what a run says."""
    service, run = choose(service, options.app, options.run)
    if options.build:
        say(texts(service, run)["build_log"].encode())
        return 0
    if options.follow:
        line(summary(service.follow(run["app"], run["number"], say)))
        return 0
    say(texts(service, run)["output"].encode())
    return 0


def own(service: Service, what: str) -> None:
    """Refuse to touch what belongs to somebody else."""
    if find(service, what)[0] is not service:
        raise HpcError(f"'{what}' is not yours.", "leave out the user in front of the name.")


def cancel(service: Service, options: argparse.Namespace) -> int:
    """End a run."""
    own(service, options.app)
    service, run = choose(service, options.app, options.run)
    service.cancel(run)
    line(summary(service.follow(run["app"], run["number"], lambda data: None)))
    return 0


def run_again(service: Service, options: argparse.Namespace) -> int:
    """Run a commit of an application once more, or a tree that comes as an archive."""
    own(service, options.app)
    repository = service.repository(options.app.rpartition("/")[2])

    def waiting() -> None:
        complain(f"A push of {repository.name} is at work; this waits.")

    show = (lambda data: None) if options.json else say
    with contextlib.ExitStack() as stack:
        if options.tar:
            repository.create()
        elif not repository.ours:
            raise InvalidInput(f"There is no application '{options.app}'.", "push it first, or see 'apps list'.")
        stack.enter_context(repository.lock(waiting))
        if options.tar:
            archive = sys.stdin.buffer if options.tar == "-" else stack.enter_context(Path(options.tar).open("rb"))
            commit, origin = (
                repository.commit_archive(archive, service.person.name, service.settings.tree_mb),
                "archive",
            )
        else:
            what = options.commit or next(iter(repository.branches()), "HEAD")
            commit, origin = repository.resolve(what), what
        run = service.prepare(repository, commit, origin, options.option, show)
        service.start(run, show)
    if options.detach:
        line(
            json.dumps(service.load(run["app"], run["number"]))
            if options.json
            else f"run {run['number']} is on its way"
        )
        return 0
    run = service.follow(run["app"], run["number"], show)
    line(json.dumps({**run, **texts(service, run)}) if options.json else summary(run))
    return int(run["exit_code"])


def share(service: Service, options: argparse.Namespace) -> int:
    """Let everybody on the cluster see the runs of an application, or nobody else."""
    own(service, options.app)
    service.share(find(service, options.app)[1], options.command == "share")
    return 0


def remove(service: Service, options: argparse.Namespace) -> int:
    """Remove an application."""
    own(service, options.app)
    if not options.yes:
        raise InvalidInput(
            f"This removes the repository of '{options.app}' and all its runs.",
            f"'apps remove --yes {options.app}' does it.",
        )
    service.remove(find(service, options.app)[1])
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments of ``apps``."""
    top = argparse.ArgumentParser(
        prog="apps",
        description="MPI applications that were pushed to this cluster. An application is a tree with a manifest "
        f"({' or '.join(NAMES)}); 'git push USER@THIS_HOST:apps/NAME' builds and runs it.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str, app: bool = True, run: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if app:
            sub.add_argument("app", metavar="[USER/]APP", help="the application")
        if run:
            sub.add_argument("run", metavar="RUN", nargs="?", type=int, help="number of the run, the last by default")
        return sub

    as_json: dict[str, Any] = {"action": "store_true", "help": "print JSON"}
    add("list", list_apps, "your applications, with their last run", app=False).add_argument("--json", **as_json)
    add("runs", list_runs, "the runs of an application").add_argument("--json", **as_json)
    add("status", status, "all that is known of a run", run=True).add_argument("--json", **as_json)
    sub = add("log", log, "what a run says", run=True)
    sub.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    sub.add_argument("--build", action="store_true", help="the log of the build instead")
    add("cancel", cancel, "end a run", run=True)
    sub = add("run", run_again, "build and run a commit that was pushed, the last one by default")
    sub.add_argument("commit", metavar="COMMIT", nargs="?", help="commit, branch or tag")
    sub.add_argument("-o", "--option", action="append", default=[], metavar="KEY=VALUE",
                     help=f"another value for this run: {', '.join(OVERRIDES)}")  # fmt: skip
    sub.add_argument(
        "--tar",
        metavar="FILE",
        help="run the tree in a tar archive (- is stdin), which becomes a commit of branch 'playbook'",
    )
    sub.add_argument("--detach", action="store_true", help="don't wait for the end")
    sub.add_argument("--json", **as_json)
    add("share", share, "let everybody on the cluster see the runs of an application")
    add("unshare", share, "let nobody else see them any more")
    add("remove", remove, "remove an application, its repository and its runs").add_argument(
        "--yes", action="store_true", help="really"
    )
    return top


def apps(service: Service, arguments: Sequence[str]) -> int:
    """Run the command that users call."""
    options = parser().parse_args(arguments)
    return int(options.function(service, options))


PROGRAMS = {"receive-pack": receive_pack, "pre-receive": pre_receive, "post-receive": post_receive, "apps": apps}


def main(library: str) -> NoReturn:
    """Run the program that the first argument names."""
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    settings = Settings(**json.loads((Path(library) / "settings.json").read_text(encoding="utf-8")), library=library)
    try:
        service = Service(settings, Person.current(), os.environ)
        raise SystemExit(PROGRAMS[sys.argv[1]](service, sys.argv[2:]))
    except Gone as error:
        # The run goes on; there is nobody to tell.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(1) from error
    except (HpcError, OSError, subprocess.SubprocessError) as error:
        with contextlib.suppress(OSError):
            complain(f"apps: {error}")
        raise SystemExit(1) from error
