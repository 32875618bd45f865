# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a release of the stand-in for k3s as the makers of k3s publish theirs: k3s_release.py DIRECTORY VERSION.

With --busybox FILE: an image with the static busybox of this computer, as `docker save` writes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import py_compile
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

STANDIN = Path(__file__).with_name("k3s_standin")
MAIN = """import sys

if sys.argv[1:] in ([], ["--version"], ["-v"]):
    print("k3s version {version} (standin)\\ngo version none")
else:
    from k3s_standin.program import main

    main()
"""
APPLETS = ("sh", "cat", "echo", "httpd", "mkdir", "sync", "timeout")
# The static busybox of Debian 12 crashes in `wget -T`.
WGET = '#!/bin/sh\n[ "$1 $2" = "-q -T" ] || exit 2\nlimit=$3; shift 3\nexec timeout "$limit" busybox wget -q "$@"\n'


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def compiled(text: str, name: str) -> bytes:
    """Return what Python makes of a module: it is started often, and a node with another Python reads the text."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, name)
        source.write_text(text)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        return Path(py_compile.compile(str(source), f"{source}c", name, True, invalidation_mode=mode)).read_bytes()


def make_release(directory: Path, version: str) -> Path:
    """Write program, images and sums into ``directory``/``version``, and return that."""
    place = directory / version
    place.mkdir(parents=True, exist_ok=True)
    program = io.BytesIO()
    with zipfile.ZipFile(program, "w") as archive:
        for path in sorted(STANDIN.glob("*.py")):
            text = re.sub(r'^VERSION = ".*?"', f'VERSION = "{version}"', path.read_text(), flags=re.M)
            archive.writestr(zipfile.ZipInfo(f"k3s_standin/{path.name}"), text)
            archive.writestr(zipfile.ZipInfo(f"k3s_standin/{path.name}c"), compiled(text, path.name))
        archive.writestr(zipfile.ZipInfo("__main__.py"), MAIN.format(version=version))
    (place / "k3s").write_bytes(b"#!/usr/bin/env python3\n" + program.getvalue())
    (place / "k3s").chmod(0o755)
    names = [f"docker.io/rancher/mirrored-pause:{version.partition('+')[0]}"]
    images = place / "k3s-airgap-images-amd64.tar.gz"
    with tarfile.open(images, "w:gz") as archive:
        add(archive, "manifest.json", json.dumps([{"Config": "config.json", "RepoTags": names, "Layers": []}]).encode())
    lines = [f"{hashlib.sha256((place / name).read_bytes()).hexdigest()}  {name}\n" for name in ("k3s", images.name)]
    (place / "sha256sum-amd64.txt").write_text("".join(lines))
    return place


def make_busybox(path: Path) -> None:
    """Write an image with busybox, and with its commands that the product's own check of a cluster uses."""
    program = shutil.which("busybox")
    if not program:
        sys.exit("There is no busybox here. Remedy: apt-get install busybox-static")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name in ("bin", "etc", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        add(archive, "bin/busybox", Path(program).read_bytes(), 0o755)
        add(archive, "bin/wget", WGET.encode(), 0o755)
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    manifest = [{"Config": "config.json", "RepoTags": ["library/busybox:1.36"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        add(archive, "layer.tar", layer.getvalue())
        add(archive, "config.json", json.dumps(config).encode())
        add(archive, "manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    if sys.argv[1] == "--busybox":
        make_busybox(Path(sys.argv[2]))
    else:
        print(make_release(Path(sys.argv[1]), sys.argv[2]))
