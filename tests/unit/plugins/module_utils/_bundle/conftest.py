# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle with a file of every kind, made by the builder and by gpg."""

from __future__ import annotations

import datetime
import shutil
import subprocess

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle import build as builder
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle import signature
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import File, Manifest, Target
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import digest

NOW = datetime.datetime(2026, 11, 22, 16, tzinfo=datetime.timezone.utc)
FILES = {
    "deb": "apt/pool/bookworm/less_590-2.1_amd64.deb",
    "wheel": "wheels/debian12/a-1.0-py3-none-any.whl",
    "npm": "npm/proxy-1.0.tgz",
    "image": "images/mini_1.tar",
    "chart": "charts/hub-1.0.tgz",
    "collection": "collections/turnkey-hpc-0.1.0.tar.gz",
    "controller": "controller/b-1.0-py3-none-any.whl",
    "file": "files/k3s/v1/k3s",
}


def call(argv, stdin=None):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run():
    """Return what runs programs."""
    return call


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """Build a bundle with one file of each kind that is given; the builder adds the others."""
    pytest.importorskip("cyclonedx")
    if not shutil.which("gpg"):
        pytest.skip("gpg signs bundles")
    top = tmp_path_factory.mktemp("bundle")
    directory, key = top / "bundle", top / "key"
    for kind, path in FILES.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(f"this is the {kind}\n")
    files = []
    for kind, path in FILES.items():
        release = "12" if kind in ("deb", "wheel") else ""
        place = directory / path
        files.append(
            File(
                path,
                place.stat().st_size,
                digest(place),
                kind,
                kind,
                "1",
                needed_by=("k3s", "site") if kind == "file" else (),
                release=release,
                reference="mini:1",
            )
            if kind != "deb"
            else File(path, place.stat().st_size, digest(place), kind, kind, "1", release="12", architecture="amd64")
        )
    target = Target("12", "amd64")
    made = builder.Builder(call, directory, key, top / "cache", now=lambda: NOW)
    made._seal(Manifest("lab", "", (target,), tuple(files)), {target: ([], "")})
    return directory, key


@pytest.fixture
def bundle(sealed, tmp_path):
    """Return a copy of the bundle, and the fingerprint of its key."""
    directory, key = sealed
    shutil.copytree(directory, tmp_path / "bundle")
    return tmp_path / "bundle", signature.fingerprint_of(key)
