# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the operator reaches the machines: SSH configuration, host keys and a key pair in one private directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._errors import HpcError
from .base import Machine

__all__ = ["Access", "FileChange", "render_known_hosts", "render_ssh_config"]

KEY_NAME = "operator_ed25519"
SCRATCH = ".turnkey-"
RENDERED = ("known_hosts", "ssh_config")

Run = Callable[[list[str]], tuple[int, str, str]]


@dataclass(frozen=True)
class FileChange:
    """A file that isn't as it should be; an ``after`` of None removes it. Private keys are never shown."""

    path: str
    before: str | None
    after: str | None

    def diff(self) -> dict[str, str]:
        """Return the change in the shape of Ansible's diff mode."""
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": self.before or "",
            "after": self.after or "",
        }


def render_known_hosts(machines: Sequence[Machine]) -> str:
    """Return known_hosts with one line a machine, found by its name (HostKeyAlias). Pure."""
    return "".join(f"{machine.name} {machine.host_key}\n" for machine in machines if machine.host_key)


def render_ssh_config(machines: Sequence[Machine], directory: str, identity_file: str | None) -> str:
    """Return an SSH configuration for all machines: those without a public address are reached over the bastion. Pure.

    Without ``identity_file`` ssh uses the keys that it finds itself (agent, default files).
    """
    if not machines:
        return ""
    bastion = next(machine for machine in machines if machine.bastion)
    lines = ["# Written by turnkey.hpc.cluster_machines. Use it with: ssh -F THIS_FILE NAME"]
    for machine in machines:
        lines += ["", f"Host {machine.name} {machine.address}"]
        if machine.public_address:
            lines += [f"    HostName {machine.public_address}", f"    Port {machine.public_port}"]
            # The site's own ssh configuration doesn't count here, so the jump host is named in full.
            lines += [f"    ProxyJump {machine.jump}"] if machine.jump else []
        else:
            lines += [f"    HostName {machine.address}", f"    ProxyJump {bastion.name}"]
        lines += [f"    HostKeyAlias {machine.name}", f"    User {machine.login_user}"]
    lines += ["", "Host " + " ".join(f"{machine.name} {machine.address}" for machine in machines)]
    if identity_file:
        lines += [f"    IdentityFile {_quoted(identity_file)}", "    IdentitiesOnly yes"]
    lines += [
        f"    UserKnownHostsFile {_quoted(directory + '/known_hosts')}",
        "    GlobalKnownHostsFile /dev/null",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    ConnectTimeout 20",
        "    ServerAliveInterval 15",
        "    ServerAliveCountMax 4",
    ]
    return "\n".join(lines) + "\n"


class Access:
    """The access directory of one cluster. Nothing in it is needed to find out what exists."""

    def __init__(self, directory: str, cluster: str, run: Run) -> None:
        """Take the directory, and ``run`` to call ssh-keygen with."""
        self.directory = Path(directory).expanduser().absolute()
        self.key_file = self.directory / KEY_NAME
        self._comment = f"turnkey-operator@{cluster}"
        self._run = run

    def public_key(self) -> str:
        """Return the operator's public key, empty if there is no key pair yet."""
        if not self.key_file.exists():
            return ""
        public = _read(self.key_file.with_suffix(".pub"))
        if public:
            return public.strip()
        return self._keygen("-y", "-f", str(self.key_file)).strip()

    def make_key(self) -> str:
        """Make the operator's key pair if there is none and return its public half."""
        if self.public_key():
            return self.public_key()
        self._make_directory()
        # Both halves are made elsewhere and moved here: an interrupted run leaves no half-written key behind.
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=SCRATCH) as scratch:
            new = Path(scratch) / KEY_NAME
            self._keygen("-q", "-t", "ed25519", "-N", "", "-C", self._comment, "-f", str(new))
            public = new.with_suffix(".pub")
            public.replace(self.key_file.with_suffix(".pub"))
            new.replace(self.key_file)
        return self.public_key()

    def changes(self, machines: Sequence[Machine], *, own_key: bool) -> list[FileChange]:
        """Return what must be written so that the rendered files fit these machines."""
        identity = str(self.key_file) if own_key else None
        wanted = {
            "known_hosts": render_known_hosts(machines),
            "ssh_config": render_ssh_config(machines, str(self.directory), identity),
        }
        found = {name: _read(self.directory / name) for name in wanted}
        return [
            FileChange(str(self.directory / name), found[name], text)
            for name, text in wanted.items()
            if found[name] != text
        ]

    def removals(self) -> list[FileChange]:
        """Return what must be removed: what this class has made, nothing else."""
        names = [name for name in RENDERED if (self.directory / name).exists()]
        if self._made_the_key():
            names += [name for name in (KEY_NAME, f"{KEY_NAME}.pub") if (self.directory / name).exists()]
        return [
            FileChange(
                str(self.directory / name), "(private)\n" if name == KEY_NAME else _read(self.directory / name), None
            )
            for name in names
        ]

    def apply(self, changes: Sequence[FileChange]) -> None:
        """Carry changes out; each file is replaced whole. The directory goes when it becomes empty."""
        for change in changes:
            path = Path(change.path)
            if change.after is None:
                path.unlink(missing_ok=True)
                continue
            self._make_directory()
            with tempfile.NamedTemporaryFile("w", dir=self.directory, prefix=SCRATCH, delete=False) as new:
                new.write(change.after)
            Path(new.name).replace(path)
        if any(change.after is None for change in changes):
            self._tidy()

    def _tidy(self) -> None:
        """Remove what an interrupted run has left, and the directory if nothing is in it."""
        for path in self.directory.glob(f"{SCRATCH}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not any(self.directory.iterdir()):
            self.directory.rmdir()

    def _made_the_key(self) -> bool:
        words = (_read(self.key_file.with_suffix(".pub")) or self.public_key()).strip().split(maxsplit=2)
        return len(words) == 3 and words[2] == self._comment

    def _make_directory(self) -> None:
        for path in reversed([self.directory, *self.directory.parents]):
            if not path.exists():
                path.mkdir(mode=0o700)
        if self.directory.stat().st_mode & 0o077:
            self.directory.chmod(0o700)

    def _keygen(self, *arguments: str) -> str:
        try:
            rc, out, err = self._run(["ssh-keygen", *arguments])
        except OSError as error:
            raise HpcError(
                f"ssh-keygen can't be run: {error}.", "Install the OpenSSH client (openssh-client)."
            ) from error
        if rc:
            raise HpcError(f"ssh-keygen failed with code {rc} for {self.key_file}: {(err or out).strip()}")
        return out


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HpcError(
            f"{path} can't be read: {os.strerror(error.errno or 0)}.", "Correct its owner and mode."
        ) from error


def _quoted(path: str) -> str:
    """Return a path for ssh_config: quoted, with its percent signs protected from token expansion."""
    return '"' + path.replace("%", "%%") + '"'
