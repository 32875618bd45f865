# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs as a user on the head node: pushes what nobody should push, and prints how each push ended, as JSON.

Each case is a tree (or bytes of a git tree) that tries to leave a file MARK, or to get at files outside of the tree.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MARK = str(Path.home() / "MARK")
TOUCH = f"touch {MARK}"
GOOD = {"from": "hello.c", "to": "hello", "hosts": "1"}
HELLO = "int main(void) { return 0; }\n"
EVIL = f"#!/bin/sh\n{TOUCH}\n"


def manifest(**changes: str) -> dict[str, str]:
    lines = {**GOOD, **{key.rstrip("_"): value for key, value in changes.items()}}
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    return {"mpi.yml": text, "hello.c": HELLO}


MANIFESTS = {
    "target above the tree": manifest(to="../../../../home/alice/.bashrc"),
    "target as an option": manifest(to="-Wl,--x"),
    "target in git's directory": manifest(to=".git/hooks/post-checkout"),
    "source as an option": manifest(from_="-fplugin=./evil.so.c"),
    "source as a command": manifest(from_=f"'hello.c;{TOUCH};.c'"),
    "hosts with an option": manifest(hosts=f"'1 --wrap={TOUCH}'"),
    "partition as an option": manifest(partition=f"'--wrap={TOUCH}'"),
    "time as a command": manifest(time_limit=f"'1s; {TOUCH}'"),
    "loader": manifest(env="{LD_PRELOAD: ./evil.so}"),
    "task prolog of srun": manifest(env="{SLURM_TASK_PROLOG: ./evil}"),
    "agent of mpirun": manifest(env="{OMPI_MCA_plm_rsh_agent: ./evil}"),
    "variable as a command": manifest(env=f"{{'A;{TOUCH}': x}}"),
    "object of another language": manifest(args=f"!!python/object/apply:os.system ['{TOUCH}']"),
    "large manifest": manifest(args="x" * 100_000),
    "escape sequence": {**manifest(), "mpi.yml": "from: \x1b]0;x\x07hello.c\n"},
    "build makes a link": {"mpi.yml": "build: ln -s /bin/true hello\nto: hello\nhosts: 1\n"},
}
"""Trees as names and texts; each is refused. The unit tests of the manifest have more."""

LINKS = {
    "link to a file": {**manifest(), "hello.c": "-> /etc/passwd"},
    "link upwards": {**manifest(), "data": "-> ../../../.ssh"},
    "link over a detour": {**manifest(), "here": "-> .", "data": "-> here/../../x"},
    "manifest is a link": {"hello.c": HELLO, "mpi.yml": "-> /etc/passwd"},
}


def git(place: str, *arguments: str, stdin: bytes | None = None) -> str:
    argv = ["git", "-C", place, "-c", "user.name=x", "-c", "user.email=x", *arguments]
    return subprocess.run(argv, input=stdin, capture_output=True, check=True).stdout.decode().strip()


def commit_files(place: str, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = Path(place, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
            path.chmod(0o755)
    git(place, "add", "--all", "--force")
    git(place, "commit", "--quiet", "--message=x")
    return git(place, "rev-parse", "HEAD")


def commit_entries(place: str, entries: list[tuple[str, str, str]]) -> str:
    """Return a commit of a tree that git itself would not make."""
    raw = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(sha) for mode, name, sha in entries)
    tree = git(place, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=raw)
    return git(place, "commit-tree", tree, "-m", "x")


def push(place: str, commit: str, app: str, *options: str) -> tuple[int, str]:
    """Push to the program that a login meets, without the way over the network."""
    argv = ["git", "-C", place, "push", "--receive-pack=/usr/local/bin/git-receive-pack", *options]
    argv += [str(Path.home() / "apps" / app), f"{commit}:refs/heads/main"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=120)
    return done.returncode, done.stderr.decode(errors="replace")


def main() -> None:
    def attempt(case: tuple[int, tuple[str, dict[str, str]]]) -> tuple[str, tuple[int, str]]:
        number, (name, files) = case
        with tempfile.TemporaryDirectory() as place:
            git(place, "init", "--quiet")
            return name, push(place, commit_files(place, files), f"evil{number}")

    with ThreadPoolExecutor(max_workers=3) as pool:
        results = dict(pool.map(attempt, enumerate({**MANIFESTS, **LINKS}.items())))
    with tempfile.TemporaryDirectory() as place:
        git(place, "init", "--quiet")
        good = commit_files(place, manifest())
        blob = git(place, "hash-object", "-w", "--stdin", stdin=EVIL.encode())
        folder = git(place, "hash-object", "-t", "tree", "-w", "--stdin", "--literally",
                     stdin=b"100755 post-receive\0" + bytes.fromhex(blob))  # fmt: skip
        entries = {
            "tree with ..": [("40000", "..", folder)],
            "tree with .git": [("40000", ".git", folder)],
            "file with a slash": [("100644", "../../evil", blob)],
            "submodule": [("160000", "module", good)],
        }
        for number, (name, tree) in enumerate(entries.items()):
            results[name] = push(place, commit_entries(place, tree), f"odd{number}")
        results["option of a push"] = push(place, good, "option", "-o", f"hosts=1 --wrap={TOUCH}")
        results["unknown option of a push"] = push(place, good, "option", "-o", "chdir=/")
        for name in (f"x;{TOUCH}", "-x", "a.git", "..", "a b"):
            results[f"name {name}"] = push(place, good, name)
        names = (
            "hooks/pre-receive",
            "hooks/post-receive",
            "config",
            "env",
            "mpicc",
            "srun",
            "refs/x",
            "objects/x",
            "HEAD",
        )
        tricks = {
            **manifest(),
            **dict.fromkeys(names, EVIL),
            ".gitattributes": "* filter=evil\n",
            ".gitconfig": "[core]\n\thooksPath = hooks\n",
        }
        results["good, with hooks and tricks"] = push(place, commit_files(place, tricks), "tricks")
    results["MARK"] = os.path.exists(MARK)  # noqa: PTH110
    json.dump(results, sys.stdout)


main()
