# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking k3s off a host: what it started, mounted, linked and wrote, and nothing of others."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run

__all__ = [
    "Litter",
    "find_litter",
    "find_processes",
    "mount_points",
    "our_links",
    "our_mounts",
    "own_rules",
    "remove_data",
    "remove_litter",
    "rules_without_ours",
]

MOUNTS = re.compile(r"^(/run/k3s/|/var/lib/kubelet/|/run/netns/cni-)")
LINKS = re.compile(r"^(cni0|flannel[.-][\w.-]+|kube-ipvs0|turnkey-route)$")
# Chains of kube-proxy, kube-router and the CNI plugins, rules that lead there, and those of older flannels that lead to
# no chain. Rules of others may speak of Kubernetes in their comments.
RULE = re.compile(r"(^:|-A |-j |-g )(KUBE-|CNI-|FLANNEL-)|--comment \"?flanneld ")
DIRECTORIES = ("/var/lib/cni", "/var/lib/kubelet", "/run/k3s", "/run/flannel", "/etc/rancher/node")
SAVERS = (("iptables-save", "iptables-restore"), ("ip6tables-save", "ip6tables-restore"))


@dataclass(frozen=True)
class Litter:
    """What is left of k3s on a host besides files that the role wrote."""

    processes: tuple[int, ...] = ()
    mounts: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    chains: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.processes or self.mounts or self.links or self.namespaces or self.chains)


def find_processes(programs: Mapping[int, str], parents: Mapping[int, int], data: str) -> list[int]:
    """Return the shims of this k3s's containers and all that they started. Pure."""
    shim = re.compile(rf"{re.escape(data.rstrip('/'))}/data/[^/]+/bin/containerd-shim")
    found = {pid for pid, program in programs.items() if shim.match(program)}
    more = set(found)
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found
        found |= more
    return sorted(found)


def mount_points(text: str) -> list[str]:
    """Return the mount points in /proc/self/mounts. Pure."""
    return [line.split()[1].replace("\\040", " ") for line in text.splitlines() if " " in line]


def our_mounts(text: str) -> list[str]:
    """Return the mount points below k3s's directories in /proc/self/mounts, the innermost first. Pure.

    What is mounted below its data directory is not k3s's: a disk of the site's, say.
    """
    return sorted((point for point in mount_points(text) if MOUNTS.match(point)), key=len, reverse=True)


def our_links(text: str) -> list[str]:
    """Return the links of k3s in the output of ``ip -j link``: its own, and those that hang on its bridge. Pure."""
    links = json.loads(text or "[]")
    on_bridge = [link["ifname"] for link in links if link.get("master") == "cni0"]
    return on_bridge + [link["ifname"] for link in links if LINKS.match(link["ifname"])]


def own_rules(text: str) -> bool:
    """Return whether the output of ``iptables-save`` has chains or rules of k3s."""
    return any(RULE.search(line) for line in text.splitlines())


def rules_without_ours(text: str) -> str:
    """Return what ``iptables-save`` printed without chains and rules of k3s; those of others keep their order. Pure."""
    return "".join(f"{line}\n" for line in text.splitlines() if not RULE.search(line))


def _processes() -> tuple[dict[int, str], dict[int, int]]:
    programs, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
                programs[int(entry.name)] = str((entry / "exe").readlink())
            except (OSError, ValueError, IndexError):
                continue
    return programs, parents


def _firewall(run: Run, data: str) -> list[tuple[list[str], str]]:
    """Return (command that restores, saved rules) for the firewalls where k3s has rules."""
    tools = sorted(Path(data).glob("data/*/bin/aux"))
    found = []
    for save, restore in SAVERS:
        # k3s brings the program where the host has none.
        for place in ("", *(f"{path}/" for path in tools)):
            code, out, _err = run([f"{place}{save}"], None)
            if code == 0:
                if own_rules(out):
                    found.append(([f"{place}{restore}"], out))
                break
    return found


def find_litter(run: Run, data: str) -> Litter:
    """Return what is left of k3s here."""
    programs, parents = _processes()
    namespaces = Path("/run/netns")
    return Litter(
        processes=tuple(find_processes(programs, parents, data)),
        mounts=tuple(our_mounts(Path("/proc/self/mounts").read_text(encoding="utf-8"))),
        links=tuple(our_links(run(["ip", "-j", "link"], None)[1])),
        namespaces=tuple(sorted(path.name for path in namespaces.glob("cni-*"))) if namespaces.is_dir() else (),
        chains=bool(_firewall(run, data)),
    )


def remove_litter(run: Run, litter: Litter, data: str) -> None:
    """Take all of ``litter`` away, in an order in which nothing holds on to what comes next."""
    for pid in litter.processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/exe").exists() for pid in litter.processes) and time.monotonic() < end:
        time.sleep(0.05)  # poll interval
    failed = []
    for name in litter.namespaces:
        failed += _try(run, ["ip", "netns", "delete", name])
    names = Path("/run/netns")
    if litter.namespaces and names.is_dir() and not any(names.iterdir()):
        # The first namespace had it mounted upon itself.
        mounted = mount_points(Path("/proc/self/mounts").read_text(encoding="utf-8"))
        failed += [error for point in mounted if point == str(names) for error in _try(run, ["umount", point])]
        names.rmdir()
    for point in litter.mounts:
        if not point.startswith("/run/netns/"):
            failed += _try(run, ["umount", point], ["umount", "--lazy", point])
    for link in litter.links:
        # One end of a pair takes the other with it, and so does a bridge that is gone.
        if Path(f"/sys/class/net/{link}").exists():
            failed += _try(run, ["ip", "link", "delete", link])
    for restore, saved in _firewall(run, data) if litter.chains else []:
        code, _out, err = run(restore, rules_without_ours(saved))
        failed += [f"{restore[0]}: {err.strip()}"] if code else []
    if failed:
        raise HpcError(
            "Something of k3s can't be removed: " + "; ".join(failed), "restart the host, and run the reset again."
        )


def _try(run: Run, *ways: list[str]) -> list[str]:
    for argv in ways:
        code, _out, err = run(argv, None)
        if code == 0:
            return []
    return [f"{' '.join(ways[-1])}: {err.strip()}"]


def remove_data(data: str, keep: Iterable[str]) -> tuple[list[str], list[str]]:
    """Remove k3s's directories; return what went and what stayed.

    What stays is not empty, and named in ``keep`` (below ``data``) or has something mounted in it.
    """
    mounted = mount_points(Path("/proc/self/mounts").read_text(encoding="utf-8"))
    root = Path(data)
    candidates = [Path(place) for place in DIRECTORIES] + (sorted(root.iterdir()) if root.is_dir() else [])
    gone, stayed = [], []
    for path in candidates:
        is_directory = path.is_dir() and not path.is_symlink()
        if (is_directory and any(point == str(path) or point.startswith(f"{path}/") for point in mounted)) or (
            is_directory and path.parent == root and path.name in keep and any(path.iterdir())
        ):
            stayed.append(str(path))
        elif is_directory:
            shutil.rmtree(path)
            gone.append(str(path))
        elif path.exists() or path.is_symlink():
            path.unlink()
            gone.append(str(path))
    # A directory that somebody gave k3s to work in stays, empty.
    if data.rstrip("/") == "/var/lib/rancher/k3s":
        for path in (root, root.parent):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
                gone.append(str(path))
    return gone, stayed
