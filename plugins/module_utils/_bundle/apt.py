# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages for machines that are not here: APT's own resolver, and a repository of what it found."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import Target
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._packages import parse_unknown
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run

__all__ = ["Deb", "Resolver", "packages_index", "parse_uris", "pool_path", "release_file", "split_stanzas"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The status is empty: whatever a machine has already, its packages are in the bundle. The control node's own settings
# (proxies) stay in force, but none that run programs after an update.
CONFIGURATION = """\
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures:: "{architecture}";
#clear APT::Default-Release;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "4";
Acquire::ForceHash "sha256";
"""
URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$", re.MULTILINE)
LOST = re.compile(r"^(E|W): (Failed to fetch|Some index files failed|.*is not signed)", re.MULTILINE)


@dataclass(frozen=True)
class Deb:
    """One package, and where it is."""

    name: str
    version: str
    architecture: str
    uri: str
    size: int
    sha256: str


def parse_uris(text: str) -> list[Deb]:
    """Read what ``apt-get install --print-uris`` says."""
    found = []
    for match in URI.finditer(text):
        name, version, architecture = match["file"].removesuffix(".deb").split("_")
        found.append(Deb(name, unquote(version), architecture, match["uri"], int(match["size"]), match["sha256"]))
    return found


def pool_path(deb: Deb, codename: str) -> str:
    """Return where a package is in the bundle. No colon of an epoch is in it."""
    version = deb.version.partition(":")[2] or deb.version
    return f"apt/pool/{codename}/{deb.name}_{version}_{deb.architecture}.deb"


class Resolver:
    """APT for one kind of machine, in a directory of its own."""

    def __init__(self, run: Run, root: Path, target: Target, sources: Sequence[str], keyring: Path = KEYRING) -> None:
        """Prepare the directory; ``sources`` are addresses, suites and components."""
        self.run = run
        self.target = target
        self.root = root
        for part in ("state/lists/partial", "cache/archives/partial"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (root / "status").write_text("", encoding="ascii")
        signed = f" signed-by={keyring}" if keyring.exists() else ""
        lines = [
            f"deb [arch={target.architecture}{signed}] {one.format(codename=target.codename)}\n" for one in sources
        ]
        (root / "sources.list").write_text("".join(lines), encoding="utf-8")
        text = CONFIGURATION.format(root=root, architecture=target.architecture)
        (root / "apt.conf").write_text(text, encoding="utf-8")

    def _call(self, *argv: str) -> tuple[int, str, str]:
        program, *rest = argv
        result: tuple[int, str, str] = self.run([program, "--config-file", str(self.root / "apt.conf"), *rest], None)
        if result[0] == 127:
            raise HpcError(
                f"There is no program {program} on the control node.",
                "build the bundle on Debian or Ubuntu, whose apt resolves what Debian's packages need.",
            )
        return result

    def update(self) -> None:
        """Fetch the package lists."""
        code, _out, err = self._call("apt-get", "update", "--quiet")
        if code != 0 or LOST.search(err):
            raise HpcError(
                f"The package lists of {self.target} can't be fetched: {err.strip()[-600:]}",
                "check the network and mirror_apt_sources; for an unknown key, apt-get install debian-archive-keyring.",
            )

    def closure(self, names: Iterable[str]) -> list[Deb]:
        """Return ``names`` with all that they depend on."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        code, out, err = self._call("apt-get", "install", "--quiet=2", "--print-uris", *wanted)
        unknown = parse_unknown(err)
        if unknown:
            raise InvalidInput(
                f"{self.target} has no package called {', '.join(unknown)}.",
                "check the spelling, or add the source that has it to mirror_apt_sources.",
            )
        if code != 0:
            raise HpcError(f"APT can't resolve {', '.join(wanted)} for {self.target}: {(out + err).strip()[-600:]}")
        return parse_uris(out)

    def stanzas(self, debs: Sequence[Deb]) -> str:
        """Return what the package lists say of the packages."""
        names = [f"{deb.name}={deb.version}" for deb in debs]
        code, out, err = self._call("apt-cache", "show", *names)
        if code != 0:
            raise HpcError(f"apt-cache knows nothing of a package that APT found: {err.strip()[-600:]}")
        return out


def split_stanzas(text: str) -> dict[tuple[str, str, str], str]:
    """Return the stanzas of package lists by name, version and architecture."""
    found = {}
    for stanza in re.split(r"\n\s*\n", text.strip()):
        fields = dict(re.findall(r"^(Package|Version|Architecture): (.*)$", stanza, re.MULTILINE))
        if len(fields) == 3:
            found[(fields["Package"], fields["Version"], fields["Architecture"])] = stanza
    return found


def packages_index(debs: Sequence[Deb], text: str, codename: str) -> str:
    """Return the package list of a repository with ``debs``, from what other package lists say of them (``text``)."""
    stanzas = split_stanzas(text)
    parts = []
    for deb in sorted(debs, key=lambda one: (one.name, one.version, one.architecture)):
        stanza = stanzas[(deb.name, deb.version, deb.architecture)]
        path = pool_path(deb, codename).removeprefix("apt/")
        stanza = re.sub(r"^Filename: .*$", f"Filename: {path}", stanza, flags=re.MULTILINE)
        # Of the digests one is enough, and the one that the manifest has.
        parts.append(re.sub(r"^(MD5sum|SHA1|SHA512|Description-md5): .*\n?", "", stanza, flags=re.MULTILINE).strip())
    return "".join(f"{part}\n\n" for part in parts)


def release_file(codename: str, architectures: Sequence[str], created: str, indices: Mapping[str, bytes]) -> str:
    """Return the Release file of a repository with ``indices`` (path below the suite -> content)."""
    lines = [
        "Origin: turnkey.hpc",
        "Label: turnkey.hpc bundle",
        f"Suite: {codename}",
        f"Codename: {codename}",
        f"Date: {created}",
        f"Architectures: {' '.join(sorted(architectures))}",
        "Components: main",
        "SHA256:",
        *(f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}" for path, content in sorted(indices.items())),
    ]
    return "\n".join(lines) + "\n"
