# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.build import Lock, Release
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import Target
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.modules.airgap_bundle import (
    charts_of,
    diff,
    locks_of,
    releases_of,
    targets_of,
    verify,
)

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


HOST = {"release": "12", "architecture": "amd64"}


def test_hosts_get_the_lock_file_of_their_python_once_for_all_of_a_kind():
    hosts = [{**HOST, "locks": {"hub": {"3.11": "/eleven", "3.13": "/thirteen"}}}] * 2
    assert locks_of([*hosts, {**hosts[0], "release": "13"}]) == [
        Lock(Path("/eleven"), "12", "hub"),
        Lock(Path("/thirteen"), "13", "hub"),
    ]
    with pytest.raises(InvalidInput, match=r"hub has no lock file for the Python 3\.11"):
        locks_of([{**HOST, "locks": {"hub": {"3.13": "/thirteen"}}}])


def test_each_architecture_gets_the_release_of_k3s_that_its_hosts_run():
    hosts = [{**HOST, "k3s_version": "v1"}, {**HOST, "k3s_version": "v1"}, HOST]
    hosts.append({**HOST, "architecture": "arm64", "k3s_version": "v1"})
    given = {"hosts": hosts, "k3s_releases": "/here", "k3s_sums_sha256": {"arm64": "ab"}}
    assert releases_of(given) == [Release("v1", "/here", "amd64", ""), Release("v1", "/here", "arm64", "ab")]


def test_a_chart_that_two_hosts_hand_over_is_in_the_bundle_once():
    chart = {"name": "hub", "version": "1", "url": "/hub-1.tgz"}
    assert [file.path for file in charts_of([{**HOST, "chart": chart}, {**HOST, "chart": chart}, HOST])] == [
        "charts/hub-1.tgz"
    ]
