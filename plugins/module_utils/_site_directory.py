# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory of the user's own for a new cluster: written once, never overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ._errors import InvalidInput, join_problems
from ._providers.base import check_cluster_name

__all__ = ["plan_site", "write_site"]


def _occupied(directory: Path) -> list[str]:
    """Return why the directory can't be used."""
    if not directory.exists() and not directory.is_symlink():
        return []
    if not directory.is_dir():
        return [f"{directory} is there and is no directory: give the name of a new one."]
    found = sorted(path.name for path in directory.iterdir())
    if not found:
        return []
    shown = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    return [f"{directory} is not empty, and nothing is overwritten: it has {shown}. Give the name of a new directory."]


def plan_site(directory: Path, cluster_name: str, files: Mapping[str, str]) -> dict[Path, str]:
    """Return the files to write with their texts; report all that is in the way at once."""
    problems = [f"{text} It is the last part of the directory's name." for text in check_cluster_name(cluster_name)]
    problems += _occupied(directory)
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
            problems.append(f"{name!r} is no name of a file in the directory.")
    if problems:
        raise InvalidInput(join_problems(problems))
    return {directory / name: files[name] for name in sorted(files)}


def write_site(plan: Mapping[Path, str]) -> None:
    """Write the files. One that appeared in the meantime is an error, and stays as it is."""
    for path, text in plan.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
