# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of: the hash of its inputs, the files laid over the bare distribution, and names of builds."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

__all__ = [
    "BUILD_OPTIONS",
    "CODENAMES",
    "INPUT_OPTIONS",
    "OverlayEntry",
    "build_name",
    "expired_builds",
    "inputs_hash",
    "overlay_tar",
]

CODENAMES = {"12": "bookworm", "13": "trixie"}
"""Debian releases that an image can be made of, by number."""

INPUT_OPTIONS = {
    "input_paths": {"type": "list", "elements": "path", "default": []},
    "input_values": {"type": "list", "elements": "str", "default": []},
    "inputs": {"type": "str"},
}
"""Options of the modules that make images, as the fragment golden_image documents them."""

BUILD_OPTIONS = {"build": {"type": "str"}, "hours": {"type": "float", "default": 3}}
"""Options of those that make them of a machine, as golden_image.build documents them."""

_BUILD = re.compile(r"build-([0-9]{13})")


@dataclass(frozen=True)
class OverlayEntry:
    """One file (``content`` given) or symbolic link (``link`` given) at the absolute ``path`` of the image."""

    path: str
    content: str | None = None
    link: str | None = None
    mode: int = 0o644


def inputs_hash(paths: list[Path], values: list[str]) -> str:
    """Return the first 16 hex digits of a SHA-256 over the files below ``paths`` and over ``values``.

    Directories are walked in sorted order; names below each path count as well as contents, so that a renamed file is a
    change. A path that does not exist is skipped: roles need not have every directory.
    """
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)

    for root in paths:
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        for file in files:
            add(str(file.relative_to(root.parent)).encode())
            add(file.read_bytes())
    for value in values:
        add(value.encode())
    return digest.hexdigest()[:16]


def build_name(now: float, hours: float) -> str:
    """Return the name of one build. It says until when that may last, in milliseconds, so a sweeper needs no more."""
    return f"build-{int((now + hours * 3600) * 1000):013d}"


def expired_builds(names: Iterable[str], now: float) -> list[str]:
    """Return which of the names are of builds whose time is over. Pure."""
    return sorted(name for name in names if (match := _BUILD.fullmatch(name)) and int(match[1]) < now * 1000)


def overlay_tar(entries: list[OverlayEntry]) -> bytes:
    """Return an uncompressed tar archive of ``entries``, owned by root, with a fixed date."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry in entries:
            if not entry.path.startswith("/") or ".." in entry.path.split("/"):
                raise InvalidInput(
                    f"Overlay path {entry.path!r} is not an absolute path.", "Give the path in the image."
                )
            info = tarfile.TarInfo(entry.path.lstrip("/"))
            info.mode = entry.mode
            if entry.link is not None:
                info.type = tarfile.SYMTYPE
                info.linkname = entry.link
                archive.addfile(info)
            else:
                data = (entry.content or "").encode()
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
