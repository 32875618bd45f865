# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A collection as the tarball that it came as, whether it is installed or a checkout. Runs on the control node."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, write_atomically

__all__ = ["pack_collection"]


def pack_collection(run: Run, root: Path, target: Path) -> Path:
    """Write the tarball of the collection in ``root`` into the directory ``target``, and return it.

    Equal collections have equal tarballs, so that a bundle stays what it is.
    """
    files = _installed(root) if (root / "MANIFEST.json").is_file() else _built(run, root)
    about = json.loads(files["MANIFEST.json"])["collection_info"]
    path = target / f"{about['namespace']}-{about['name']}-{about['version']}.tar.gz"
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _archive(files), 0o644)
    return path


def _installed(root: Path) -> dict[str, bytes]:
    """Return the files of an installed collection by its own list of them."""
    listed = json.loads((root / "FILES.json").read_text(encoding="utf-8"))["files"]
    names = [entry["name"] for entry in listed if entry["ftype"] == "file"]
    return {name: (root / name).read_bytes() for name in ("MANIFEST.json", "FILES.json", *names)}


def _built(run: Run, root: Path) -> dict[str, bytes]:
    """Return the files that ansible-galaxy takes of a checkout."""
    with tempfile.TemporaryDirectory(prefix="turnkey-collection-") as folder:
        # A module's programs run in the locale C, which Ansible refuses.
        ansible = ["env", "LC_ALL=C.UTF-8", sys.executable, "-m", "ansible"]
        argv = [*ansible, "galaxy", "collection", "build", str(root.resolve()), "--output-path", folder]
        code, out, err = run(argv, None)
        made = list(Path(folder).glob("*.tar.gz"))
        if code != 0 or len(made) != 1:
            raise HpcError(f"ansible-galaxy can't build the collection in {root}: {(err or out).strip()[-600:]}")
        with tarfile.open(made[0]) as archive:
            return {
                member.name: stream.read()
                for member in archive
                if member.isreg() and (stream := archive.extractfile(member))
            }


def _archive(files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        # ansible-galaxy wants the directories to be there, too.
        for folder in sorted({str(one) for name in files for one in PurePosixPath(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if content.startswith(b"#!") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return raw.getvalue()
