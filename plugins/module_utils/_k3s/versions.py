# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of k3s: what they are, and from which to which a cluster may go."""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

__all__ = ["Version", "parse_version", "refuse_step", "version_in"]

PATTERN = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(-[\w.]+)?\+k3s(\d+)")


class Version(NamedTuple):
    """A version such as v1.34.2+k3s1, in the order in which they came out. A candidate is before its release."""

    major: int
    minor: int
    patch: int
    released: bool
    candidate: str
    build: int

    def __str__(self) -> str:
        """Return the version as k3s writes it."""
        return f"v{self.major}.{self.minor}.{self.patch}{self.candidate}+k3s{self.build}"


def parse_version(text: str) -> Version:
    """Return the version that ``text`` is, all of it."""
    found = PATTERN.fullmatch(text.strip())
    if not found:
        raise InvalidInput(f"{text!r} is no version of k3s.", "write it as its release is called, as in v1.34.2+k3s1.")
    major, minor, patch, candidate, build = found.groups()
    return Version(int(major), int(minor), int(patch), not candidate, candidate or "", int(build))


def version_in(text: str) -> str:
    """Return the version in the output of ``k3s --version``, or nothing."""
    found = re.search(r"^k3s version (\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def refuse_step(installed: str, wanted: str) -> str:
    """Return why a node can't go from one version to the other, or nothing if it can. The same version is no step."""
    old, new = parse_version(installed), parse_version(wanted)
    if new < old:
        return (
            f"{old} is installed, and k3s_version is {new}, which is older. Remedy: k3s can't go back; restore a "
            f"snapshot on hosts that were reset, or set k3s_version to {old} or later."
        )
    if new.major != old.major or new.minor > old.minor + 1:
        return (
            f"{old} is installed, and k3s_version is {new}: minor versions can't be skipped. "
            f"Remedy: upgrade to the last v{old.major}.{old.minor + 1} first."
        )
    return ""
