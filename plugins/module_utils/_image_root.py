# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaves nothing in a build root that an image must not carry, and says what still is there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Callable

__all__ = ["clean", "leftovers", "units_to_disable"]

LOGS = "var/log/**/*"
REMOVED = (
    "etc/ssh/ssh_host_*",
    "etc/munge/munge.key",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/lib/apt/lists/*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/ldconfig/aux-cache",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/lib/turnkey",
    "var/log/journal/*",  # directories that are called as the machine's id
    LOGS,
    "var/tmp/*",
    "tmp/*",
    "root/.ansible",
    "root/.bash_history",
    "root/.cache",
    "root/.ssh",
    "home/*/.ssh",
    "var/lib/cloud/*",
    "var/lib/turnkey-machine",
    # What cloud-init writes at the first boot names the network card of the machine.
    "etc/netplan/50-cloud-init.yaml",
    "etc/network/interfaces.d/50-cloud-init*",
    "etc/systemd/network/10-cloud-init-*",
    "etc/*-",
)
"""What is deleted, as globs below the root. Log directories stay: services expect theirs."""

# With what follows its first line, also if that is written as \n: programs that read keys have the line alone.
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\s|\\r|\\n)+[A-Za-z0-9+/]")
KEY_PLACES = ("etc", "root", "home", "srv", "opt", "var/lib", "usr/local")
LARGEST_KEY_FILE = 65536


def clean(root: Path) -> list[str]:
    """Delete below ``root`` what must not be in an image; return the paths that were deleted, sorted.

    The machine id becomes an empty file, which systemd fills at the first boot.
    """
    removed = []
    for pattern in REMOVED:
        for path in sorted(root.glob(pattern)):
            if pattern == LOGS and path.is_dir() and not path.is_symlink():
                continue
            if path.name.startswith("ansible_"):  # the module that is cleaning; Ansible removes it
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink() or path.exists():
                if path == root / "etc/machine-id" and path.stat().st_size == 0:
                    continue
                path.unlink()
            removed.append("/" + str(path.relative_to(root)))
    (root / "etc/machine-id").touch(mode=0o444)
    return sorted(removed)


def leftovers(root: Path, half_installed: Callable[[], str]) -> list[str]:
    """Return what is wrong with the image below ``root``: secrets, identifiers, or packages that are not whole.

    ``half_installed`` returns what ``dpkg --audit`` prints, which is nothing when all packages are configured.
    """
    problems = []
    for pattern in ("etc/ssh/ssh_host_*", "etc/munge/munge.key", "root/.ssh/*", "home/*/.ssh/*"):
        problems += [f"/{path.relative_to(root)} must not be in an image" for path in sorted(root.glob(pattern))]
    machine_id = root / "etc/machine-id"
    if machine_id.exists() and machine_id.stat().st_size:
        problems.append("/etc/machine-id is not empty, so that all machines would have the same one")
    for place in KEY_PLACES:
        for path in sorted((root / place).rglob("*")):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_KEY_FILE:
                continue
            if PRIVATE_KEY.search(path.read_bytes()):
                problems.append(f"/{path.relative_to(root)} holds a private key")
    for line in (root / "etc/shadow").read_text().splitlines() if (root / "etc/shadow").exists() else []:
        name, password = line.split(":")[:2]
        if password.startswith("$"):
            problems.append(f"account {name} has a password")
    audit = half_installed().strip()
    if audit:
        problems.append(f"packages are not whole: {audit.splitlines()[0]}")
    return problems


def units_to_disable(enabled: list[str], wanted: list[str]) -> list[str]:
    """Return the units of ``enabled`` that an image must not start by itself: roles enable them where they belong."""
    return sorted(set(enabled) - set(wanted))
