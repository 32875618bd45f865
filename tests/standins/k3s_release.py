# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a release of the stand-in for k3s as the makers of k3s publish theirs: k3s_release.py DIRECTORY VERSION."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
import tarfile
from pathlib import Path

STANDIN = Path(__file__).with_name("k3s_standin.py")


def make_release(directory: Path, version: str) -> Path:
    """Write program, images and sums into ``directory``/``version``, and return that."""
    place = directory / version
    place.mkdir(parents=True, exist_ok=True)
    program = "#!/usr/bin/env python3\n" + re.sub(
        r'^VERSION = ".*?"', f'VERSION = "{version}"', STANDIN.read_text(), flags=re.M
    )
    (place / "k3s").write_text(program)
    (place / "k3s").chmod(0o755)
    names = [f"docker.io/rancher/mirrored-pause:{version.partition('+')[0]}"]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": names, "Layers": []}]).encode()
    images = place / "k3s-airgap-images-amd64.tar.gz"
    with tarfile.open(images, "w:gz") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    lines = [f"{hashlib.sha256((place / name).read_bytes()).hexdigest()}  {name}\n" for name in ("k3s", images.name)]
    (place / "sha256sum-amd64.txt").write_text("".join(lines))
    return place


if __name__ == "__main__":
    print(make_release(Path(sys.argv[1]), sys.argv[2]))
