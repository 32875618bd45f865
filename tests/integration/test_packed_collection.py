# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's own tarball in a bundle, made by the real ansible-galaxy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.collection import pack_collection
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

GALAXY = """\
namespace: some
name: thing
version: 1.2.3
readme: README.md
authors: [somebody]
build_ignore: [.*]
"""


def run(argv, stdin=None):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A checkout of a collection with a program in it, and with what is no part of it."""
    root = tmp_path / "checkout"
    (root / "tools").mkdir(parents=True)
    (root / ".secrets").mkdir()
    (root / ".secrets/key").write_text("secret")
    (root / "galaxy.yml").write_text(GALAXY)
    (root / "README.md").write_text("a thing\n")
    (root / "tools/do").write_text("#!/bin/sh\n")
    return root


def test_a_checkout_and_what_is_installed_from_it_give_one_and_the_same_tarball(checkout, tmp_path):
    path = pack_collection(run, checkout, tmp_path / "one")
    assert path.name == "some-thing-1.2.3.tar.gz"
    argv = [sys.executable, "-m", "ansible", "galaxy", "collection", "install", str(path), "--offline"]
    subprocess.run([*argv, "-p", str(tmp_path / "there")], check=True, capture_output=True)
    installed = tmp_path / "there/ansible_collections/some/thing"
    assert installed.joinpath("tools/do").stat().st_mode & 0o111
    assert not installed.joinpath(".secrets").exists()
    again = pack_collection(run, installed, tmp_path / "two")
    assert again.read_bytes() == path.read_bytes()


def test_a_directory_that_is_no_collection_is_named(tmp_path):
    with pytest.raises(HpcError, match=str(tmp_path)):
        pack_collection(run, tmp_path, tmp_path / "out")
