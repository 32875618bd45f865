# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a virtual machine does at its first boot: it takes its name, keys and address from its seed.

The seed is a NoCloud one (a disk with the label ``cidata``), as cloud-init reads it, but all JSON. The golden image
brings this file as a program instead of cloud-init, which costs more processor time at each boot than all the rest.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Seed", "SeedError", "apply", "files_of", "grows", "parse_seed", "seed_device"]

STATE = "var/lib/turnkey-machine"
"""Directory of the instance id and of the site's program. It isn't /var/lib/turnkey, which belongs to the roles."""

LABEL_OFFSET = 0x8028
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?", re.IGNORECASE)


class SeedError(Exception):
    """The seed can't be used."""


@dataclass(frozen=True)
class Seed:
    """What a seed says: who the machine is, its name, root's keys, networkd's files, the site's program."""

    instance: str
    hostname: str
    keys: tuple[str, ...] = ()
    network: dict[str, str] = field(default_factory=dict)
    resolvers: tuple[str, ...] = ()
    program: str = ""


def seed_device(sys_block: Path, dev: Path) -> Path | None:
    """Return the disk whose ISO 9660 label is ``cidata``. It is read here: udev hasn't looked at disks yet."""
    for name in sorted(path.name for path in sys_block.iterdir()):
        try:
            with (dev / name).open("rb") as disk:
                disk.seek(LABEL_OFFSET)
                label = disk.read(32)
        except OSError:
            continue
        if label.rstrip().lower() == b"cidata":
            return dev / name
    return None


def _document(text: str, name: str) -> dict[str, Any]:
    """Return the JSON object in the file ``name`` of the seed, which may begin with ``#cloud-config``."""
    if text.startswith("#cloud-config\n"):
        text = text.partition("\n")[2]
    try:
        document = json.loads(text or "{}")
    except ValueError as error:
        raise SeedError(f"{name} of the seed is not JSON ({error}). An image with cloud-init reads YAML.") from error
    if not isinstance(document, dict):
        raise SeedError(f"{name} of the seed is not a JSON object.")
    return document


def _networkd(config: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return networkd's files and the name servers for a network configuration of version 2."""
    files, resolvers = {}, []
    for name, interface in config.get("ethernets", {}).items():
        mac = interface.get("match", {}).get("macaddress")
        lines = ["[Match]", f"MACAddress={mac}" if mac else f"Name={name}", "", "[Network]", "LinkLocalAddressing=no"]
        if interface.get("dhcp4"):
            lines.append("DHCP=ipv4")
        lines += [f"Address={address}" for address in interface.get("addresses", ())]
        if interface.get("gateway4"):
            lines.append(f"Gateway={interface['gateway4']}")
        servers = interface.get("nameservers", {}).get("addresses", ())
        lines += [f"DNS={server}" for server in servers]
        resolvers += servers
        if interface.get("mtu"):
            lines += ["", "[Link]", f"MTUBytes={interface['mtu']}"]
        for route in interface.get("routes", ()):
            target = "0.0.0.0/0" if route["to"] == "default" else route["to"]
            lines += ["", "[Route]", f"Destination={target}", f"Gateway={route['via']}"]
        files[f"etc/systemd/network/10-{name}.network"] = "\n".join([*lines, ""])
    return files, tuple(resolvers)


def parse_seed(files: dict[str, str]) -> Seed:
    """Return what the ``files`` of a seed say. Keys that only cloud-init knows are ignored."""
    meta = _document(files.get("meta-data", ""), "meta-data")
    user = _document(files.get("user-data", ""), "user-data")
    hostname = str(user.get("hostname") or meta.get("local-hostname") or "")
    if not NAME.fullmatch(hostname):
        raise SeedError(f"The seed's host name {hostname!r} is not one.")
    if not meta.get("instance-id"):
        raise SeedError("meta-data of the seed has no instance-id.")
    network, resolvers = _networkd(_document(files.get("network-config", ""), "network-config"))
    program = files.get("vendor-data", "")
    if program.strip() and not program.startswith("#!"):
        raise SeedError("vendor-data of the seed is no program (#!...), and only cloud-init understands anything else.")
    keys = tuple(str(key) for key in user.get("ssh_authorized_keys", ()))
    return Seed(str(meta["instance-id"]), hostname, keys, network, resolvers, program)


def files_of(seed: Seed) -> dict[str, tuple[str, int]]:
    """Return content and mode of the files that make a machine what ``seed`` says, by path below the root."""
    files = {"etc/hostname": (f"{seed.hostname}\n", 0o644)}
    files.update({path: (text, 0o644) for path, text in seed.network.items()})
    if seed.keys:
        files["root/.ssh/authorized_keys"] = ("".join(f"{key}\n" for key in seed.keys), 0o600)
    if seed.resolvers:
        files["etc/resolv.conf"] = ("".join(f"nameserver {server}\n" for server in seed.resolvers), 0o644)
    if seed.program:
        files[f"{STATE}/site-program"] = (seed.program, 0o700)
    return files


def apply(seed: Seed, root: Path) -> bool:
    """Make the system below ``root`` what ``seed`` says, unless it is already; return whether anything was done.

    A disk that was somebody else before loses what must not be shared: SSH host keys, machine id, network, the former
    operator's keys. The instance id is written last, so that what was cut off is done again.
    """
    known = root / STATE / "instance-id"
    former = known.read_text().strip() if known.exists() else ""
    if former == seed.instance:
        return False
    if former:
        stale = [*root.glob("etc/ssh/ssh_host_*"), *root.glob("etc/systemd/network/10-*.network")]
        for old in [*stale, root / "root/.ssh/authorized_keys", root / "var/lib/systemd/random-seed"]:
            old.unlink(missing_ok=True)
        machine_id = root / "etc/machine-id"
        machine_id.unlink(missing_ok=True)
        machine_id.write_text(f"{uuid.uuid4().hex}\n")
        machine_id.chmod(0o444)
    for path, (text, mode) in files_of(seed).items():
        target = root / path
        target.parent.mkdir(mode=0o700 if mode & 0o077 == 0 else 0o755, parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    known.write_text(f"{seed.instance}\n")
    return True


def grows(disk_bytes: int, file_system_bytes: int) -> bool:
    """Return whether a disk is so much larger than its file system that growing is worth the while."""
    # What ext4 keeps for itself doesn't count as its size.
    return disk_bytes > file_system_bytes * 1.05 + (64 << 20)


def _mounted_files(device: Path) -> dict[str, str]:
    """Return the text files of the seed."""
    place = tempfile.mkdtemp(dir="/run")
    subprocess.run(["mount", "-t", "iso9660", "-o", "ro", str(device), place], check=True)
    try:
        return {path.name: path.read_text() for path in Path(place).iterdir() if path.is_file()}
    finally:
        subprocess.run(["umount", place], check=True)
        Path(place).rmdir()


def _root_device() -> str:
    """Return the disk that the root file system lies on as a whole, or an empty string."""
    number = Path("/").stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    return f"/dev/{link.name}" if (link / "size").exists() and not (link / "partition").exists() else ""


def main() -> int:
    """Do what the seed says, grow the root file system, and make a host key."""
    device = seed_device(Path("/sys/block"), Path("/dev"))
    status = 0
    if device is not None:
        try:
            seed = parse_seed(_mounted_files(device))
            if apply(seed, Path("/")):
                socket.sethostname(seed.hostname)
        except (SeedError, OSError, KeyError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"turnkey first boot: {error}\n")
            status = 1
    disk = _root_device()
    if disk:
        usage = os.statvfs("/")
        size = int((Path("/sys/class/block") / Path(disk).name / "size").read_text()) * 512
        if grows(size, usage.f_blocks * usage.f_frsize):
            subprocess.run(["resize2fs", disk], check=False)
    key = Path("/etc/ssh/ssh_host_ed25519_key")
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
