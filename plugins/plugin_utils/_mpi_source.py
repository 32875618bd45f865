# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source tree of an MPI application on the control node."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.manifest import Manifest, missing_sources
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.service import read_manifest

__all__ = ["MOST_MB", "files_of", "pack", "read"]

# A module's arguments travel in one piece.
MOST_MB = 32


def files_of(directory: Path) -> list[str]:
    """Return the files and links of a tree, without what git keeps there."""
    found = []
    for top, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if name != ".git")
        place = Path(top)
        found += [str((place / name).relative_to(directory)) for name in names if name != ".git"]
        found += [str((place / name).relative_to(directory)) for name in folders if (place / name).is_symlink()]
    return sorted(found)


def read(directory: Path) -> Manifest:
    """Return the manifest of a tree, whose sources are there."""
    if not directory.is_dir():
        raise InvalidInput(f"src '{directory}' is no directory.", "name the directory that mpi.yml is in.")
    files = files_of(directory)
    manifest = read_manifest(directory, files)
    problems = missing_sources(manifest, files)
    if problems:
        raise InvalidInput(join_problems(problems))
    return manifest


def pack(directory: Path) -> bytes:
    """Return the tree as a compressed archive that is the same for the same files."""
    files = files_of(directory)
    special = [name for name in files if not (directory / name).is_symlink() and not (directory / name).is_file()]
    if special:
        raise InvalidInput(f"src has {special[0]!r}, which is no plain file.", "take it out.")
    size = sum((directory / name).lstat().st_size for name in files)
    if size > MOST_MB * 1_000_000:
        raise InvalidInput(
            f"src has {size / 1e6:.0f} MB, and {MOST_MB} go over this way.",
            "push it with git, or take out what is not source.",
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in files:
            tar.add(directory / name, arcname=name, recursive=False, filter=anonymous)
    return buffer.getvalue()


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who made a file, and when."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
