# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module says and does; that a cloud makes and removes images is shown in tests/cloud."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.modules import cloud_image

NOW = 1_800_000_000.0


class Cloud:
    """A cloud with one image and three clusters, that remembers what was asked of it."""

    def __init__(self):
        self.done = []

    def clusters(self):
        return {"demo": [], "build-1799999999000": [], "build-1800000001000": []}

    def sweep(self, now):
        self.done.append("sweep")
        return ["build-1799999999000"]

    def published(self, name, inputs):
        return (name, inputs) == ("node", "abc")

    def publish(self, build, name, inputs):
        self.done.append(f"publish {name} {inputs} of {build}")

    def prune(self, name, keep):
        self.done.append(f"prune {name} {keep}")
        return [SimpleNamespace(name="node-old")]


def run(cloud, check=False, **params):
    given = {"state": "found", "name": "node", "input_paths": [], "input_values": [], "inputs": None, "build": None}
    return cloud_image.run({**given, "hours": 2, "keep": 3, **params}, check, cloud, NOW)


def test_an_image_with_these_inputs_is_not_built_again():
    found = run(Cloud(), inputs="abc")
    assert (found["exists"], found["image"], found["build"]) == (True, "node-abc", "build-1800007200000")
    assert run(Cloud(), inputs="xyz")["exists"] is False


def test_other_inputs_have_another_hash():
    assert run(Cloud(), input_values=["a"])["inputs"] != run(Cloud(), input_values=["b"])["inputs"]


@pytest.mark.parametrize("check", [False, True])
def test_forgotten_builds_are_removed_but_for_check_mode(check):
    cloud = Cloud()
    assert run(cloud, check)["removed"] == ["build-1799999999000"]
    assert cloud.done == ([] if check else ["sweep"])


@pytest.mark.parametrize("check", [False, True])
def test_what_was_built_becomes_the_image_and_old_versions_go(check):
    cloud = Cloud()
    result = run(cloud, check, state="published", inputs="abc", build="build-1800000001000")
    assert result["changed"]
    assert cloud.done == ([] if check else ["publish node abc of build-1800000001000", "prune node 3"])
