# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versioned virtual environments from a lock file, with a link to the one in use and one to the one before.

PATH/<release>/     a virtual environment; its name is a hash of the lock file and of the Python that runs it
PATH/current        link to the release in use
PATH/previous       link to the one before, for a rollback

Releases that are there without a record of their making came with the image that the host started from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._state import (
    STATE_DIR,
    Run,
    load_json,
    save_json,
    write_atomically,
)

__all__ = [
    "RECORDS",
    "Action",
    "Environment",
    "apply",
    "download_argv",
    "fetch_wheels",
    "look",
    "made_here",
    "outdated",
    "pack",
    "plan",
    "plan_removal",
    "plan_rollback",
    "release_name",
]

# Written last: a release without it was cut off and is built anew.
COMPLETE = ".complete"
LINKS = ("current", "previous")

RECORDS = Path(STATE_DIR) / "python_environments.json"
"""Which releases were made on this host, by path, so that a reset leaves what came with an image."""


@dataclass(frozen=True)
class Environment:
    """What is below the path: complete releases, what is left of others, and where the links lead."""

    releases: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    current: str = ""
    previous: str = ""


@dataclass(frozen=True)
class Action:
    """One step: ``build``, ``remove``, ``write`` (file ``name``), ``link`` (``name`` to ``release``) or ``unlink``."""

    verb: str
    release: str
    name: str = ""

    def __str__(self) -> str:
        if self.verb == "link":
            return f"link {self.name} to {self.release}"
        if self.verb == "unlink":
            return f"unlink {self.name}"
        return f"{self.verb} {self.release}" + (f"/{self.name}" if self.name else "")


def release_name(requirements: str, python: str) -> str:
    """Return the name of the release that ``requirements`` give with the Python ``python`` (such as 3.11)."""
    pins = [line for line in requirements.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not any("--hash=" in line for line in pins):
        raise InvalidInput(
            "The requirements have no hashes.",
            "lock them, for example with 'uv pip compile --generate-hashes' or 'pip-compile --generate-hashes'.",
        )
    return hashlib.sha256("\n".join([python, *pins]).encode()).hexdigest()[:12]


def look(path: Path) -> Environment:
    """Return what is below ``path``."""
    if not path.is_dir():
        return Environment()
    directories = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink())
    complete = tuple(name for name in directories if (path / name / COMPLETE).exists())
    links = {name: (path / name).readlink().name if (path / name).is_symlink() else "" for name in LINKS}
    return Environment(complete, tuple(name for name in directories if name not in complete), **links)


def outdated(path: Path, files: Mapping[str, str]) -> list[str]:
    """Return the names of ``files`` that the release in ``path`` lacks, or has otherwise."""
    return [name for name, text in files.items() if not (path / name).is_file() or (path / name).read_text() != text]


def plan(found: Environment, release: str, outdated_files: Sequence[str] = ()) -> list[Action]:
    """Return the steps to ``release``: what is used now becomes the previous one, older ones go."""
    actions = [Action("remove", name) for name in found.broken]
    if release not in found.releases:
        actions.append(Action("build", release))
    actions += [Action("write", release, name) for name in outdated_files]
    previous = found.previous
    if found.current != release:
        if found.current in found.releases:
            previous = found.current
            actions.append(Action("link", previous, "previous"))
        actions.append(Action("link", release, "current"))
    actions += [Action("remove", name) for name in found.releases if name not in (release, previous)]
    return actions


def plan_rollback(found: Environment) -> list[Action]:
    """Return the steps that swap the two links."""
    if found.previous not in found.releases or found.previous == found.current:
        raise HpcError(
            "There is no previous release to go back to.", "install the collection's version that had it, and run site."
        )
    return [Action("link", found.previous, "current"), Action("link", found.current, "previous")]


def plan_removal(found: Environment, made: Sequence[str]) -> list[Action]:
    """Return the steps that remove what was made here (``made``); what came with the image is in use again."""
    stays = [name for name in found.releases if name not in made]
    actions = [Action("remove", name) for name in (*found.broken, *found.releases) if name not in stays]
    if stays and found.current not in stays:
        back = found.previous if found.previous in stays else stays[-1]
        actions.append(Action("link", back, "current"))
    if found.previous and (found.previous not in stays or found.current not in stays):
        actions.append(Action("unlink", "", "previous"))
    return actions


def made_here(path: Path, records: Path = RECORDS) -> list[str]:
    """Return the releases below ``path`` that were made on this host."""
    return list(load_json(records).get(str(path), []))


def note(path: Path, made: Sequence[str], records: Path) -> None:
    """Note which releases below ``path`` were made on this host."""
    save_json(records, {**load_json(records), str(path): sorted(made)})


def apply(
    run: Run,
    path: Path,
    actions: list[Action],
    requirements: str = "",
    files: Mapping[str, str] | None = None,
    wheels: str = "",
    records: Path = RECORDS,
) -> None:
    """Do ``actions``. ``wheels`` is an archive of the wheels that a build takes."""
    path.mkdir(parents=True, exist_ok=True, mode=0o755)
    for action in actions:
        target, made = path / action.release, set(made_here(path, records))
        if action.verb == "build":
            # First the note: what is half made goes at a reset, too.
            note(path, [*made, action.release], records)
            build(run, target, requirements, wheels)
            (target / COMPLETE).touch()
        elif action.verb == "write":
            (target / action.name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target / action.name, (files or {})[action.name].encode(), 0o644)
        elif action.verb == "remove":
            shutil.rmtree(target)
            note(path, [*(made - {action.release})], records)
        elif action.verb == "unlink":
            (path / action.name).unlink(missing_ok=True)
        else:
            fresh = path / f".{action.name}.new"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(action.release)
            fresh.rename(path / action.name)
            # Services compare this time with that of their start.
            os.utime(target)


def build(run: Run, target: Path, requirements: str, wheels: str) -> None:
    """Make the environment in its final place, since a virtual environment can't be moved."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with tarfile.open(wheels) as archive:
            for member in archive.getmembers():
                name = Path(member.name).name
                content = archive.extractfile(member)
                if member.isfile() and content:
                    (scratch / name).write_bytes(content.read())
        (scratch / "requirements.txt").write_text(requirements, encoding="utf-8")
        # The lock file is complete, so nothing is resolved, and nothing else can come in.
        pip = [
            str(target / "bin/python"),
            "-m",
            "pip",
            "--isolated",
            "install",
            "--quiet",
            "--no-cache-dir",
            "--no-compile",
        ]
        pip += [
            "--disable-pip-version-check",
            "--no-deps",
            "--no-index",
            f"--find-links={scratch}",
            "--only-binary=:all:",
        ]
        pip += ["--require-hashes", f"--requirement={scratch}/requirements.txt"]
        for argv in (["python3", "-m", "venv", str(target)], pip):
            code, out, err = run(argv, None)
            if code:
                lines = (err.strip() or out.strip()).splitlines()
                raise HpcError(f"{' '.join(argv[:3])} could not make {target}: {' / '.join(lines[-4:])}")
    finally:
        shutil.rmtree(scratch)
    # Packages' own tests are of no use here, and some bring private keys.
    for tests in [*target.glob("lib/*/site-packages/*/test"), *target.glob("lib/*/site-packages/*/tests")]:
        shutil.rmtree(tests)
    # Users can't write here, so that without this every start would compile anew. What can't be compiled is a template.
    run([str(target / "bin/python"), "-m", "compileall", "-q", "-j", "0", str(target / "lib")], None)


def download_argv(python: str, machine: str, pip: list[str], lock: Path, target: Path) -> list[str]:
    """Return the command that fetches the wheels of ``lock`` for a host with another Python than this one."""
    argv = [*pip, "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    argv += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    argv += [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    # Debian 12 has glibc 2.36. pip takes what is written here literally.
    argv += [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(36, 4, -1)]
    argv += [f"--platform=manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
    return [*argv, f"--dest={target}", f"--requirement={lock}"]


def fetch_wheels(
    run: Run, cache: Path, release: str, requirements: str, python: str, machine: str, pip: list[str]
) -> Path:
    """Return the directory in ``cache`` with the wheels of a release, fetched with ``pip`` if they are not there.

    Several hosts may ask at the same time: one fetches, the others wait.
    """
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = cache / f"{release}-{machine}"
    with (cache / f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / COMPLETE).exists():
            return directory
        directory.mkdir(exist_ok=True)
        text = directory / "requirements.txt"
        text.write_text(requirements, encoding="utf-8")
        code, out, err = run(download_argv(python, machine, pip, text, directory), None)
        if code:
            lines = [line for line in (err or out).splitlines() if "WARNING" not in line]
            raise HpcError(
                f"The wheels for Python {python} could not be fetched: {' / '.join(lines[-4:])}",
                "see that the control node reaches a package index (pip's own configuration counts), "
                "or bring the wheels in a directory and name it.",
            )
        (directory / COMPLETE).touch()
    return directory


def pack(directory: Path, archive: Path, requirements: str, machine: str) -> None:
    """Write the wheels below ``directory`` that ``requirements`` list, and ``machine`` can use, into one file."""
    names = {}
    for wheel in sorted(directory.rglob("*.whl")):
        fits = wheel.stem.endswith(("-any", machine))
        if fits and f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" in requirements:
            names[wheel.name] = wheel
    if not names:
        raise InvalidInput(
            f"In {directory} are no wheels that the lock file lists.", "bring those, or make the bundle anew."
        )
    # They are compressed already.
    with tarfile.open(archive, "w") as target:
        for name, wheel in names.items():
            target.add(wheel, arcname=name)
