# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of SSH: asking the power host for machines, and making a new machine a node."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .._errors import HpcError
from .._hostlist import fold
from .._state import Run
from .decide import Machine
from .engine import Failure

__all__ = ["PowerHost", "certificate", "join", "leave", "ssh_options"]

# Reads the length of the packed program, the program, and hands the rest of the input to it.
LOADER = (
    "import sys,zlib;i=sys.stdin.buffer;n=int(i.readline());sys.argv=['node-power','join'];"
    "exec(compile(zlib.decompress(i.read(n)),'node-power','exec'))"
)


def ssh_options(key: str, known_hosts: str = "") -> list[str]:
    """Return ssh's options: this key, no questions, and the host keys in ``known_hosts`` or the system's."""
    options = [
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=10",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
        "LogLevel=ERROR",
    ]
    own = ["-F", "none"] if known_hosts else []
    options += [f"UserKnownHostsFile={known_hosts}"] if known_hosts else []
    return [*own, "-i", key, *(part for option in options for part in ("-o", option))]


class PowerHost:
    """The host that makes the machines of some kinds."""

    def __init__(self, host: str, key: str, program: Sequence[str] = ("ssh",)) -> None:
        self.host = host
        self._argv = [*program, *ssh_options(key), f"root@{host}"]

    def status(self) -> dict[str, Machine]:
        """Return the machines that exist."""
        for answer in self._ask("status"):
            if "machines" in answer:
                return {str(name): Machine(state) for name, state in answer["machines"].items()}
        raise HpcError(f"{self.host} gave no answer.")

    def resume(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Ask for machines; tell of each as soon as it accepts logins, or won't."""
        yield from self._ask(f"resume {fold(names)}")

    def suspend(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Have machines removed."""
        yield from self._ask(f"suspend {fold(names)}")

    def _ask(self, request: str) -> Iterator[dict[str, Any]]:
        process = subprocess.Popen(
            [*self._argv, request], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if process.stdout is None or process.stderr is None:
            raise HpcError("ssh has no output.")
        try:
            for line in process.stdout:
                try:
                    answer = json.loads(line)
                except ValueError as error:
                    raise HpcError(f"{self.host} answers {line[:200]!r}, which is no answer of node-power.") from error
                if "error" in answer:
                    raise PowerHostError(answer["error"]["code"], answer["error"]["text"])
                yield answer
            said = process.stderr.read().strip()
            if process.wait():
                code = "HostUnreachable" if process.returncode == 255 else "HostRefused"
                raise PowerHostError(code, f"{self.host}: {said[:300] or f'code {process.returncode}'}")
        finally:
            if process.poll() is None:
                process.terminate()
            process.stdout.close()
            process.stderr.close()
            process.wait()


class PowerHostError(HpcError):
    """The power host, or its provider, can't do what was asked."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def certificate(run: Run, authority: Path, names: Sequence[str], host_key: str, scratch: Path) -> str:
    """Return a certificate of the key of a new machine, so that users' SSH knows it by its names."""
    public = scratch / f"{names[0]}.pub"
    public.write_text(f"{host_key}\n", encoding="ascii")
    argv = ["ssh-keygen", "-q", "-h", "-s", str(authority), "-I", names[0], "-n", ",".join(names)]
    # Clocks differ a little; a machine lives for less than a year.
    code, out, err = run([*argv, "-V", "-5m:+52w", str(public)], None)
    if code:
        raise HpcError(f"The host key of {names[0]} could not be signed: {(err or out).strip()[:200]}.")
    return (scratch / f"{names[0]}-cert.pub").read_text(encoding="ascii")


def join(
    address: str,
    node: str,
    user: str,
    key: str,
    known_hosts: Path,
    payload: bytes,
    seconds: float,
    program_file: Path = Path("/usr/local/bin/node-power"),
) -> Failure | None:
    """Make a machine that was just made a node; its host key is in ``known_hosts`` under the node's name."""
    program = zlib.compress(program_file.read_bytes(), 1)
    argv = _on_node(address, node, user, key, known_hosts, f'/usr/bin/python3 -I -c "{LOADER}"')
    try:
        done = subprocess.run(
            argv,
            input=b"%d\n%s%s" % (len(program), program, payload),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Failure("JoinTimeout", f"it was not set up within {seconds:g} s")
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return Failure("JoinFailed", said[-1][:300] if said else f"ssh ended with code {done.returncode}")


def leave(run: Run, address: str, node: str, user: str, key: str, known_hosts: Path) -> None:
    """Stop slurmd on a node whose machine goes on."""
    code, out, err = run(_on_node(address, node, user, key, known_hosts, "systemctl stop slurmd.service"), None)
    if code:
        raise HpcError(f"slurmd of {node} could not be stopped: {(err or out).strip()[:200]}.")


def _on_node(address: str, node: str, user: str, key: str, known_hosts: Path, command: str) -> list[str]:
    sudo = "" if user == "root" else "sudo -n "
    login = ["-o", f"HostKeyAlias={node}", f"{user}@{address}"]
    return ["ssh", *ssh_options(key, str(known_hosts)), *login, sudo + command]
