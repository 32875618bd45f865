# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module says and does; that machines start from its images is shown in tests/vm."""

from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import State
from ansible_collections.turnkey.hpc.plugins.modules import disk_image

NOW = 1_800_000_000.0
DISK = b"QFI\xfb\x00\x00\x00\x03" + bytes(16) + (2 << 30).to_bytes(8, "big") + bytes(64)


class Hypervisor:
    """A provider with three clusters, that remembers what was asked of it."""

    def __init__(self):
        self.done = []

    def clusters(self):
        return ["demo", "build-1799999999000", "build-1800000001000"]

    def discover(self, cluster):
        self.done.append(f"discover {cluster}")
        return State(())

    def apply(self, actions):
        self.done.append(f"apply {len(actions)}")

    def export_disk(self, cluster, target):
        self.done.append(f"export {cluster}")
        target.write(DISK)


@pytest.fixture
def params(tmp_path):
    (tmp_path / "cloud.qcow2").write_bytes(DISK)
    return {
        "state": "found",
        "directory": str(tmp_path / "images/node"),
        "source": str(tmp_path / "cloud.qcow2"),
        "input_paths": [],
        "input_values": [],
        "inputs": None,
        "build": None,
        "hours": 2,
    }


def run(params, check=False, **more):
    hypervisor = Hypervisor()
    return disk_image.run({**params, **more}, check, lambda: hypervisor, NOW), hypervisor.done


def test_forgotten_builds_are_removed_before_another_begins(params):
    result, done = run(params)
    assert (result["exists"], result["build"], result["removed"]) == (
        False,
        "build-1800007200000",
        ["build-1799999999000"],
    )
    assert done == ["discover build-1799999999000", "apply 0"]


def test_check_mode_asks_no_hypervisor(params):
    result, done = run(params, check=True)
    assert (result["changed"], result["exists"], done) == (True, False, [])
    result, done = run(params, check=True, state="published", inputs="1", build="build-1800000001000")
    assert (result["changed"], done) == (True, [])


def test_what_was_built_becomes_an_image_that_is_not_built_again(params, tmp_path):
    inputs = run(params)[0]["inputs"]
    result, done = run(params, state="published", inputs=inputs, build="build-1800000001000")
    assert (result["changed"], done) == (True, ["export build-1800000001000"])
    description = json.loads((tmp_path / "images/node/image.json").read_text())
    assert (description["hash"], description["name"], description["kernel"]) == (inputs, "node", None)
    result, done = run(params)
    assert (result["changed"], result["exists"], done) == (False, True, [])


def test_another_source_is_another_image(params, tmp_path):
    first = run(params)[0]["inputs"]
    (tmp_path / "cloud.qcow2").write_bytes(DISK + b"more")
    assert run(params)[0]["inputs"] != first


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"cloud\.qcow2 does not exist\. Remedy: Let base_image_from be"),
        (b"MZ" + bytes(64), "is not in the format qcow2"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_asked(params, tmp_path, content, problem):
    source = tmp_path / "cloud.qcow2"
    source.unlink() if content is None else source.write_bytes(content)
    with pytest.raises(HpcError, match=problem):
        run(params)
