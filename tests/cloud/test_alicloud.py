# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider of Alibaba Cloud through the real SDK, on the stand-in, whose docstring says what it can't know."""

from __future__ import annotations

import base64
import json
import re

import pytest

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Auth, expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import (
    ApplyError,
    ReplacementRefused,
    diff,
    plan,
    plan_absent,
)
from standins.alicloud_standin import Fault, Faults, Limits, StandIn
from standins.alicloud_standin.use import PUBLIC_KEY, parameters, provider_of

VOLUME = [{"name": "shared", "path": "/shared", "size_gb": 40}]


@pytest.fixture
def cloud():
    with StandIn() as standin:
        yield standin
        assert standin.broken == []


def present(standin, *, allow_replace=False, check=False, **changes):
    """Do what the module does, as a new run; return the names of the actions."""
    provider, spec = provider_of(standin), expand_spec(parameters(**changes))
    state = provider.discover(spec.cluster)
    problems = provider.check(spec, state)
    assert problems == []
    actions = plan(provider.desired(spec), state, allow_replace=allow_replace)
    if not check:
        provider.apply(actions)
    return [str(action) for action in actions]


def problems_of(standin, **changes):
    provider, spec = provider_of(standin), expand_spec(parameters(**changes))
    return provider.check(spec, provider.discover(spec.cluster))


def absent(standin, cluster="demo"):
    provider = provider_of(standin)
    actions = plan_absent(provider.discover(cluster))
    provider.apply(actions)
    return [str(action) for action in actions]


def addresses(standin, cluster="demo"):
    return {machine.name: machine.address for machine in provider_of(standin).list_instances(cluster)}


def calls_that_change(standin):
    return {name: count for name, count in standin.calls.items() if not name.startswith(("Describe", "Get"))}


def test_a_cluster_is_made_with_the_addresses_that_its_numbers_give(cloud):
    present(cloud)
    assert addresses(cloud) == {
        "head": "10.20.0.10",
        "node1": "10.20.0.138",
        "node2": "10.20.0.139",
        "node3": "10.20.0.140",
    }


def test_a_second_run_changes_nothing(cloud):
    present(cloud, head={"volumes": VOLUME}, node={"placement": "spread", "spot": True, "root_gb": 60})
    before = calls_that_change(cloud)
    assert present(cloud, head={"volumes": VOLUME}, node={"placement": "spread", "spot": True, "root_gb": 60}) == []
    assert calls_that_change(cloud) == before


def test_check_mode_tells_the_plan_and_makes_no_call_that_changes(cloud):
    planned = present(cloud, check=True)
    assert calls_that_change(cloud) == {}
    assert planned == present(cloud)


def test_the_diff_is_sorted_and_names_what_will_be(cloud):
    provider, spec = provider_of(cloud), expand_spec(parameters())
    text = diff(plan(provider.desired(spec), provider.discover("demo")))["after"]
    titles = [line for line in text.splitlines() if not line.startswith(" ")]
    assert titles == [
        "address nat",
        "machine head",
        "machine node1",
        "machine node2",
        "machine node3",
        "nat main",
        "network main",
        "security_group bastion",
        "security_group cluster",
        "subnet private",
        "subnet public",
    ]
    assert "  rules: tcp 22 from 203.0.113.7/32\n" in text
    assert PUBLIC_KEY not in text


@pytest.mark.parametrize(("first", "second"), [(3, 5), (5, 2), (1, 0), (0, 2)])
def test_another_count_adds_or_removes_just_those_nodes(cloud, first, second):
    present(cloud, node={"count": first})
    before = {thing.id for thing in cloud.account.of("instance")}
    present(cloud, node={"count": second})
    after = {thing.id for thing in cloud.account.of("instance")}
    assert len(after) == second + 1
    assert len(before & after) == min(first, second) + 1
    assert set(addresses(cloud)) == {"head", *(f"node{n}" for n in range(1, second + 1))}


def test_nodes_that_are_missing_in_the_middle_come_back_where_they_were(cloud):
    present(cloud, node={"count": 6})
    wanted = addresses(cloud)
    provider_of(cloud).terminate("demo", ["node2", "node5"])
    assert set(addresses(cloud)) == {"head", "node1", "node3", "node4", "node6"}
    assert present(cloud, node={"count": 6}) == ["create machine node2", "create machine node5"]
    assert addresses(cloud) == wanted


def test_many_nodes_come_by_few_calls(cloud):
    present(cloud, network="10.20.0.0/22", node={"count": 250})
    assert cloud.calls["RunInstances"] == 1 + 3
    assert len(addresses(cloud)) == 251
    cloud.calls.clear()
    assert present(cloud, network="10.20.0.0/22", node={"count": 250}) == []
    assert sum(cloud.calls.values()) < 30
    absent(cloud)
    assert cloud.calls["DeleteInstances"] == 3


def test_a_change_that_needs_new_machines_is_refused_and_names_them(cloud):
    present(cloud)
    before = cloud.account.made()
    with pytest.raises(ReplacementRefused, match=r"node1.*instance_type: ecs\.c7\.large -> ecs\.c7\.xlarge"):
        present(cloud, node={"instance_type": "ecs.c7.xlarge"})
    assert cloud.account.made() == before
    present(cloud, node={"instance_type": "ecs.c7.xlarge"}, allow_replace=True)
    kinds = {thing.data["HostName"]: thing.data["Type"] for thing in cloud.account.of("instance")}
    assert kinds == {"head": "ecs.c7.large", **dict.fromkeys(["node1", "node2", "node3"], "ecs.c7.xlarge")}


def test_a_volume_outlives_its_machine_and_comes_back_to_it(cloud):
    present(cloud, head={"volumes": VOLUME})
    (before,) = [d for d in cloud.account.of("disk") if d.data["Type"] == "data"]
    present(cloud, head={"volumes": VOLUME, "instance_type": "ecs.c7.xlarge"}, allow_replace=True)
    (after,) = [d for d in cloud.account.of("disk") if d.data["Type"] == "data"]
    (head,) = [i for i in cloud.account.of("instance") if i.data["HostName"] == "head"]
    assert (after.id, after.data["Instance"]) == (before.id, head.id)
    user_data = base64.b64decode(head.data["UserData"]).decode()
    assert f"/dev/disk/by-id/virtio-{after.id.removeprefix('d-')} /shared" in user_data


def test_destroy_leaves_nothing_of_the_cluster_and_all_of_another(cloud):
    present(cloud, cluster_name="other", network="10.30.0.0/24")
    others = cloud.account.made()
    present(cloud, head={"volumes": VOLUME}, node={"placement": "cluster"})
    absent(cloud)
    assert cloud.account.made() == others
    assert absent(cloud) == []
    absent(cloud, "other")
    assert cloud.account.made() == {}


def test_a_cluster_whose_name_begins_like_another_is_another(cloud):
    present(cloud, cluster_name="demo2", network="10.30.0.0/24", node={"placement": "spread"})
    others = cloud.account.made()
    present(cloud, node={"placement": "spread"})
    absent(cloud)
    assert cloud.account.made() == others


def test_only_the_bastion_has_a_public_address_and_an_open_port(cloud):
    present(cloud)
    groups = {thing.id: thing for thing in cloud.account.of("group")}
    for instance in cloud.account.of("instance"):
        rules = [rule for group in instance.data["Groups"] for rule in groups[group].data["Rules"]]
        world = [(rule["PortRange"], rule["SourceCidrIp"]) for rule in rules if rule["SourceCidrIp"]]
        if instance.data["HostName"] == "head":
            assert instance.data["Public"]
            assert world == [("22/22", "203.0.113.7/32")]
        else:
            assert not instance.data["Public"]
            assert world == []


@pytest.mark.parametrize("egress", ["none", "proxy", "nat"])
def test_private_machines_get_out_as_asked(cloud, egress):
    proxy = {"proxy_url": "http://10.9.9.9:3128"} if egress == "proxy" else {}
    present(cloud, cloud={"egress": egress, **proxy})
    made = cloud.account.made()
    assert ("nat" in made, "eip" in made, "snat" in made) == ((egress == "nat",) * 3)
    user_data = [base64.b64decode(i.data["UserData"]).decode() for i in cloud.account.of("instance")]
    assert all(("10.9.9.9" in text) == (egress == "proxy") for text in user_data)


def test_a_rule_made_by_hand_is_shown_and_stays_until_its_removal_is_asked_for(cloud):
    present(cloud)
    (group,) = [g for g in cloud.account.of("group") if g.tags["turnkey:name"] == "bastion"]
    by_hand = {
        **group.data["Rules"][0],
        "SourceCidrIp": "192.0.2.0/24",
        "Description": "",
        "SecurityGroupRuleId": "sgr-x",
    }
    group.data["Rules"].append(by_hand)
    assert present(cloud) == []
    resource = provider_of(cloud).discover("demo").of_kind("security_group")["bastion"]
    assert resource.settings["foreign_rules"] == {"tcp 22 from 192.0.2.0/24"}
    present(cloud, cloud={"remove_foreign_rules": True})
    assert [rule["SourceCidrIp"] for rule in group.data["Rules"]] == ["203.0.113.7/32"]


def test_a_changed_source_network_opens_the_new_and_closes_the_old(cloud):
    present(cloud)
    assert present(cloud, cloud={"ssh_from": ["198.51.100.0/24"]}) == ["update security_group bastion (rules)"]
    (group,) = [g for g in cloud.account.of("group") if g.tags["turnkey:name"] == "bastion"]
    assert [rule["SourceCidrIp"] for rule in group.data["Rules"]] == ["198.51.100.0/24"]
    assert present(cloud, cloud={"ssh_from": ["198.51.100.0/24"]}) == []


def test_a_wanted_rule_that_was_made_by_hand_is_taken_over(cloud):
    present(cloud)
    (group,) = [g for g in cloud.account.of("group") if g.tags["turnkey:name"] == "bastion"]
    group.data["Rules"][0]["Description"] = "by hand"
    assert present(cloud) == ["update security_group bastion (rules)"]
    assert [rule["Description"] for rule in group.data["Rules"]] == ["turnkey"]
    assert present(cloud) == []


def test_changed_groups_change_tags_and_no_machine(cloud):
    present(cloud)
    before = {thing.id for thing in cloud.account.of("instance")}
    present(cloud, head={"groups": ["controller", "login"]})
    assert {thing.id for thing in cloud.account.of("instance")} == before
    assert present(cloud, head={"groups": ["controller", "login"]}) == []


def test_machines_that_are_stopped_are_started(cloud):
    present(cloud)
    provider_of(cloud).stop("demo", ["node1", "node3"])
    cloud.account.clock.advance(10)
    assert present(cloud) == ["start machine node1", "start machine node3"]
    assert {cloud.account.things[i.id].status(1e9) for i in cloud.account.of("instance")} == {"Running"}


def test_host_keys_come_from_the_console_once_and_from_the_tags_later(cloud):
    present(cloud)
    first = provider_of(cloud).host_keys("demo", ["head", "node1"], 60)
    assert cloud.calls["GetInstanceConsoleOutput"] == 2
    assert provider_of(cloud).host_keys("demo", ["head", "node1"], 60) == first
    assert cloud.calls["GetInstanceConsoleOutput"] == 2
    assert present(cloud) == []


def test_the_clusters_of_an_account_are_listed(cloud):
    assert provider_of(cloud).clusters() == {}
    present(cloud)
    present(cloud, cluster_name="lab", network="10.30.0.0/24", node={"count": 1})
    found = provider_of(cloud).clusters()
    assert {name: [row.name for row in rows] for name, rows in found.items()} == {
        "demo": ["head", "node1", "node2", "node3"],
        "lab": ["head", "node1"],
    }


def test_a_cluster_without_machines_is_listed_too_for_the_rest_costs_money(cloud):
    present(cloud)
    provider_of(cloud).terminate("demo", ["head", "node1", "node2", "node3"])
    assert provider_of(cloud).clusters() == {"demo": []}


def test_no_room_for_all_makes_some_and_says_so_and_a_later_run_makes_the_rest(cloud):
    cloud.account.limits = Limits(stock=3)
    with pytest.raises(ApplyError, match=r"node3.*NoStock.*another zone or instance_type"):
        present(cloud)
    assert set(addresses(cloud)) == {"head", "node1", "node2"}
    cloud.account.limits = Limits()
    assert present(cloud) == ["create machine node3"]


def test_an_account_at_its_limit_is_told_at_once(cloud):
    cloud.account.limits = Limits(vpcs=0)
    with pytest.raises(ApplyError, match=r"QuotaExceeded\.Vpc"):
        present(cloud)
    assert cloud.calls["CreateVpc"] == 1


def test_wrong_credentials_are_told_at_once_and_where_they_come_from(cloud, monkeypatch):
    monkeypatch.setattr("standins.alicloud_standin.use.ACCESS_KEY_SECRET", "wrong")
    with pytest.raises(Auth, match="ALIBABA_CLOUD_ACCESS_KEY_ID"):
        provider_of(cloud).discover("demo")
    assert max(cloud.calls.values()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cloud": {"zone": "cn-hangzhou-z"}}, "zone cn-hangzhou-z doesn't exist.*cn-hangzhou-h"),
        ({"node": {"instance_type": "t3.micro"}}, "instance_type t3.micro doesn't exist"),
        ({"node": {"image": "ubuntu_99"}}, "image 'ubuntu_99' is none of this region's"),
        ({"node": {"placement": "spread", "count": 21}}, "placement spread takes 20 machines, not 21"),
        ({"head": {"name": "h"}}, "host names have at least 2 characters"),
        ({"node": {"image": "system/debian_12_" + "*" * 130}}, "image is too long to be kept as a tag"),
    ],
)
def test_what_can_not_work_is_told_before_anything_is_made(cloud, changes, message):
    problems = problems_of(cloud, **changes)
    assert any(re.search(message, problem) for problem in problems), problems
    assert calls_that_change(cloud) == {}


def test_an_image_pattern_gives_the_newest_and_refuses_to_guess(cloud):
    present(cloud)
    images = {thing.data["Image"] for thing in cloud.account.of("instance")}
    assert images == {"debian_12_6_x64_20G_alibase_20260901.vhd"}
    for image in cloud.account.of("image"):
        image.data["Created"] = "2026-09-01T00:00:00Z"
    assert "equally new" in problems_of(cloud, node={"image": "system/debian_12_6*"})[0]


def test_the_operators_key_is_let_in_by_user_data_for_key_pairs_here_can_not_be_ed25519(cloud):
    present(cloud)
    for instance in cloud.account.of("instance"):
        config = json.loads(base64.b64decode(instance.data["UserData"]).decode().partition("\n")[2])
        assert config["ssh_authorized_keys"] == [PUBLIC_KEY]
        assert config["ssh_pwauth"] is False


def test_another_operators_key_needs_new_machines_and_so_is_refused(cloud):
    present(cloud)
    with pytest.raises(ReplacementRefused, match="operator_key: SHA256:"):
        present(cloud, admin_public_key=PUBLIC_KEY.replace("k9mF", "k9mG"))


def test_a_lost_answer_makes_nothing_twice(cloud):
    cloud.faults = Faults(seed=1, rate=1, in_a_row=1, kinds=(Fault.LOST_REPLY, Fault.FAILED_REPLY))
    present(cloud)
    cloud.faults = Faults()
    made = cloud.account.made()
    assert {kind: len(ids) for kind, ids in made.items()} == {
        "vpc": 1, "vswitch": 2, "group": 2, "eip": 1, "nat": 1, "snat": 1, "instance": 4, "disk": 4,
    }  # fmt: skip
    assert present(cloud) == []


def test_what_is_not_known_everywhere_yet_is_waited_for(cloud):
    cloud.faults = Faults(seed=4, lag=12)
    present(cloud)
    cloud.account.clock.advance(60)
    assert present(cloud) == []


def test_no_secret_is_in_what_is_sent(cloud):
    present(cloud)
    text = json.dumps([flat for _action, flat, _outcome in cloud.log])
    user_data = "".join(base64.b64decode(i.data["UserData"]).decode() for i in cloud.account.of("instance"))
    assert "PRIVATE KEY" not in text + user_data
    assert "standin-key-secret" not in text + user_data
    assert "Password" not in text


def test_two_thousand_machines_are_listed_in_twenty_calls(cloud):
    # What a listing costs must not depend on how they were made: they are put there.
    present(cloud, network="10.20.0.0/16", node={"count": 1})
    (node,) = [i for i in cloud.account.of("instance") if i.data["HostName"] == "node1"]
    for number in range(2, 2_000):
        copy = type(node)(**{**vars(node), "id": f"i-{number}", "data": {**node.data}})
        host = 128 * 256 + 9 + number
        copy.data["Address"] = f"10.20.{host // 256}.{host % 256}"
        cloud.account.things[copy.id] = copy
    cloud.calls.clear()
    machines = provider_of(cloud).list_instances("demo")
    assert [machine.name for machine in (*machines[:2], machines[-1])] == ["head", "node1", "node1999"]
    assert cloud.calls["DescribeInstances"] == 20


def test_errors_name_the_call_the_code_and_the_remedy(cloud):
    with pytest.raises(HpcError, match="cluster demo has no machine node9"):
        provider_of(cloud).host_keys("demo", ["node9"], 1)
