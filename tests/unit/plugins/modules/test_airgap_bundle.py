# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import Target
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.modules.airgap_bundle import diff, targets_of, verify

BUNDLE = {
    "schema": 1,
    "cluster": "lab",
    "created": "2026-11-22T16:00:00Z",
    "targets": [{"release": "12", "architecture": "amd64"}],
    "files": [{"path": "npm/a.tgz", "size": 1, "sha256": hashlib.sha256(b"a").hexdigest(), "kind": "npm", "name": "a"}],
}


def test_hosts_of_one_kind_are_resolved_together():
    one, other = {"baseline": ["less"]}, {"slurm": ["slurmd"]}
    hosts = [
        {"release": "12", "architecture": "amd64", "packages": one},
        {"release": "13", "architecture": "amd64", "packages": {}},
        {"release": "12", "architecture": "amd64", "packages": other},
    ]
    assert targets_of(hosts) == {Target("12", "amd64"): [one, other], Target("13", "amd64"): [{}]}


@pytest.mark.parametrize("given", [{"key_dir": None}, {"key_dir": "nowhere"}])
def test_without_a_fingerprint_nothing_is_verified(given, tmp_path):
    def never(argv, stdin=None):
        raise AssertionError(argv)

    with pytest.raises(InvalidInput, match="Nothing says whose signature"):
        verify(never, {"path": str(tmp_path), "fingerprint": "", "hosts": [], **given})


def test_two_bundles_are_compared_by_their_manifests(tmp_path):
    for name, files in (("old", []), ("new", BUNDLE["files"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({**BUNDLE, "files": files}))
    result = diff({"path": str(tmp_path / "new"), "other": str(tmp_path / "old")})
    assert result["differences"] == ["+ npm a"]
    assert not result["changed"]
    assert result["targets"] == ["12 amd64"]


def test_a_directory_without_a_manifest_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="is no bundle"):
        diff({"path": str(tmp_path), "other": str(tmp_path)})
