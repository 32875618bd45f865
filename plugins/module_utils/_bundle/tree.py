# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a directory: every file with its digest. Runs on nodes, too."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import KINDS, UNLISTED, Found
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

__all__ = ["check_directory", "digest", "scan"]

CHUNK = 1 << 20


def check_directory(directory: Path) -> None:
    """Refuse a directory with something else in it: what is not of the bundle is removed from it."""
    own = {place.split("/")[0] for place in KINDS.values()} | UNLISTED
    if not directory.is_dir():
        return
    strange = sorted(
        entry.name for entry in directory.iterdir() if entry.name.removesuffix(".part").lstrip(".") not in own
    )
    if strange:
        raise InvalidInput(
            f"{directory} has things in it that are no bundle's: {', '.join(strange[:5])}.",
            "name an empty directory, or one that has a bundle.",
        )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, which must not be a link."""
    found = hashlib.sha256()
    # O_NOFOLLOW: a file that became a link in the meantime is an error.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            found.update(chunk)
    return found.hexdigest()


def _walk(top: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(top / prefix) as entries:
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(top, f"{path}/")
            else:
                yield path, entry.stat(follow_symlinks=False)


def scan(top: Path, sizes: dict[str, int] | None = None) -> dict[str, Found]:
    """Return what is below ``top`` by relative path.

    With ``sizes`` only files of that path and size are read: another size is wrong whatever the digest.
    """
    found: dict[str, Found] = {}
    to_read = []
    for path, status in _walk(top):
        if stat.S_ISLNK(status.st_mode):
            found[path] = Found("link")
        elif not stat.S_ISREG(status.st_mode):
            found[path] = Found("other")
        else:
            found[path] = Found("file", status.st_size)
            if path not in UNLISTED and (sizes is None or sizes.get(path) == status.st_size):
                to_read.append(path)
    # hashlib lets other threads run.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for path, sha256 in zip(to_read, pool.map(lambda one: digest(top / one), to_read)):
            found[path] = Found("file", found[path].size, sha256)
    return found
