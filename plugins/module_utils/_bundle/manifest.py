# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of everything in an airgap bundle: read, checked, written, compared. Pure; runs on nodes, too.

The schema is described in docs/airgap.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import unquote

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, join_problems

__all__ = [
    "CODENAMES",
    "KINDS",
    "MANIFEST",
    "PUBLIC_KEY",
    "PYTHONS",
    "SIGNATURE",
    "UNLISTED",
    "Difference",
    "File",
    "Found",
    "Manifest",
    "Target",
    "check_age",
    "check_path",
    "check_targets",
    "check_tree",
    "compare",
    "dump",
    "parse",
    "refuse",
]

SCHEMA = 1
MANIFEST, SIGNATURE, PUBLIC_KEY = "manifest.json", "manifest.json.asc", "bundle.asc"
# The three files that the manifest can't list: itself, its signature, and the key, which the fingerprint vouches for.
UNLISTED = frozenset({MANIFEST, SIGNATURE, PUBLIC_KEY})

CODENAMES = {"12": "bookworm", "13": "trixie"}
# The Python of each Debian release; wheels are resolved for it.
PYTHONS = {"12": "3.11.2", "13": "3.13.5"}
ARCHITECTURES = ("amd64", "arm64")

# Each kind of file, and the directory that it is in.
KINDS = {
    "deb": "apt",
    "apt-index": "apt",
    "wheel": "wheels",
    "wheel-index": "wheels",
    "npm": "npm",
    "image": "images",
    "chart": "charts",
    "collection": "collections",
    "controller": "controller",
    "file": "files",
    "sbom": "sbom.cdx.json",
}
HEX = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
REMEDY = "build the bundle anew, or bring over the whole of it once more."
# What a part of a wheel's platform says about the processor.
MACHINES = {"amd64": ("x86_64",), "arm64": ("aarch64",)}


@dataclass(frozen=True)
class Target:
    """A kind of machine that the bundle is for."""

    release: str
    architecture: str

    @property
    def codename(self) -> str:
        """Debian's name of the release."""
        return CODENAMES.get(self.release, "")

    @property
    def python(self) -> str:
        """The Python of the release."""
        return PYTHONS.get(self.release, "")

    def __str__(self) -> str:
        return f"Debian {self.release} {self.architecture}"


@dataclass(frozen=True)
class File:
    """One file of the bundle."""

    path: str
    size: int
    sha256: str
    kind: str
    name: str
    version: str = ""
    source: str = ""
    needed_by: tuple[str, ...] = ()
    release: str = ""
    architecture: str = ""
    reference: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds."""

    cluster: str
    created: str
    targets: tuple[Target, ...]
    files: tuple[File, ...]

    def of(self, kind: str) -> list[File]:
        """Return the files of one kind."""
        return [file for file in self.files if file.kind == kind]


@dataclass(frozen=True)
class Found:
    """What is at a path of the directory: ``file``, ``link`` or ``other`` (a device, a socket)."""

    what: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Difference:
    """What differs between two bundles."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """One line for each difference."""
        marked = {"+": self.added, "-": self.removed, "~": self.changed}
        return [f"{mark} {text}" for mark, texts in marked.items() for text in texts]


def refuse(where: str, problems: Sequence[str], remedy: str = REMEDY) -> None:
    """Raise an error with all ``problems``, if there are any."""
    if problems:
        shown = list(problems[:20])
        more = f"\nand {len(problems) - 20} more" if len(problems) > 20 else ""
        raise InvalidInput(f"The bundle {where} is refused: {join_problems(shown)}{more}", remedy)


def check_path(path: str) -> str:
    """Return why ``path`` can't be a path in a bundle, or nothing."""
    if not path or path.startswith(("/", "~")) or "\\" in path or re.search(r"[\x00-\x1f\x7f]", path):
        return f"{path!r} is no plain relative path"
    if any(part in ("", ".", "..") for part in unquote(path).split("/")):
        return f"{path!r} leads out of the bundle, or around in it"
    if path in UNLISTED:
        return f"{path!r} can't be listed in the manifest"
    return ""


def _check_names(file: File, targets: Sequence[Target]) -> list[str]:
    """Compare what the manifest says of a file with what the file's name says."""
    name = file.path.rsplit("/", 1)[-1]
    problems = []
    if file.kind in ("deb", "wheel") and file.release not in {target.release for target in targets}:
        problems.append(f"{file.path} is for Debian {file.release or '?'}, which this bundle is not for")
    architectures = {target.architecture for target in targets if target.release == file.release}
    if file.kind == "deb":
        own = name.removesuffix(".deb").rpartition("_")[2]
        if own not in {"all", *architectures} or own != file.architecture:
            problems.append(f"{file.path} is for the architecture {own}, not {file.architecture or '?'}")
        if f"/{CODENAMES.get(file.release, '?')}/" not in file.path:
            problems.append(f"{file.path} is not where the packages of Debian {file.release} are")
    if file.kind == "wheel":
        problems += _check_wheel(file, name, architectures)
    every = {"", *(target.architecture for target in targets)}
    if file.kind not in ("deb", "wheel") and file.architecture not in every:
        problems.append(f"{file.path} is for the architecture {file.architecture}, which this bundle is not for")
    return problems


def _check_wheel(file: File, name: str, architectures: Iterable[str]) -> list[str]:
    tags = name[: -len(".whl")].split("-")[-3:] if name.endswith(".whl") else []
    if len(tags) != 3:
        return [f"{file.path} has not the name of a wheel"]
    pythons, abis, platforms = (tag.split(".") for tag in tags)
    minor = int(PYTHONS.get(file.release, "3.0").split(".")[1])
    fits = any(
        re.fullmatch(r"py3\d?|py2\.py3", tag)
        or tag == f"cp3{minor}"
        or (
            re.fullmatch(r"(cp|py)3\d*", tag)
            and (tag.startswith("py") or "abi3" in abis)
            and int(tag[3:] or 0) <= minor
        )
        for tag in pythons
    )
    problems = []
    if not fits:
        problems.append(f"{file.path} is for {tags[0]}, not for the Python 3.{minor} of Debian {file.release}")
    machines = [machine for one in architectures for machine in MACHINES.get(one, ())]
    if "any" not in platforms and not any(one.endswith(tuple(machines)) for one in platforms):
        problems.append(f"{file.path} is for {tags[2]}, not for {', '.join(machines)}")
    return problems


def _check_file(entry: Any, number: int) -> tuple[File | None, list[str]]:
    if not isinstance(entry, dict):
        return None, [f"entry {number} of files is no object"]
    where = f"entry {number} of files ({entry.get('path', 'without a path')})"
    known = {one.name for one in fields(File)}
    problems = [f"{where} has the unknown key {key!r}" for key in entry if key not in known]
    problems += [
        f"{where}: {key} is {entry.get(key)!r}, which is no text"
        for key in sorted(known - {"size", "needed_by"})
        if not isinstance(entry.get(key, ""), str)
    ]
    needed_by = entry.get("needed_by", [])
    if not isinstance(needed_by, list) or not all(isinstance(one, str) for one in needed_by):
        problems.append(f"{where}: needed_by is no list of names")
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        problems.append(f"{where}: size is {size!r}, which is no number of bytes")
    if problems:
        return None, problems
    file = File(**{**{key: entry.get(key, "") for key in known}, "needed_by": tuple(needed_by)})
    bad = check_path(file.path)
    if bad:
        problems.append(bad)
    if not HEX.fullmatch(file.sha256):
        problems.append(f"{where}: sha256 is {file.sha256!r}")
    if file.kind not in KINDS:
        problems.append(f"{where}: kind is {file.kind!r}, not one of {', '.join(KINDS)}")
    elif file.path.split("/")[0] != KINDS[file.kind]:
        problems.append(f"{where}: a file of kind {file.kind} is in {KINDS[file.kind]}")
    if not file.name:
        problems.append(f"{where} has no name")
    return file, problems


def parse(text: str, where: str) -> Manifest:
    """Read a manifest; all that is wrong with it is one error."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{where} is no JSON ({error}).", REMEDY) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise InvalidInput(f"{where} has the schema {found!r}, not {SCHEMA}.", "build the bundle with this collection.")
    problems = [f"the unknown key {key!r}" for key in data if key not in ("schema", *_TOP)]
    problems += [f"no {key}" for key in _TOP if key not in data]
    cluster, created = data.get("cluster", ""), data.get("created", "")
    if not isinstance(cluster, str):
        problems.append(f"cluster is {cluster!r}")
    if not isinstance(created, str) or not TIME.fullmatch(created):
        problems.append(f"created is {created!r}, which is no time as in 2026-11-22T16:00:00Z")
    targets = []
    for entry in _list(data, "targets", problems):
        known = isinstance(entry, dict) and entry.get("release") in CODENAMES
        if not known or entry.get("architecture") not in ARCHITECTURES:
            problems.append(f"a target is {entry!r}")
        else:
            targets.append(Target(entry["release"], entry["architecture"]))
    files: dict[str, File] = {}
    for number, entry in enumerate(_list(data, "files", problems), start=1):
        file, wrong = _check_file(entry, number)
        problems += wrong
        if file and not wrong:
            problems += _check_names(file, targets)
            if file.path.lower() in files:
                problems.append(f"{file.path} is listed twice")
            files[file.path.lower()] = file
    refuse(where, problems)
    return Manifest(cluster, created, tuple(targets), tuple(files.values()))


_TOP = ("cluster", "created", "targets", "files")


def _list(data: Mapping[str, Any], key: str, problems: list[str]) -> list[Any]:
    value = data.get(key, [])
    if isinstance(value, list):
        return value
    problems.append(f"{key} is no list")
    return []


def dump(manifest: Manifest) -> str:
    """Return the text of a manifest; equal manifests have equal texts."""
    files = []
    for file in sorted(manifest.files, key=lambda one: one.path):
        entry = {key: value for key, value in asdict(file).items() if value or key in ("size", "version", "source")}
        files.append({**entry, "needed_by": sorted(file.needed_by)})
    data = {
        "schema": SCHEMA,
        "cluster": manifest.cluster,
        "created": manifest.created,
        "targets": [
            {
                "release": target.release,
                "codename": target.codename,
                "architecture": target.architecture,
                "python": target.python,
            }
            for target in sorted(manifest.targets, key=lambda one: (one.release, one.architecture))
        ],
        "files": files,
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def check_tree(manifest: Manifest, found: Mapping[str, Found]) -> list[str]:
    """Return what of the directory is not as the manifest says; ``found`` has everything in it but directories."""
    problems = [
        f"{path} is a link" if one.what == "link" else f"{path} is no ordinary file"
        for path, one in sorted(found.items())
        if one.what != "file"
    ]
    listed = {file.path for file in manifest.files}
    extra = sorted(path for path, one in found.items() if path not in listed | UNLISTED and one.what == "file")
    problems += [f"{path} is not in the manifest" for path in extra]
    for file in sorted(manifest.files, key=lambda one: one.path):
        one = found.get(file.path)
        if one is None:
            problems.append(f"{file.path} is missing")
        elif one.what == "file" and one.size < file.size:
            problems.append(f"{file.path} is cut off: {one.size} of {file.size} bytes")
        elif one.what == "file" and (one.size, one.sha256) != (file.size, file.sha256):
            problems.append(f"{file.path} was altered: its sha256 is {one.sha256 or 'unknown'}, not {file.sha256}")
    return problems


def check_targets(manifest: Manifest, wanted: Iterable[Target]) -> list[str]:
    """Return which machines of the inventory the bundle is not for."""
    there = ", ".join(map(str, manifest.targets)) or "nothing"
    return [f"it is for {there}, not for {one}" for one in dict.fromkeys(wanted) if one not in manifest.targets]


def check_age(manifest: Manifest, installed: Manifest | None) -> list[str]:
    """Return why the bundle is older than the one that the cluster was installed from."""
    if installed is None or manifest.created >= installed.created:
        return []
    return [f"it was made at {manifest.created}, before the one that the mirror has ({installed.created})"]


def compare(old: Manifest, new: Manifest) -> Difference:
    """Return what changed from ``old`` to ``new``."""

    def by_key(manifest: Manifest) -> dict[tuple[str, ...], File]:
        return {
            (file.kind, file.name, file.release, file.architecture, file.path if file.kind in _BY_PATH else ""): file
            for file in manifest.files
        }

    before, after = by_key(old), by_key(new)
    return Difference(
        tuple(sorted(_title(after[key]) for key in after.keys() - before.keys())),
        tuple(sorted(_title(before[key]) for key in before.keys() - after.keys())),
        tuple(
            sorted(
                _change(before[key], after[key])
                for key in before.keys() & after.keys()
                if before[key].sha256 != after[key].sha256
            )
        ),
    )


# What has no version of its own.
_BY_PATH = ("apt-index", "wheel-index", "file")


def _title(file: File) -> str:
    where = f" (Debian {file.release})" if file.release else ""
    return f"{file.kind} {file.name} {file.version}".rstrip() + where


def _change(old: File, new: File) -> str:
    if old.version == new.version:
        return f"{_title(new)}: the same version, another content"
    return f"{old.kind} {old.name} {old.version} -> {new.version}" + (f" (Debian {new.release})" if new.release else "")
