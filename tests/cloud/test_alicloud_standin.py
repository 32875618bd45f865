# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in refuses what the service would refuse, as the real SDK sees it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

from alibabacloud_ecs20140526 import models as ecs_models
from alibabacloud_ecs20140526.client import Client as EcsClient
from alibabacloud_tea_openapi import utils_models
from alibabacloud_vpc20160428 import models as vpc_models
from alibabacloud_vpc20160428.client import Client as VpcClient
from standins.alicloud_standin import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Fault, Faults, Limits, StandIn
from Tea.exceptions import TeaException

REGION, ZONE = "cn-hangzhou", "cn-hangzhou-i"
IMAGE = "debian_12_6_x64_20G_alibase_20260901.vhd"
SDK = {"ecs": (EcsClient, ecs_models), "vpc": (VpcClient, vpc_models)}


class Cloud:
    """The real SDK with short names."""

    def __init__(self, standin, secret=ACCESS_KEY_SECRET):
        self.standin = standin
        config = {"endpoint": standin.endpoint, "protocol": "HTTP", "region_id": REGION}
        keys = {"access_key_id": ACCESS_KEY_ID, "access_key_secret": secret}
        self.clients = {name: client(utils_models.Config(**config, **keys)) for name, (client, _m) in SDK.items()}

    def call(self, product, action, /, **values):
        """Make one call, with parameters as they are on the wire; return the answer's body."""
        model = getattr(SDK[product][1], f"{action}Request")
        request = model().from_map({"RegionId": REGION, **values})
        name = "".join(
            f"_{c.lower()}" if c.isupper() and not action[i - 1 : i].isupper() else c.lower()
            for i, c in enumerate(action)
        ).lstrip("_")
        return getattr(self.clients[product], name)(request).body.to_map()

    def refusal(self, product, action, /, **values):
        """Return the error code of a call that must fail."""
        with pytest.raises(TeaException) as caught:
            self.call(product, action, **values)
        return caught.value.code

    def wait(self, calls=8):
        """Let the cloud's time pass: each call is a second."""
        self.standin.account.clock.advance(calls)

    def network(self):
        vpc = self.call("vpc", "CreateVpc", CidrBlock="10.20.0.0/24")["VpcId"]
        self.wait()
        switch = self.call("vpc", "CreateVSwitch", VpcId=vpc, ZoneId=ZONE, CidrBlock="10.20.0.0/25")["VSwitchId"]
        group = self.call("ecs", "CreateSecurityGroup", VpcId=vpc)["SecurityGroupId"]
        self.wait()
        return vpc, switch, group

    def run(self, switch, group, **values):
        values = {
            "ImageId": IMAGE,
            "InstanceType": "ecs.c7.large",
            "VSwitchId": switch,
            "SecurityGroupIds": [group],
            **values,
        }
        return self.call("ecs", "RunInstances", **values)["InstanceIdSets"]["InstanceIdSet"]


@pytest.fixture
def cloud():
    with StandIn() as standin:
        yield Cloud(standin)
        assert standin.broken == []


def test_a_wrong_secret_is_refused(cloud):
    assert Cloud(cloud.standin, "wrong").refusal("ecs", "DescribeZones") == "SignatureDoesNotMatch"


def test_a_request_can_not_be_sent_twice(cloud, monkeypatch):
    sent = []
    original = cloud.standin.answer
    monkeypatch.setattr(cloud.standin, "answer", lambda *call: (sent.append(call), original(*call))[1])
    cloud.call("ecs", "DescribeZones")
    status, answer = original(*sent[0])
    assert (status, answer["Code"]) == (400, "SignatureNonceUsed")


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("x-acs-date", "2026-01-01T00:00:00Z", "SignatureDoesNotMatch"),
        ("x-acs-action", "DescribeRegions", "SignatureDoesNotMatch"),
        ("x-acs-content-sha256", "0" * 64, "SignatureDoesNotMatch"),
        (
            "Authorization",
            "ACS3-HMAC-SHA256 Credential=somebody,SignedHeaders=host,Signature=0",
            "InvalidAccessKeyId.NotFound",
        ),
        ("Authorization", "Basic abc", "IncompleteSignature"),
    ],
)
def test_a_header_that_was_changed_after_signing_is_noticed(cloud, monkeypatch, header, value, code):
    original = cloud.standin.answer

    def altered(method, target, headers, body):
        del headers[header]
        headers[header] = value
        return original(method, target, headers, body)

    monkeypatch.setattr(cloud.standin, "answer", altered)
    assert cloud.refusal("ecs", "DescribeZones") == code


def test_an_old_date_is_refused_even_if_it_is_signed(cloud, monkeypatch):
    from alibabacloud_tea_openapi.utils import Utils

    monkeypatch.setattr(Utils, "get_timestamp", staticmethod(lambda: "2020-01-01T00:00:00Z"))
    assert cloud.refusal("ecs", "DescribeZones") == "InvalidTimeStamp.Expired"


def test_a_parameter_that_the_models_do_not_know_is_refused(cloud, monkeypatch):
    from alibabacloud_tea_openapi.utils import Utils

    original = Utils.query
    monkeypatch.setattr(Utils, "query", staticmethod(lambda values: {**original(values), "SystemDisk.Sise": "40"}))
    assert cloud.refusal("ecs", "RunInstances") == "InvalidParameter"
    assert cloud.standin.log[-1][2] == "InvalidParameter"


@pytest.mark.parametrize(
    ("product", "action", "values", "code"),
    [
        ("vpc", "CreateVpc", {"CidrBlock": "10.20.0.0/24", "DryRun": True}, "DryRunOperation"),
        ("vpc", "CreateVpc", {"CidrBlock": "10.0.0.0/8", "DryRun": True}, "InvalidCidrBlock.Malformed"),
        ("ecs", "DescribeInstances", {"RegionId": None}, "MissingParameter.RegionId"),
        ("ecs", "DescribeInstances", {"RegionId": "mars-1"}, "InvalidRegionId.NotFound"),
        ("ecs", "StopInstances", {}, "MissingParameter.InstanceId"),
        ("ecs", "DeleteInstances", {"InstanceId": [f"i-{n}" for n in range(101)]}, "InvalidInstanceId.Malformed"),
        (
            "ecs",
            "TagResources",
            {
                "ResourceType": "instance",
                "ResourceId": [f"i-{n}" for n in range(51)],
                "Tag": [{"Key": "a", "Value": "b"}],
            },
            "NumberExceed.ResourceIds",
        ),
        ("vpc", "CreateVpc", {"CidrBlock": "10.0.0.0/8"}, "InvalidCidrBlock.Malformed"),
        ("vpc", "CreateVpc", {"Tag": [{"Key": "acs:x", "Value": "y"}]}, "InvalidTagKey.Malformed"),
        ("vpc", "CreateVpc", {"Tag": [{"Key": "x", "Value": "y" * 129}]}, "InvalidTagValue.Malformed"),
        ("vpc", "CreateVpc", {"ClientToken": "x" * 65}, "InvalidClientToken.Malformed"),
        ("vpc", "DescribeVpcs", {"PageSize": 51}, "InvalidParameter.PageSize"),
        (
            "ecs",
            "CreateDisk",
            {"ZoneId": ZONE, "Size": 5, "DiskCategory": "cloud_essd"},
            "InvalidDiskSize.NotSupported",
        ),
    ],
)
def test_values_outside_the_documented_limits_are_refused(cloud, product, action, values, code):
    assert cloud.refusal(product, action, **values) == code
    assert cloud.standin.account.made() == {}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"Amount": 101}, "InvalidAmount.ValueNotSupported"),
        ({"Amount": 2, "MinAmount": 3}, "InvalidAmount.ValueNotSupported"),
        ({"UserData": "%%%"}, "InvalidUserData.Base64FormatInvalid"),
        ({"UserData": base64.b64encode(b"x" * 32769).decode()}, "InvalidUserData.SizeExceeded"),
        ({"PrivateIpAddress": "10.20.0.200"}, "InvalidPrivateIpAddress"),
        ({"PrivateIpAddress": "10.20.0.0"}, "InvalidPrivateIpAddress"),
        ({"PrivateIpAddress": "10.20.0.125"}, "InvalidPrivateIpAddress"),
        ({"PrivateIpAddress": "10.20.0.123", "Amount": 3}, "InvalidPrivateIpAddress"),
        ({"PrivateIpAddress": "10.20.0.9", "Amount": 2}, "InvalidPrivateIpAddress.Duplicated"),
        ({"HostNames": ["a1"], "Amount": 2}, "InvalidHostNames"),
        ({"HostName": "a_b"}, "InvalidHostName.Malformed"),
        ({"ImageId": "m-none"}, "InvalidImageId.NotFound"),
        ({"InstanceType": "t3.micro"}, "InvalidInstanceType.NotFound"),
        ({"SecurityGroupId": "sg-1"}, "InvalidParameter.SecurityGroup"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_instances_that_can_not_be_are_refused(cloud, values, code):
    _vpc, switch, group = cloud.network()
    cloud.run(switch, group, PrivateIpAddress="10.20.0.10")
    with pytest.raises(TeaException) as caught:
        cloud.run(switch, group, **values)
    assert caught.value.code == code
    assert len(cloud.standin.account.of("instance")) == 1


def test_nothing_can_be_made_in_a_network_that_is_not_ready(cloud):
    vpc = cloud.call("vpc", "CreateVpc", CidrBlock="10.20.0.0/24")["VpcId"]
    assert (
        cloud.refusal("vpc", "CreateVSwitch", VpcId=vpc, ZoneId=ZONE, CidrBlock="10.20.0.0/25") == "IncorrectVpcStatus"
    )


def test_nothing_can_be_deleted_while_something_needs_it(cloud):
    vpc, switch, group = cloud.network()
    (instance,) = cloud.run(switch, group)
    cloud.wait()
    assert cloud.refusal("vpc", "DeleteVpc", VpcId=vpc) == "DependencyViolation"
    assert cloud.refusal("vpc", "DeleteVSwitch", VSwitchId=switch) == "DependencyViolation"
    assert cloud.refusal("ecs", "DeleteSecurityGroup", SecurityGroupId=group) == "DependencyViolation"
    assert cloud.refusal("ecs", "DeleteInstances", InstanceId=[instance]) == "IncorrectInstanceStatus"
    cloud.call("ecs", "DeleteInstances", InstanceId=[instance], Force=True)
    assert cloud.refusal("vpc", "DeleteVSwitch", VSwitchId=switch) == "DependencyViolation"  # it takes a while
    cloud.wait()
    cloud.call("vpc", "DeleteVSwitch", VSwitchId=switch)
    cloud.call("ecs", "DeleteSecurityGroup", SecurityGroupId=group)
    cloud.wait()
    cloud.call("vpc", "DeleteVpc", VpcId=vpc)
    assert cloud.standin.account.made() == {}


def test_an_address_translation_needs_gateway_and_address_first_and_goes_with_them(cloud):
    vpc, switch, _group = cloud.network()
    assert cloud.refusal("vpc", "CreateNatGateway", VpcId=vpc, VSwitchId=switch) == "InvalidNatType"
    nat = cloud.call("vpc", "CreateNatGateway", VpcId=vpc, VSwitchId=switch, NatType="Enhanced")
    table = nat["SnatTableIds"]["SnatTableId"][0]
    eip = cloud.call("vpc", "AllocateEipAddress", Bandwidth="10")
    bind = {"AllocationId": eip["AllocationId"], "InstanceId": nat["NatGatewayId"], "InstanceType": "Nat"}
    entry = {"SnatTableId": table, "SnatIp": eip["EipAddress"], "SourceVSwitchId": switch}
    assert cloud.refusal("vpc", "AssociateEipAddress", **bind) == "IncorrectStatus.NatGateway"
    cloud.wait()
    assert cloud.refusal("vpc", "CreateSnatEntry", **entry) == "IncorrectEipStatus"
    cloud.call("vpc", "AssociateEipAddress", **bind)
    cloud.wait()
    cloud.call("vpc", "CreateSnatEntry", **entry)
    assert cloud.refusal("vpc", "CreateSnatEntry", **entry) == "InvalidSourceCIDR.Duplicate"
    assert cloud.refusal("vpc", "ReleaseEipAddress", AllocationId=eip["AllocationId"]) == "IncorrectEipStatus"
    cloud.wait()
    cloud.call("vpc", "DeleteNatGateway", NatGatewayId=nat["NatGatewayId"], Force=True)
    cloud.wait()
    cloud.call("vpc", "ReleaseEipAddress", AllocationId=eip["AllocationId"])
    assert set(cloud.standin.account.made()) == {"vpc", "vswitch", "group"}


def test_a_token_gives_the_same_answer_again_and_refuses_other_parameters(cloud):
    _vpc, switch, group = cloud.network()
    first = cloud.run(switch, group, ClientToken="once", Amount=2)
    assert cloud.run(switch, group, ClientToken="once", Amount=2) == first
    assert len(cloud.standin.account.of("instance")) == 2
    with pytest.raises(TeaException) as caught:
        cloud.run(switch, group, ClientToken="once", Amount=3)
    assert caught.value.code == "IdempotentParameterMismatch"


@pytest.mark.parametrize(
    ("least", "got"), [({"MinAmount": 1}, 2), ({"MinAmount": 2}, 2), ({"MinAmount": 3}, 0), ({}, 0)]
)
def test_stock_that_does_not_suffice_gives_part_only_where_that_was_allowed(cloud, least, got):
    _vpc, switch, group = cloud.network()
    cloud.standin.account.limits = Limits(stock=2)
    if got:
        assert len(cloud.run(switch, group, Amount=4, **least)) == got
        return
    with pytest.raises(TeaException) as caught:
        cloud.run(switch, group, Amount=4, **least)
    assert caught.value.code == "OperationDenied.NoStock"


def test_lists_come_in_pages_of_ten_unless_more_is_asked_for(cloud):
    _vpc, switch, group = cloud.network()
    names = [f"node{n}" for n in range(1, 26)]
    cloud.run(switch, group, Amount=25, HostNames=names, PrivateIpAddress="10.20.0.10")
    first = cloud.call("ecs", "DescribeInstances")
    assert len(first["Instances"]["Instance"]) == 10
    rest = cloud.call("ecs", "DescribeInstances", MaxResults=100, NextToken=first["NextToken"])["Instances"]["Instance"]
    rows = first["Instances"]["Instance"] + rest
    addresses = [row["VpcAttributes"]["PrivateIpAddress"]["IpAddress"][0] for row in rows]
    assert [row["HostName"] for row in rows] == names
    assert addresses == [f"10.20.0.{n}" for n in range(10, 35)]


@pytest.mark.parametrize(
    ("fault", "made"),
    [(Fault.THROTTLED, 0), (Fault.UNAVAILABLE, 0), (Fault.DROPPED, 0), (Fault.LOST_REPLY, 1), (Fault.FAILED_REPLY, 1)],
)
def test_a_fault_fails_the_call_and_only_some_leave_something_behind(cloud, fault, made):
    cloud.standin.faults = Faults(rate=1, kinds=(fault,))
    with pytest.raises(TeaException):
        cloud.call("vpc", "CreateVpc", CidrBlock="10.20.0.0/24")
    assert len(cloud.standin.account.of("vpc")) == made


def test_the_same_seed_gives_the_same_faults():
    def series(seed):
        faults = Faults(seed, 0.5)
        return [faults.next(action) for action in ["CreateVpc", "RunInstances", "DescribeVpcs"] * 20]

    assert series(7) == series(7) != series(8)
    assert not any(Faults(3).next("CreateVpc") for _n in range(50))


def test_it_runs_as_a_program():
    folder = Path(__file__).parents[1] / "standins"
    program = subprocess.Popen(
        [sys.executable, "-m", "alicloud_standin"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        ready = json.loads(program.stdout.readline())
        request = urllib.request.Request(f"http://127.0.0.1:{ready['port']}/", data=b"")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        assert json.load(caught.value)["Code"] == "IncompleteSignature"
    finally:
        program.terminate()
        program.wait(10)
