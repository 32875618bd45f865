# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for a later version of Debian's packages of Slurm: the same programs, repacked with another version.

Runs on a node as root: ``slurm_packages.py DIRECTORY VERSION PACKAGE...``. The packages are downloaded from the node's
sources, and DIRECTORY becomes a package source (``deb [trusted=yes] file:DIRECTORY ./``). VERSION is the new one; with
a "+" in front it is put behind the old one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def repack(deb: Path, directory: Path, wanted: str) -> str:
    """Write ``deb`` with another version into ``directory``; return its entry of the index."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "root")
        subprocess.run(["dpkg-deb", "-R", deb, root], check=True)
        control = root / "DEBIAN/control"
        text = control.read_text()
        old = re.search(r"^Version: (.*)$", text, re.MULTILINE)[1]
        new = old + wanted if wanted.startswith("+") else wanted
        # The packages of one build depend on each other's exact version.
        text = text.replace(f"Version: {old}", f"Version: {new}").replace(f"(= {old})", f"(= {new})")
        if "\nSource:" not in text:
            text = text.replace("\nVersion:", "\nSource: slurm-wlm\nVersion:", 1)
        control.write_text(text)
        name = re.search(r"^Package: (.*)$", text, re.MULTILINE)[1]
        target = directory / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-Znone", "-b", root, target], check=True, stdout=subprocess.DEVNULL)
    data = target.read_bytes()
    return (
        f"{text.rstrip()}\nFilename: ./{target.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    )


def main() -> None:
    """Make the package source."""
    directory, wanted, *names = sys.argv[1:]
    target = Path(directory)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    target.chmod(0o755)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        subprocess.run(["apt-get", "download", "-q", *names], check=True, cwd=place)
        entries = [repack(deb, target, wanted) for deb in sorted(Path(place).glob("*.deb"))]
    (target / "Packages").write_text("\n".join(entries))


if __name__ == "__main__":
    main()
