# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden images in Alibaba Cloud: made from a machine, used by the next cluster, removed with their snapshots."""

from __future__ import annotations

import os
import signal

import pytest

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

from ansible_collections.turnkey.hpc.plugins.module_utils._images import build_name
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Invalid, expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan, plan_absent
from standins.alicloud_standin import Fault, Faults, StandIn
from standins.alicloud_standin.use import parameters, provider_of


@pytest.fixture
def cloud():
    with StandIn() as standin:
        yield standin
        assert standin.broken == []


def build(standin, cluster="build-1799999999000", inputs="aaaa"):
    """Make a machine, and an image of it."""
    params = parameters(cluster_name=cluster, network="10.30.0.0/24", cloud={"egress": "none"})
    provider, spec = provider_of(standin), expand_spec({**params, "machine_sets": params["machine_sets"][:1]})
    provider.apply(plan(provider.desired(spec), provider.discover(cluster)))
    return provider_of(standin).publish(cluster, "turnkey-node-debian12", inputs)


def remove(standin, cluster="build-1799999999000"):
    provider = provider_of(standin)
    provider.apply(plan_absent(provider.discover(cluster)))


def test_an_image_is_made_of_the_machine_and_outlives_it(cloud):
    image = build(cloud)
    assert (image.name, image.state, image.used) == ("turnkey-node-debian12-aaaa", "ready", False)
    remove(cloud)
    assert {kind: len(ids) for kind, ids in cloud.account.made().items()} == {"image": 1, "snapshot": 1}


def test_the_same_inputs_are_not_made_into_an_image_twice(cloud):
    assert build(cloud).id == build(cloud).id
    assert len(provider_of(cloud).images()) == 1


def test_a_lost_answer_makes_no_second_image(cloud):
    build(cloud)
    cloud.faults = Faults(rate=1, in_a_row=1, kinds=(Fault.LOST_REPLY,))
    build(cloud, inputs="bbbb")
    assert len(provider_of(cloud).images()) == 2


def test_the_next_cluster_starts_from_the_newest_by_its_pattern(cloud):
    build(cloud, inputs="aaaa")
    newest = build(cloud, inputs="bbbb")
    remove(cloud)
    spec = expand_spec(parameters(node={"image": "turnkey-node-debian12-*"}))
    provider = provider_of(cloud)
    provider.apply(plan(provider.desired(spec), provider.discover("demo")))
    nodes = [i for i in cloud.account.of("instance") if i.data["HostName"].startswith("node")]
    assert {node.data["Image"] for node in nodes} == {newest.id}


def test_pruning_keeps_the_newest_and_what_machines_were_made_from(cloud):
    images = [build(cloud, inputs=inputs) for inputs in ("aaaa", "bbbb", "cccc", "dddd")]
    remove(cloud)
    spec = expand_spec(parameters(node={"image": images[0].id}))
    provider = provider_of(cloud)
    provider.apply(plan(provider.desired(spec), provider.discover("demo")))
    assert [image.id for image in provider_of(cloud).prune("turnkey-node-debian12", 2)] == [images[1].id]
    left = {image.id for image in provider_of(cloud).images()}
    assert left == {images[0].id, images[2].id, images[3].id}
    assert len(cloud.account.of("snapshot")) == 3
    assert provider_of(cloud).prune("turnkey-node-debian12", 2) == []


def test_a_pruning_that_is_killed_after_any_call_leaves_nothing_that_the_next_does_not_find(cloud):
    for kill_after in range(1, 12):
        with StandIn() as standin:
            for inputs in ("aaaa", "bbbb"):
                build(standin, inputs=inputs)
            remove(standin)
            pid = os.fork()
            if not pid:
                try:
                    provider_of(standin).prune("turnkey-node-debian12", 1)
                finally:
                    os._exit(0)
            standin.faults = Faults(kill_after=kill_after, killer=lambda pid=pid: os.kill(pid, signal.SIGKILL))
            os.waitpid(pid, 0)
            standin.faults = Faults()
            provider_of(standin).prune("turnkey-node-debian12", 1)
            assert {kind: len(ids) for kind, ids in standin.account.made().items()} == {"image": 1, "snapshot": 1}


def test_an_image_is_made_of_one_machine_only(cloud):
    spec = expand_spec(parameters())
    provider = provider_of(cloud)
    provider.apply(plan(provider.desired(spec), provider.discover("demo")))
    with pytest.raises(Invalid, match="cluster demo has 4 machines"):
        provider.publish("demo", "turnkey-node-debian12", "aaaa")
    with pytest.raises(Invalid, match="image name 'A b' can't be used"):
        provider.publish("demo", "A b", "aaaa")


def test_builds_whose_time_is_over_are_swept_and_nothing_else(cloud):
    old, young = build_name(1_799_000_000, 1), build_name(1_799_999_000, 2)
    build(cloud, old)
    build(cloud, young, "bbbb")
    assert provider_of(cloud).sweep(1_800_000_000) == [old]
    assert set(provider_of(cloud).clusters()) == {young}
    assert len(provider_of(cloud).images()) == 2
