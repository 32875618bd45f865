# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository of an application, in its user's home directory, and the trees that come out of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import posixpath
import re
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Callable

from .._errors import HpcError, InvalidInput
from .plan import MOST_FILES, Entry, Settings, check_entries, check_name, escapes

__all__ = ["BRANCH", "Repository", "extract", "receive_argv"]

GIT = "/usr/bin/git"
# Shows that the repository is one of ours; its content is nothing, it is locked while an application is pushed.
MARK = "turnkey-mpi-app"
# Where trees go that come from a playbook.
BRANCH = "refs/heads/playbook"


def receive_argv(settings: Settings, path: Path) -> list[str]:
    """Return the command that takes a push. What it says about hooks comes before what the repository says."""
    options = {
        "core.hooksPath": f"{settings.library}/hooks",
        "receive.fsckObjects": "true",
        "receive.maxInputSize": str(settings.push_mb * 1_000_000),
        "receive.advertisePushOptions": "true",
        "receive.denyNonFastForwards": "false",
    }
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return [GIT, *words, "receive-pack", str(path)]


class Repository:
    """A bare repository."""

    def __init__(self, name: str, home: Path, environment: Mapping[str, str]) -> None:
        """Take the application ``name``. ``environment`` is git's; in a hook it names the objects."""
        self.name = check_name(name)
        self.path = home / "apps" / name
        self.environment = {**environment, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}

    @property
    def ours(self) -> bool:
        """Whether this is the repository of an application, and not something that the user has had before."""
        return (self.path / MARK).is_file()

    def git(self, *arguments: str, more: Mapping[str, str] | None = None) -> str:
        """Run git in this repository and return what it says."""
        done = subprocess.run(
            [GIT, f"--git-dir={self.path}", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**self.environment, **(more or {})},
            check=False,
        )
        if done.returncode:
            raise HpcError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()[-500:]}")
        return done.stdout.decode("utf-8", "surrogateescape")

    def create(self) -> None:
        """Make the repository, unless it is there."""
        if self.ours:
            return
        if self.path.exists() or self.path.is_symlink():
            raise HpcError(
                f"{self.path} exists and is no application.", "move it away, or give the application another name."
            )
        self.path.parent.mkdir(mode=0o755, exist_ok=True)
        # Made aside and moved into place, so that two first pushes don't meet half of it.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.path.parent) as place:
            made = Path(place) / "repository"
            argv = [GIT, "init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(made)]
            subprocess.run(argv, check=True, env=self.environment, stdin=subprocess.DEVNULL)
            made.chmod(0o700)
            (made / MARK).touch()
            with contextlib.suppress(OSError):
                made.rename(self.path)
        if not self.ours:
            raise HpcError(f"{self.path} can't be made.", "look at the rights of its directory.")

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[int]:
        """Keep other pushes of this application away. ``waiting`` is called if one is at work."""
        handle = os.open(self.path / MARK, os.O_RDWR)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def resolve(self, what: str) -> str:
        """Return the commit that a name stands for."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./@^~-]*", what):
            raise InvalidInput(f"'{what}' names no commit.", "give a branch, a tag or a commit.")
        try:
            return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{what}^{{commit}}").strip()
        except HpcError as error:
            raise InvalidInput(f"{self.name} has no commit '{what}'.", "push it first.") from error

    def branches(self) -> list[str]:
        """Return the branches, the one that was committed to last first."""
        return self.git("for-each-ref", "--sort=-committerdate", "--format=%(refname:short)", "refs/heads").split()

    def entries(self, commit: str) -> list[Entry]:
        """Return the files of a commit."""
        found = []
        for line in self.git("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split("\0"):
            head, tab, path = line.partition("\t")
            if tab:
                mode, _kind, _name, size = head.split()
                found.append(Entry(mode, int(size) if size.isdigit() else 0, path))
        return found

    def export(self, commit: str, place: Path, most_mb: int) -> list[str]:
        """Write the tree of a commit below ``place``, which is empty, and return its files."""
        entries = self.entries(commit)
        check_entries(entries, most_mb)
        argv = [GIT, f"--git-dir={self.path}", "archive", "--format=tar", commit]
        with tempfile.TemporaryFile() as archive:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=archive,
                stderr=subprocess.PIPE,
                env=self.environment,
                check=False,
            )
            if done.returncode:
                raise HpcError(f"git archive: {done.stderr.decode(errors='replace').strip()[-500:]}")
            archive.seek(0)
            return extract(archive, place, most_mb)

    def commit_archive(self, archive: IO[bytes], user: str, most_mb: int) -> str:
        """Make a commit of a tar archive, unless the last one of `BRANCH` has the same files, and return it."""
        with tempfile.TemporaryDirectory(prefix="turnkey-mpi-") as place:
            tree = Path(place) / "tree"
            tree.mkdir()
            extract(archive, tree, most_mb)
            work = {"GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": f"{place}/index"}
            # Filters and hooks are what the user's own configuration says; the tree brings none.
            self.git("add", "--all", "--force", ".", more=work)
            content = self.git("write-tree", more=work).strip()
        try:
            last = self.git("rev-parse", "--verify", "--quiet", BRANCH).strip()
        except HpcError:
            last = ""
        if last and self.git("rev-parse", f"{last}^{{tree}}").strip() == content:
            return last
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", user), ("EMAIL", f"{user}@localhost"))
        }
        parents = ["-p", last] if last else []
        commit = self.git("commit-tree", content, *parents, "-m", "From a playbook", more=who).strip()
        self.git("update-ref", BRANCH, commit)
        return commit

    def point_head(self, ref: str) -> None:
        """Let HEAD name ``ref`` if what it names is not there, so that a clone has files."""
        try:
            self.git("rev-parse", "--verify", "--quiet", "HEAD")
        except HpcError:
            self.git("symbolic-ref", "HEAD", ref)


def extract(archive: IO[bytes], place: Path, most_mb: int) -> list[str]:
    """Unpack a tar archive that nobody trusts below ``place``: plain files, directories, and links that stay inside."""
    files: list[str] = []
    links: list[tuple[str, str]] = []
    total = 0
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as tar:
            for member in tar:
                path = posixpath.normpath(member.name)
                if path == ".":
                    continue
                parts = path.split("/")
                if path.startswith("/") or ".." in parts or any(part.lower() == ".git" for part in parts):
                    raise InvalidInput(f"The tree has {member.name!r}, which leads out of it.", "take it out.")
                total += member.size
                if total > most_mb * 1_000_000 or len(files) > MOST_FILES:
                    raise InvalidInput(
                        f"The tree has more than {most_mb} MB or {MOST_FILES} files.", "take out what is not source."
                    )
                if member.isdir():
                    (place / path).mkdir(mode=0o755, parents=True, exist_ok=True)
                elif member.issym():
                    if escapes(path, member.linkname):
                        raise InvalidInput(
                            f"The tree has the symbolic link {path!r} to {member.linkname!r}, which leads out of it.",
                            "put the file itself into the tree.",
                        )
                    links.append((path, member.linkname))
                elif member.isreg():
                    write(tar, member, place / path)
                    files.append(path)
                else:
                    raise InvalidInput(f"The tree has {member.name!r}, which is no plain file.", "take it out.")
    except (tarfile.TarError, EOFError) as error:
        raise InvalidInput(f"The archive can't be read: {error}.", "make it again with tar.") from error
    # Last, so that nothing is written through one of them.
    for path, target in links:
        (place / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        (place / path).symlink_to(target)
    return files


def write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write one file of an archive, which is not there yet."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    source = tar.extractfile(member)
    mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as target:
        while source and (data := source.read(1 << 20)):
            target.write(data)


def environment_of_git(before: Mapping[str, Any]) -> dict[str, str]:
    """Return git's own variables, which a hook needs to see the objects of a push that is not accepted yet."""
    names = ("GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")
    return {name: before[name] for name in names if name in before}


def pushed(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return commit and name of the branches that a push changes, from the input of a hook."""
    found = []
    for line in lines:
        _old, new, ref = line.split(" ", 2)
        if ref.startswith("refs/heads/") and set(new) != {"0"}:
            found.append((new, ref))
    return found
