# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.modules.bundle_files import bring, remove

BUNDLE = {
    "schema": 1,
    "cluster": "lab",
    "created": "2026-11-22T16:00:00Z",
    "targets": [{"release": "12", "architecture": "amd64"}],
    "files": [{"path": "npm/a.tgz", "size": 1, "sha256": hashlib.sha256(b"a").hexdigest(), "kind": "npm", "name": "a"}],
}


@pytest.fixture
def step(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(BUNDLE))
    (tmp_path / "a").write_text("a")
    with tarfile.open(tmp_path / "files.tar", "w") as archive:
        archive.add(tmp_path / "a", "npm/a.tgz")

    def call(**more):
        given = {"_manifest": tmp_path / "manifest.json", "_archive": None, "_finish": False, "allow_older": False}
        return bring(tmp_path / "copy", {**given, **more})

    return call


def test_a_copy_comes_in_steps_of_which_the_last_writes_the_manifest(step, tmp_path):
    assert step()["missing"] == ["npm/a.tgz"]
    step(_archive=str(tmp_path / "files.tar"))
    assert step()["changed"], "without its manifest it is not finished"
    step(_finish=True)
    assert step() == {"changed": False, "missing": [], "diff": {"before": "", "after": ""}}


def test_a_copy_that_lacks_something_is_not_finished(step, tmp_path):
    (tmp_path / "copy").mkdir()
    with pytest.raises(HpcError, match="is missing"):
        step(_finish=True)
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_an_older_bundle_is_taken_only_if_that_is_allowed(step, tmp_path):
    (tmp_path / "copy").mkdir()
    later = json.dumps({**BUNDLE, "created": "2027-01-01T00:00:00Z"})
    (tmp_path / "copy" / "manifest.json").write_text(later)
    with pytest.raises(HpcError, match="mirror_allow_older"):
        step()
    assert step(allow_older=True)["changed"]


def test_a_copy_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "copy" / "apt").mkdir(parents=True)
    assert remove(tmp_path / "copy", check_mode=True) == {"changed": True}
    assert remove(tmp_path / "copy", check_mode=False) == {"changed": True}
    assert remove(tmp_path / "copy", check_mode=False) == {"changed": False}
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(HpcError, match="thesis"):
        remove(tmp_path, check_mode=False)
