# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of one release of k3s, as its makers publish them, in a directory on the control node."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems

__all__ = ["Artifact", "find_artifacts", "read_sums", "release_names", "sha256_of"]

SUFFIXES = {"amd64": "", "arm64": "-arm64"}
TARBALLS = (".tar.zst", ".tar.gz", ".tar")


@dataclass(frozen=True)
class Artifact:
    """A file of the release: where it is on the control node, and what it must be."""

    kind: str
    name: str
    path: str
    sha256: str


def read_sums(text: str) -> dict[str, str]:
    """Return the sums in a file as ``sha256sum`` writes it, by the names of the files."""
    found = re.findall(r"^([0-9a-f]{64})[ \t]+\*?(\S+)[ \t]*$", text, re.MULTILINE)
    return {name: digest for digest, name in found}


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def release_names(architecture: str, sums: Mapping[str, str]) -> tuple[str, str]:
    """Return how a release with these ``sums`` calls the program and the tarball of images."""
    program, stem = f"k3s{SUFFIXES[architecture]}", f"k3s-airgap-images-{architecture}"
    images = next((stem + end for end in TARBALLS if stem + end in sums), stem + TARBALLS[0])
    missing = [name for name in (program, images) if name not in sums]
    if missing:
        raise HpcError(
            f"The list of sums of the release has no line for {', '.join(missing)}.", "take another release."
        )
    return program, images


def find_artifacts(directory: str, architecture: str) -> list[Artifact]:
    """Return the program and the tarball of images, or raise one error that names all that is missing."""
    if architecture not in SUFFIXES:
        raise InvalidInput(f"k3s_architecture is {architecture!r}.", f"choose one of {', '.join(sorted(SUFFIXES))}.")
    place = Path(directory)
    sums_file = place / f"sha256sum-{architecture}.txt"
    stem = f"k3s-airgap-images-{architecture}"
    program = f"k3s{SUFFIXES[architecture]}"
    images = next((stem + end for end in TARBALLS if (place / (stem + end)).is_file()), stem + TARBALLS[0])
    problems = [f"{place / name} is missing." for name in (program, images) if not (place / name).is_file()]
    if not sums_file.is_file():
        problems.append(f"{sums_file} is missing.")
    sums = read_sums(sums_file.read_text(encoding="utf-8")) if sums_file.is_file() else {}
    if sums_file.is_file():
        problems += [f"{sums_file} has no line for {name}." for name in (program, images) if name not in sums]
    if problems:
        raise HpcError(
            join_problems(problems),
            "put the files of the release there as its page calls them, or name the directory with k3s_release_dir.",
        )
    return [
        Artifact("program", "k3s", str(place / program), sums[program]),
        Artifact("images", images, str(place / images), sums[images]),
    ]
