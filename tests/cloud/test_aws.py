# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider `aws` through real boto3 and HTTP, against moto with a front that makes it behave and misbehave."""

from __future__ import annotations

import base64
import datetime
import gzip
from functools import partial

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws import AwsProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import connect_ec2
from clusters import KEY, LONG, TIMING, CutOff, Faults, Site
from standins.aws_standin import REGION, AwsStandIn, console_of, host_key

FAULTS = ("RequestLimitExceeded", "InternalError", "ServiceUnavailable", "after:InternalError", "lost", "lost")


@pytest.fixture(scope="session")
def server():
    patch = pytest.MonkeyPatch()
    with AwsStandIn() as one:
        patch.setenv("AWS_ENDPOINT_URL", one.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield one
    patch.undo()


def connect(calls: int | None = None) -> AwsProvider:
    """Return a provider with a client of its own; with ``calls``, its process dies after so many of them."""
    client = connect_ec2(REGION)
    if calls is not None:
        left = [calls]

        def before(**_event):
            if left[0] <= 0:
                raise CutOff

        def after(**_event):
            left[0] -= 1

        client.meta.events.register("before-call.ec2", before)
        client.meta.events.register("after-call.ec2", after)
    return AwsProvider(client, timing=TIMING, reach=lambda _address, _port: None)


@pytest.fixture
def aws(server):
    server.reset()
    connect()._client.register_image(Name="node-1", RootDeviceName="/dev/xvda", Architecture="x86_64")
    return server


@pytest.fixture
def site(aws):
    return Site("lab", "aws", REGION, connect)


def instances(server) -> dict[str, object]:
    return {tag(instance, "turnkey:name"): instance for instance in server._alive()}


def tag(instance, name: str) -> str:
    return next((one["value"] for one in instance.get_tags() if one["key"] == name), "")


def test_a_cluster_is_planned_made_grows_shrinks_and_goes_without_a_trace(aws, site):
    planned = site.present(check=True)
    assert aws.left() == {}
    assert "machine node2\n  address: 10.20.0.139\n" in planned["diff"][0]["after"]
    assert not [action for action in aws.actions if not action.startswith("Describe") and action != "RegisterImage"]

    made = site.present()
    assert sorted(made["actions"]) == sorted(planned["actions"])
    assert [(one["name"], one["address"]) for one in made["machines"]] == [
        ("head", "10.20.0.10"),
        ("node1", "10.20.0.138"),
        ("node2", "10.20.0.139"),
    ]
    assert {kind: len(ids) for kind, ids in aws.left().items()} == {
        "vpc": 1,
        "subnet": 2,
        "gateway": 1,
        "routes": 3,  # ours, and the main one that every VPC has
        "group": 3,
        "key": 1,
        "address": 1,
        "nat": 1,
        "volume": 4,  # the head's, and a first disk for each machine
        "instance": 3,
    }
    aws.actions.clear()
    assert site.present()["changed"] is False
    assert all(action.startswith("Describe") for action in aws.actions)
    assert site.present(check=True)["changed"] is False

    assert site.present(4)["actions"] == ["create machine node3", "create machine node4"]
    assert site.present(1)["actions"] == [f"delete machine node{n}" for n in (2, 3, 4)]

    with pytest.raises(HpcError, match=r"It would destroy the machines head, node1 .* the volumes head-shared"):
        site.absent(confirm="other")
    assert site.absent(check=True)["changed"]
    assert site.absent()["changed"]
    assert aws.left() == {}
    assert site.absent()["changed"] is False


def test_only_the_bastion_has_a_public_address_and_the_world_gets_ssh_to_it_only(aws, site):
    made = site.present()
    public = {one["name"]: one["public_address"] for one in made["machines"]}
    assert public["head"]
    assert not public["node1"]
    rules = {
        tuple(sorted(group.name for group in groups)): None
        for groups in [aws.backend.groups[vpc].values() for vpc in aws.left()["vpc"]]
    }
    assert ("default", "turnkey-lab-bastion", "turnkey-lab-cluster") in rules
    groups = {g.name: g for g in aws.backend.groups[aws.left()["vpc"][0]].values()}
    assert [(r.from_port, r.ip_range["CidrIp"]) for r in groups["turnkey-lab-bastion"].ingress_rules] == [
        (22, "203.0.113.0/24")
    ]
    cluster = groups["turnkey-lab-cluster"]
    assert [r.source_group["GroupId"] for r in cluster.ingress_rules] == [cluster.id]
    of = {name: {g.name for nic in i.nics.values() for g in nic.group_set} for name, i in instances(aws).items()}
    assert of["head"] == {"turnkey-lab-bastion", "turnkey-lab-cluster"}
    assert of["node1"] == {"turnkey-lab-cluster"}


def test_the_summary_says_how_to_get_in(site):
    summary = site.present()["summary"]
    head = site.connect().list_instances("lab")[0]
    assert f"head is reached at {head.public_address} port 22 as admin; its address in the cluster is 10.20.0.10." in (
        summary
    )


def test_a_source_that_is_no_longer_wanted_loses_its_access_and_a_rule_of_others_is_told_and_stays(aws, site):
    site.present()
    group = next(g for g in aws.left()["group"] if aws.backend.get_security_group_from_id(g).name.endswith("bastion"))
    rule = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": "198.51.100.0/24"}]}
    connect()._client.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])

    again = site.present()
    assert again["changed"] is False
    assert any("tcp 8080 from 198.51.100.0/24" in text for text in again["warnings"])

    moved = site.present(cloud={"ssh_from": ["192.0.2.0/24"]})
    assert moved["actions"] == ["update security_group bastion (rules)"]
    assert "rules: tcp 22 from 203.0.113.0/24" in moved["diff"][0]["before"]

    def found():
        rules = aws.backend.get_security_group_from_id(group).ingress_rules
        return sorted((r.from_port, r.ip_range["CidrIp"]) for r in rules)

    assert found() == [(22, "192.0.2.0/24"), (8080, "198.51.100.0/24")]
    site.present(cloud={"ssh_from": ["192.0.2.0/24"], "remove_foreign_rules": True})
    assert found() == [(22, "192.0.2.0/24")]


def test_a_wanted_rule_that_others_made_becomes_ours(aws, site):
    site.present()
    group = next(g for g in aws.left()["group"] if aws.backend.get_security_group_from_id(g).name.endswith("bastion"))
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "198.51.100.0/24"}]}
    connect()._client.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    both = {"ssh_from": ["198.51.100.0/24", "203.0.113.0/24"]}
    assert site.present(cloud=both)["changed"]
    assert site.present(cloud=both)["changed"] is False


def test_a_replacement_is_refused_naming_what_would_be_lost_and_spares_the_volume_when_allowed(aws, site):
    site.present()
    bigger = {"instance_type": "t3.large"}
    with pytest.raises(HpcError, match=r"machine head \(instance_type: t3.small -> t3.large\).* would be lost"):
        site.present(head=bigger)
    before = instances(aws)["head"].id
    assert site.present(head=bigger, allow_replace=True)["actions"] == [
        "delete machine head (to replace it: instance_type: t3.small -> t3.large)",
        "create machine head",
    ]
    assert instances(aws)["head"].id != before
    assert site.present(head=bigger)["changed"] is False
    volumes = [{"name": "shared", "path": "/shared", "size_gb": 40}]
    with pytest.raises(HpcError, match=r"never done because of their data: volume head-shared \(size_gb: 20 -> 40\)"):
        site.present(head={**bigger, "volumes": volumes}, allow_replace=True)


def test_a_volume_that_another_machine_still_has_is_waited_for(aws, site):
    site.present(0)
    volume = next(v.id for v in aws.backend.volumes.values() if v.size == 20)
    head = instances(aws)["head"].id
    calls = []

    def fault(action, _params):
        if action != "AttachVolume":
            return ""
        calls.append(action)
        return "VolumeInUse" if len(calls) < 3 else ""

    connect()._client.detach_volume(VolumeId=volume, InstanceId=head)
    aws.fault = fault
    assert site.present(0)["actions"] == ["update machine head (attached)"]
    assert len(calls) == 3
    assert aws.backend.volumes[volume].attachment.instance.id == head


def test_groups_are_changed_in_place(site):
    site.present()
    result = site.present(node={"groups": ["compute", "login"]})
    assert result["actions"] == ["update machine node1 (groups)", "update machine node2 (groups)"]
    assert site.present(node={"groups": ["compute", "login"]})["changed"] is False


def test_egress_can_be_taken_away_and_given_back_without_touching_a_machine(aws, site):
    site.present()
    actions = site.present(cloud={"egress": "none"})["actions"]
    assert sorted(actions) == ["delete address nat", "delete nat main", "update routes private (ways)"]
    assert site.present(cloud={"egress": "none"})["changed"] is False
    assert sorted(site.present()["actions"]) == [
        "create address nat",
        "create nat main",
        "update routes private (ways)",
    ]
    assert site.present()["changed"] is False
    site.absent()
    assert aws.left() == {}


def test_stopped_machines_are_started(site):
    site.present()
    site.connect().stop("lab", ["node1"])
    assert site.present()["actions"] == ["start machine node1"]
    site.connect().terminate("lab", ["node1", "never-was"])
    assert [machine.name for machine in site.connect().list_instances("lab")] == ["head", "node2"]


def test_another_cluster_is_not_touched(aws, site):
    other = Site("other", "aws", REGION, connect)
    other.present(network="10.30.0.0/24")
    before = aws.left()
    site.present()
    assert {name: len(rows) for name, rows in connect().clusters().items()} == {"lab": 3, "other": 3}
    site.absent()
    assert aws.left() == before


def test_user_data_name_the_machine_and_its_volume_and_are_compressed_when_long(aws, site):
    script = "#!/bin/sh\n" + "# a long remark that compresses well\n" * 1000
    site.present(cloud={"user_data": script})
    sent = {p.get("NetworkInterface.1.PrivateIpAddress"): p for a, p in aws.requests if a == "RunInstances"}
    packed = base64.b64decode(sent["10.20.0.10"]["UserData"])
    assert len(packed) < 16384
    text = gzip.decompress(packed).decode()
    assert script in text
    assert '"hostname": "head"' in text
    volume = next(v.id for v in aws.backend.volumes.values() if v.size == 20)
    assert f"nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')} /shared ext4" in text
    head = instances(aws)["head"].id
    assert any(a.instance.id == head for v in aws.backend.volumes.values() if (a := v.attachment) and v.id == volume)


def make_older(aws):
    """Let all images that there are be of one day in the past."""
    for image in aws.backend.amis.values():
        image.creation_date = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


def test_placement_spot_and_first_disk_are_asked_for(aws, site):
    site.present(node={"placement": "cluster", "spot": True, "root_gb": 30})
    sent = [p for a, p in aws.requests if a == "RunInstances" and p.get("Placement.GroupName")]
    assert {p["Placement.GroupName"] for p in sent} == {"turnkey-lab-node"}
    assert {p["InstanceMarketOptions.MarketType"] for p in sent} == {"spot"}
    assert {p["BlockDeviceMapping.1.Ebs.VolumeSize"] for p in sent} == {"30"}
    site.absent()
    assert aws.left() == {}


def test_the_newest_image_of_a_pattern_is_taken_and_two_equally_new_ones_are_an_error(aws, site):
    make_older(aws)
    newest = connect()._client.register_image(Name="node-2", RootDeviceName="/dev/xvda")["ImageId"]
    site.present(0)
    assert instances(aws)["head"].image_id == newest
    connect()._client.register_image(Name="node-3", RootDeviceName="/dev/xvda")
    make_older(aws)
    with pytest.raises(HpcError, match="matches several that are equally new"):
        site.present(1)
    with pytest.raises(HpcError, match=r"image 'nobody-\*' doesn't exist"):
        site.present(1, node={"image": "nobody-*"})


def test_what_is_wrong_is_reported_together_and_nothing_is_made(aws, site):
    with pytest.raises(HpcError) as caught:
        site.present(head={"image": "nobody-*"}, cloud={"user_data": "hello"})
    assert str(caught.value).startswith("2 problems:")
    with pytest.raises(HpcError, match=r"instance_type 'z9.huge' is offered nowhere"):
        site.present(head={"instance_type": "z9.huge"})
    assert aws.left() == {}


def test_no_room_is_a_clear_error_and_the_next_run_goes_on(aws, site):
    aws.fault = lambda action, _params: "InsufficientInstanceCapacity" if action == "RunInstances" else ""
    with pytest.raises(HpcError, match=r"launch machine .*InsufficientInstanceCapacity.*another zone"):
        site.present()
    aws.fault = lambda _action, _params: ""
    assert site.present()["changed"]
    assert site.present()["changed"] is False


def test_missing_rights_end_the_run_at_once(aws, site):
    aws.fault = lambda action, _params: "UnauthorizedOperation" if action == "CreateVpc" else ""
    with pytest.raises(HpcError, match=r"create vpc: .*UnauthorizedOperation.*docs/aws.md"):
        site.present()
    assert aws.actions.count("CreateVpc") == 1


def test_host_keys_come_from_the_console_once_and_are_then_in_the_tags(aws, site):
    made = site.present()
    assert made["machines"][0]["host_key"] == host_key(instances(aws)["head"].id)
    aws.actions.clear()
    assert site.present()["machines"] == made["machines"]
    assert "GetConsoleOutput" not in aws.actions
    aws.console = lambda _identity: "still booting"
    with pytest.raises(HpcError, match=r"machine node3 is not ready after 1 s: it has not written"):
        site.present(3, ready_timeout_seconds=1)
    aws.console = console_of
    assert site.present(3)["actions"] == []


def test_no_secret_is_in_what_is_sent(aws, site):
    site.present()
    sent = repr(aws.requests)
    assert "testing" not in sent.replace("made by", "")
    assert KEY.split()[1] not in base64.b64decode(
        next(p["UserData"] for a, p in aws.requests if a == "RunInstances")
    ).decode(errors="replace")


def test_a_cluster_of_which_only_the_network_is_left_is_listed(aws):
    client = connect()._client
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "turnkey:cluster", "Value": "rest"}]}]
    client.create_vpc(CidrBlock="10.40.0.0/24", TagSpecifications=tags)
    assert connect().clusters() == {"rest": []}


def test_an_image_is_made_once_used_by_its_pattern_and_pruned_with_its_snapshot(aws):
    build = Site("build-1799999999000", "aws", REGION, connect)
    build.present(0, cloud={"egress": "none"})
    aws.fault = lambda action, _params: (
        "lost" if action == "CreateImage" and "CreateImage" not in aws.actions[:-1] else ""
    )
    first = connect().publish(build.cluster, "turnkey-node", "aaaa")
    assert aws.actions.count("CreateImage") == 2  # the first answer was lost
    assert (first.name, first.state, first.used) == ("turnkey-node-aaaa", "ready", False)
    assert connect().publish(build.cluster, "turnkey-node", "aaaa").id == first.id
    make_older(aws)
    second = connect().publish(build.cluster, "turnkey-node", "bbbb")
    build.absent()
    site = Site("lab", "aws", REGION, connect)
    site.image = "turnkey-node-*"
    site.present(0)
    assert instances(aws)["head"].image_id == second.id
    assert [image.id for image in connect().prune("turnkey-node", 1)] == [first.id]
    assert connect().prune("turnkey-node", 1) == []
    assert connect().orphans() == []
    left = connect().images()
    assert [(image.id, image.used, len(image.snapshots)) for image in left] == [(second.id, True, 1)]
    tagged = [{"Name": "tag-key", "Values": ["turnkey:image-of"]}]
    snapshots = connect()._client.describe_snapshots(OwnerIds=["self"], Filters=tagged)["Snapshots"]
    assert [one["SnapshotId"] for one in snapshots] == list(left[0].snapshots)


def test_a_build_whose_time_is_over_is_swept_and_no_other(aws):
    for name in ("build-1000000000000", "build-1999999999000", "lab"):
        Site(name, "aws", REGION, connect).present(0, cloud={"egress": "none"})
    assert connect().sweep(1500000000) == ["build-1000000000000"]
    assert list(connect().clusters()) == ["build-1999999999000", "lab"]


# What goes wrong

SEEDS = range(200) if LONG else range(0, 200, 40)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_the_cluster_ends_as_asked_and_leaves_nothing(aws, site, seed):
    faults = Faults(seed, "Describe", "RunInstances", "InsufficientInstanceCapacity", FAULTS)
    aws.visible_after = faults.random.choice([0, 0, 0.05, 0.2])
    aws.boot_seconds = faults.random.choice([0, 0.1])
    between = aws.visible_after + 0.01
    options = {"cloud": {"egress": faults.random.choice(["nat", "none"])}}
    if faults.random.random() < 0.3:
        options["node"] = {"placement": "cluster"}
    aws.fault = faults
    for count in (faults.random.randint(1, 3), faults.random.randint(0, 4)):
        site.until_done(lambda count=count: site.present(count, **options), between)
        names = sorted(["head", *(f"node{n}" for n in range(1, count + 1))])
        assert sorted(tag(i, "turnkey:name") for i in aws._alive()) == names, faults.log
        left = aws.left()
        assert [len(left[kind]) for kind in ("vpc", "subnet", "gateway", "key")] == [1, 2, 1, 1], faults.log
        assert len(left.get("nat", [])) == len(left.get("address", [])), faults.log
        aws.settle()
    aws.fault = lambda _action, _params: ""
    assert site.present(count, **options)["changed"] is False, faults.log
    aws.fault, faults.left = faults, 12
    site.until_done(site.absent, between)
    assert aws.left() == {}, faults.log


@pytest.mark.parametrize("fault", ["lost", "after:InternalError"])
def test_when_the_first_answer_to_each_call_is_lost_nothing_is_made_twice(aws, site, fault):
    seen = set()

    def first(action, _params):
        if action.startswith("Describe") or action in seen:
            return ""
        seen.add(action)
        return fault

    aws.visible_after, aws.fault = 0.1, first
    site.present(node={"placement": "cluster"})
    assert len(seen) > 15
    left = aws.left()
    kinds = ("vpc", "subnet", "gateway", "routes", "group", "key", "address", "nat", "volume", "instance", "placement")
    assert [len(left[kind]) for kind in kinds] == [1, 2, 1, 3, 3, 1, 1, 1, 4, 3, 1]
    site.absent()
    assert aws.left() == {}


def _points(total: int) -> range:
    return range(0, total, 1 if LONG else 40)


def cut_off(run) -> bool:
    """Return whether the run was cut off. Runs wait, so one may need fewer calls than the one before it."""
    try:
        run()
    except CutOff:
        return True
    return False


def test_a_run_that_is_killed_after_any_call_is_completed_by_the_next(aws, site):
    site.present(1)
    create = len(aws.actions) - 1
    site.absent()
    for calls in _points(create):
        aws.reset()
        connect()._client.register_image(Name="node-1", RootDeviceName="/dev/xvda")
        assert cut_off(partial(site.present, 1, provider=connect(calls))) or calls > create - 10
        site.present(1)
        assert site.present(1)["changed"] is False
        left = aws.left()
        numbers = [len(left[kind]) for kind in ("vpc", "subnet", "gateway", "nat", "address", "instance")]
        assert numbers == [1, 2, 1, 1, 1, 2], f"cut off after {calls} calls"
        site.absent()
        assert aws.left() == {}, f"cut off after {calls} calls"


def test_a_removal_that_is_killed_after_any_call_is_completed_by_the_next(aws, site):
    site.present(1)
    aws.actions.clear()
    site.absent()
    total = len(aws.actions)
    for calls in _points(total):
        site.present(1)
        assert cut_off(partial(site.absent, provider=connect(calls))) or calls > total - 10
        site.absent()
        assert aws.left() == {}, f"cut off after {calls} calls"
