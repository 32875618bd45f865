# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a bundle on a host: only what is missing is brought, and each file is checked again. Runs on the host."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import (
    MANIFEST,
    UNLISTED,
    File,
    Manifest,
    check_age,
    check_tree,
    parse,
    refuse,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import check_directory, scan
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

__all__ = ["Copy", "batches"]

CHUNK = 1 << 20


def batches(files: Iterable[File], limit: int) -> Iterator[list[File]]:
    """Split files into groups of at most ``limit`` bytes; a larger file is alone."""
    group: list[File] = []
    size = 0
    for file in files:
        if group and size + file.size > limit:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


class Copy:
    """The copy of the bundle with ``manifest`` in ``directory``."""

    def __init__(self, directory: Path, text: str) -> None:
        """Take the text of the manifest, which the control node has verified."""
        self.directory, self.text = directory, text
        self.manifest = parse(text, MANIFEST)

    def installed(self) -> Manifest | None:
        """Return the manifest of the copy that is there, if it is whole enough to be read."""
        try:
            return parse((self.directory / MANIFEST).read_text(encoding="utf-8"), str(self.directory / MANIFEST))
        except (OSError, HpcError):
            return None

    def check_age(self) -> None:
        """Refuse to go back to an older bundle."""
        problems = check_age(self.manifest, self.installed())
        refuse(MANIFEST, problems, "build it anew, or set mirror_allow_older if that is meant.")

    def look(self) -> tuple[list[File], list[str]]:
        """Return the files that are missing or wrong, and the paths of what does not belong there."""
        check_directory(self.directory)
        if not self.directory.is_dir():
            return list(self.manifest.files), []
        found = scan(self.directory, {file.path: file.size for file in self.manifest.files})
        listed = {file.path for file in self.manifest.files}
        missing = [
            file
            for file in self.manifest.files
            if file.path not in found or (found[file.path].what, found[file.path].sha256) != ("file", file.sha256)
        ]
        return missing, sorted(path for path in found if path not in listed | UNLISTED)

    def current(self) -> bool:
        """Whether the manifest that is there is this one."""
        path = self.directory / MANIFEST
        return path.is_file() and path.read_text(encoding="utf-8") == self.text

    def unpack(self, archive: Path) -> None:
        """Take the files in an archive, each after its digest was checked."""
        files = {file.path: file for file in self.manifest.files}
        with tarfile.open(archive) as stream:
            for member in stream:
                file = files.get(member.name)
                source = stream.extractfile(member) if member.isreg() else None
                if file is None or source is None:
                    raise HpcError(f"{member.name!r} came, which the manifest has not.", "run again.")
                target = self.directory / file.path
                self._make_parents(target)
                part = target.with_name(f".{target.name}.part")
                found = hashlib.sha256()
                with part.open("wb") as sink:
                    for chunk in iter(lambda source=source: source.read(CHUNK), b""):  # type: ignore[misc]
                        found.update(chunk)
                        sink.write(chunk)
                if found.hexdigest() != file.sha256:
                    part.unlink()
                    raise HpcError(
                        f"{file.path} was altered on its way: its sha256 is {found.hexdigest()}.", "run again."
                    )
                part.chmod(0o644)
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                part.replace(target)

    def _make_parents(self, target: Path) -> None:
        """Make the directories above a file; what stands in their way goes."""
        for directory in reversed([one for one in target.parents if self.directory in (one, *one.parents)]):
            if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
                directory.unlink()
            if not directory.exists():
                directory.mkdir(parents=True)
                directory.chmod(0o755)

    def finish(self, extra: Sequence[str]) -> None:
        """Remove what does not belong there, look at everything once more, and write the manifest last."""
        for path in extra:
            (self.directory / path).unlink()
        for folder, _folders, _names in os.walk(self.directory, topdown=False):
            if folder != str(self.directory) and not any(Path(folder).iterdir()):
                Path(folder).rmdir()
        sizes = {file.path: file.size for file in self.manifest.files}
        refuse(str(self.directory), check_tree(self.manifest, scan(self.directory, sizes)), "run again.")
        part = self.directory / f".{MANIFEST}.part"
        part.write_text(self.text, encoding="utf-8")
        part.chmod(0o644)
        part.replace(self.directory / MANIFEST)
