# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.collection import pack_collection
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError


@pytest.fixture
def installed(tmp_path):
    """An installed collection, in which somebody left a file."""
    root = tmp_path / "thing"
    (root / "tools").mkdir(parents=True)
    about = {"collection_info": {"namespace": "some", "name": "thing", "version": "1.2.3"}}
    (root / "MANIFEST.json").write_text(json.dumps(about))
    entries = [{"name": ".", "ftype": "dir"}, {"name": "tools/do", "ftype": "file"}, {"name": "text", "ftype": "file"}]
    (root / "FILES.json").write_text(json.dumps({"files": entries}))
    (root / "tools/do").write_text("#!/bin/sh\n")
    (root / "text").write_text("a thing\n")
    (root / "left-here").write_text("secret")
    return root


def refuse(argv, stdin=None):
    return 1, "", "no galaxy.yml"


def test_the_tarball_of_what_is_installed_has_its_files_and_is_always_the_same(installed, tmp_path):
    first = pack_collection(refuse, installed, tmp_path / "one")
    assert first.name == "some-thing-1.2.3.tar.gz"
    assert pack_collection(refuse, installed, tmp_path / "two").read_bytes() == first.read_bytes()
    with tarfile.open(first) as archive:
        modes = {member.name: member.mode for member in archive if member.isreg()}
    assert modes == {"MANIFEST.json": 0o644, "FILES.json": 0o644, "tools/do": 0o755, "text": 0o644}


def test_a_directory_that_ansible_galaxy_refuses_is_named_with_its_words(tmp_path):
    with pytest.raises(HpcError, match=rf"{tmp_path}: no galaxy\.yml"):
        pack_collection(refuse, tmp_path, tmp_path / "out")
