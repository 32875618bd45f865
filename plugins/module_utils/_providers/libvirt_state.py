# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saved memory of a virtual machine, as libvirt writes it, and the copy of it that makes another machine. Pure.

libvirt restores a machine under its own name and identifier only. Both are in the head of the file, before the memory,
so a copy is another machine when its head is written anew. The head's layout is libvirt's ``virQEMUSaveHeader``, which
has been the same since 2011.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from xml.etree import ElementTree

from .._errors import HpcError

__all__ = ["HEAD_BYTES", "SavedState", "Template", "parse_state", "templates_of", "unused_templates"]

_HEAD = struct.Struct("<16s5I56x")
_MAGIC = b"LibvirtQemudSave"
_VERSION = 2
HEAD_BYTES = _HEAD.size + (4 << 20)
"""What has to be read of a saved state: its description is padded to one megabyte."""


@dataclass(frozen=True)
class SavedState:
    """The head of a saved state: the machine's XML, libvirt's own notes (``cookie``), and how long both may be."""

    xml: str
    cookie: bytes
    room: int
    running: int
    compressed: int

    def described(self, xml: str) -> SavedState:
        """Return the head for a machine with another description; libvirt's notes name its identifier, too."""
        former, new = (ElementTree.fromstring(text).findtext("./uuid", "") for text in (self.xml, xml))
        return replace(self, xml=xml, cookie=self.cookie.replace(former.encode(), new.encode()))

    def packed(self) -> bytes:
        """Return the head as it is written; the memory begins behind it, where it began before."""
        xml = self.xml.encode() + b"\0"
        content = xml + self.cookie
        if len(content) > self.room:
            raise HpcError(f"A saved state has room for {self.room} bytes of description, and needs {len(content)}.")
        cookie_at = len(xml) if self.cookie else 0
        head = _HEAD.pack(_MAGIC, _VERSION, self.room, self.running, self.compressed, cookie_at)
        return head + content.ljust(self.room, b"\0")


def parse_state(data: bytes) -> SavedState:
    """Return the head of a saved state, of which ``data`` is the beginning."""
    if len(data) < _HEAD.size:
        raise HpcError(f"A saved state has {len(data)} bytes, and is none.")
    magic, version, room, running, compressed, cookie_at = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise HpcError(f"A saved state begins with {magic!r}, version {version}: this libvirt writes another format.")
    content = data[_HEAD.size : _HEAD.size + room]
    if len(content) < room:
        raise HpcError(f"A saved state has {len(content)} of {room} bytes of its description.")
    cookie = content[cookie_at:].rstrip(b"\0") + b"\0" if cookie_at else b""
    return SavedState(content.partition(b"\0")[0].decode(), cookie, room, running, compressed)


@dataclass(frozen=True, order=True)
class Template:
    """A machine that waits in memory to become somebody. ``key`` says what it was made of, ``build`` is its own."""

    key: str
    build: str

    @property
    def name(self) -> str:
        """What it is called in the marks of the machines that were made from it."""
        return f"template.{self.key}.{self.build}"

    def volume(self, part: str) -> str:
        """Return the name of one of its volumes: disk.qcow2, seed.iso, console, state, complete."""
        return f"{self.name}.{part}"


_PARTS = ("disk.qcow2", "seed.iso", "console", "state", "complete")


def templates_of(names: Iterable[str]) -> dict[Template, set[str]]:
    """Return the templates in a storage pool, each with its volumes; machines' names have no dot."""
    found: dict[Template, set[str]] = {}
    for name in names:
        words = name.split(".", 3)
        if words[0] == "template" and len(words) == 4 and words[3] in _PARTS:
            found.setdefault(Template(words[1], words[2]), set()).add(name)
    return found


def unused_templates(names: Iterable[str], used: Iterable[str]) -> list[str]:
    """Return which of the volumes are of templates that no machine was made from. ``used`` are templates' names."""
    keep = set(used)
    return sorted(
        volume for template, volumes in templates_of(names).items() if template.name not in keep for volume in volumes
    )
