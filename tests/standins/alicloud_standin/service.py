# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One account in one region: what exists, in which state, and what hangs on what."""

from __future__ import annotations

import base64
import copy
import hashlib
import ipaddress
import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .schema import Refused

REGION = "cn-hangzhou"
ZONES = ("cn-hangzhou-h", "cn-hangzhou-i", "cn-hangzhou-k")
TYPES = {"ecs.c7.large": (2, 4.0), "ecs.c7.xlarge": (4, 8.0), "ecs.g7.large": (2, 8.0), "ecs.hpc7.8xlarge": (32, 64.0)}
SYSTEM_IMAGES = ("debian_12_6_x64_20G_alibase_20260401.vhd", "debian_12_6_x64_20G_alibase_20260901.vhd")
NVME = {"ecs.hpc7.8xlarge"}
USER_DATA_BYTES = 32 * 1024
NO_REGION = {"AttachDisk", "DetachDisk", "DeleteDisk", "DeleteSnapshot", "DescribeInstanceTypes"}
GONE = "(gone)"


class Clock:
    """The cloud's time in seconds: each call costs ``seconds_a_call``, and ``speed`` ties it to ours."""

    def __init__(self, seconds_a_call: float = 1.0, speed: float = 0.0) -> None:
        self._passed, self._each, self._speed, self._start = 0.0, seconds_a_call, speed, time.monotonic()

    def now(self) -> float:
        return self._passed + self._speed * (time.monotonic() - self._start)

    def tick(self) -> None:
        self._passed += self._each

    def advance(self, seconds: float) -> None:
        self._passed += seconds


@dataclass
class Limits:
    """Quotas of the account."""

    vpcs: int = 10
    eips: int = 20
    instances: int = 2000
    stock: int = 10**6  # what the zone has left


@dataclass
class Thing:
    """A resource. ``path`` is what becomes of its status, and when."""

    kind: str
    id: str
    born: float
    data: dict[str, Any]
    tags: dict[str, str]
    path: list[tuple[float, str]]
    visible: float = 0.0

    def status(self, now: float) -> str:
        past = [status for when, status in self.path if when <= now]
        return past[-1] if past else self.path[0][1]

    def becomes(self, now: float, *steps: tuple[float, str]) -> None:
        self.path = [(now + after, status) for after, status in steps]


@dataclass
class Account:
    """All resources and the calls that change them."""

    clock: Clock
    limits: Limits
    delay: Callable[[str], int]
    things: dict[str, Thing] = field(default_factory=dict)
    launched: Callable[[Thing], None] = lambda _instance: None
    imaged: Callable[[Thing], None] = lambda _instance: None
    vanished: Callable[[Thing], None] = lambda _instance: None
    console: Callable[[Thing], str] = lambda instance: console_keys(instance.id)
    """What a test adds to instances that are real somewhere: see tests/cloud."""
    _tokens: dict[tuple[str, str], tuple[str, dict[str, Any]]] = field(default_factory=dict)
    _count: int = 0
    _stock: int | None = None

    def __post_init__(self) -> None:
        for name in SYSTEM_IMAGES:
            stamp = name[-12:-4]
            data = {"ImageName": name, "Owner": "system", "Snapshots": [], "Size": 20}
            data["Created"] = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:]}T00:00:00Z"
            self.things[name] = Thing("image", name, 0, data, {}, [(0, "Available")])

    # What tests look at

    def of(self, kind: str) -> list[Thing]:
        """Return the resources of a kind that aren't gone."""
        self._bury()
        return [thing for thing in self.things.values() if thing.kind == kind]

    def made(self) -> dict[str, list[str]]:
        """Return everything that the account pays for or that stands in the way, by kind."""
        self._bury()
        found: dict[str, list[str]] = {}
        for thing in self.things.values():
            if thing.data.get("Owner") != "system":
                found.setdefault(thing.kind, []).append(thing.id)
        return found

    # The call

    def call(self, version: str, action: str, values: dict[str, Any], stock: int | None) -> dict[str, Any]:
        """Carry one action out."""
        self._bury()
        self._stock = stock
        step = getattr(self, "_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", action).lower(), None)
        if version == "2016-04-28" and action == "DescribeZones":
            step = None
        if step is None:
            raise Refused("InvalidAction.NotFound", f"the stand-in doesn't know {action}", 404)
        if action not in NO_REGION and values.get("RegionId") != REGION:
            raise Refused("InvalidRegionId.NotFound", f"region {values.get('RegionId')!r}", 404)
        _check_tags(values.get("Tag") or [], filtering=action.startswith(("Describe", "List")))
        if values.get("DryRun"):
            return self._tried(step, values)
        token = values.get("ClientToken")
        if token is None:
            return dict(step(values))
        if not token.isascii() or len(token) > 64:
            raise Refused("InvalidClientToken.Malformed", f"ClientToken {token!r}")
        rest = json.dumps({name: value for name, value in values.items() if name != "ClientToken"}, sort_keys=True)
        known = self._tokens.get((action, token))
        if known:
            if known[0] != rest:
                raise Refused("IdempotentParameterMismatch", f"token {token} came with other parameters before")
            return known[1]
        result = dict(step(values))
        self._tokens[action, token] = (rest, result)
        return result

    def _tried(self, step: Callable[[dict[str, Any]], Any], values: dict[str, Any]) -> dict[str, Any]:
        """Say whether a call would be carried out, which is an error too; nothing of it stays."""
        kept = copy.deepcopy((self.things, self.limits, self._count))
        try:
            step(values)
        finally:
            self.things, self.limits, self._count = kept
        raise Refused("DryRunOperation", "Request validation has been passed with DryRun flag set.")

    # Helpers

    def _bury(self) -> None:
        now = self.clock.now()
        for thing in [thing for thing in self.things.values() if thing.status(now) == GONE]:
            del self.things[thing.id]
            if thing.kind == "instance":
                self.vanished(thing)
            for other in self.things.values():
                if other.data.get("Bound") == thing.id:
                    other.data["Bound"] = ""
                    other.becomes(now, (0, "Available"))

    def _new(
        self, kind: str, prefix: str, values: dict[str, Any], data: dict[str, Any], *steps: tuple[float, str]
    ) -> Thing:
        self._count += 1
        name = f"{prefix}-{hashlib.sha256(f'{kind}{self._count}'.encode()).hexdigest()[:12]}"
        now = self.clock.now()
        tags = {tag["Key"]: tag.get("Value", "") for tag in values.get("Tag") or []}
        thing = Thing(kind, name, now, data, tags, [(now + after, status) for after, status in steps])
        thing.visible = now + self.delay(name)
        self.things[name] = thing
        return thing

    def _get(self, kind: str, name: str | None, code: str) -> Thing:
        thing = self.things.get(name or "")
        if thing is None or thing.kind != kind:
            raise Refused(code, f"{kind} {name!r} does not exist.", 404)
        return thing

    def _state(self, thing: Thing) -> str:
        return thing.status(self.clock.now())

    def _need(self, thing: Thing, code: str, *states: str) -> None:
        if self._state(thing) not in states:
            raise Refused(code, f"{thing.kind} {thing.id} is {self._state(thing)}, must be {' or '.join(states)}.")

    def _in(self, kinds: Iterable[str], key: str, value: str) -> list[Thing]:
        return [thing for thing in self.things.values() if thing.kind in kinds and thing.data.get(key) == value]

    def _matching(self, kind: str, values: dict[str, Any], **conditions: str | None) -> list[Thing]:
        now = self.clock.now()
        found = []
        for thing in self.things.values():
            if thing.kind != kind or thing.visible > now:
                continue
            if any(
                wanted is not None and thing.data.get(key, thing.id) != wanted for key, wanted in conditions.items()
            ):
                continue
            wanted_tags = values.get("Tag") or []
            if all(
                t["Key"] in thing.tags and thing.tags[t["Key"]] == t.get("Value", thing.tags[t["Key"]])
                for t in wanted_tags
            ):
                found.append(thing)
        return found

    # VPC

    def _create_vpc(self, values: dict[str, Any]) -> dict[str, Any]:
        if len(self.of("vpc")) >= self.limits.vpcs:
            raise Refused("QuotaExceeded.Vpc", f"The account has {self.limits.vpcs} VPCs already.")
        network = _network(values.get("CidrBlock", "172.16.0.0/12"), 16 if "CidrBlock" in values else 12, 28)
        vpc = self._new(
            "vpc",
            "vpc",
            values,
            {"Cidr": str(network), "Name": values.get("VpcName", "")},
            (0, "Pending"),
            (2, "Available"),
        )
        return {"VpcId": vpc.id, "VRouterId": f"vrt-{vpc.id[4:]}", "RouteTableId": f"vtb-{vpc.id[4:]}"}

    def _describe_vpcs(self, values: dict[str, Any]) -> dict[str, Any]:
        ids = values["VpcId"].split(",") if "VpcId" in values else None
        found = [v for v in self._matching("vpc", values) if ids is None or v.id in ids]
        page, head = _page(found, values, 50)
        rows = [
            {
                "VpcId": v.id,
                "VpcName": v.data["Name"],
                "CidrBlock": v.data["Cidr"],
                "Status": self._state(v),
                "RegionId": REGION,
                "Tags": _tags(v),
            }
            for v in page
        ]
        return {**head, "Vpcs": {"Vpc": rows}}

    def _delete_vpc(self, values: dict[str, Any]) -> dict[str, Any]:
        vpc = self._get("vpc", values["VpcId"], "InvalidVpcID.NotFound")
        self._need(vpc, "IncorrectVpcStatus", "Available")
        users = self._in(("vswitch", "group", "nat"), "Vpc", vpc.id)
        if users:
            raise Refused("DependencyViolation", f"The VPC still has {users[0].kind} {users[0].id}.")
        vpc.becomes(self.clock.now(), (0, GONE))
        return {}

    def _create_vswitch(self, values: dict[str, Any]) -> dict[str, Any]:
        vpc = self._get("vpc", values["VpcId"], "InvalidVpcId.NotFound")
        self._need(vpc, "IncorrectVpcStatus", "Available")
        if values["ZoneId"] not in ZONES:
            raise Refused("InvalidZoneId.NotFound", f"zone {values['ZoneId']}")
        network = _network(values.get("CidrBlock", ""), 16, 29)
        if not network.subnet_of(ipaddress.ip_network(vpc.data["Cidr"])):
            raise Refused("InvalidCidrBlock.Malformed", f"{network} is not within {vpc.data['Cidr']}")
        for other in self._in(["vswitch"], "Vpc", vpc.id):
            if network.overlaps(ipaddress.ip_network(other.data["Cidr"])):
                raise Refused("InvalidCidrBlock.Overlapped", f"{network} overlaps {other.id}")
        data = {"Vpc": vpc.id, "Cidr": str(network), "Zone": values["ZoneId"], "Name": values.get("VSwitchName", "")}
        switch = self._new("vswitch", "vsw", values, data, (0, "Pending"), (2, "Available"))
        return {"VSwitchId": switch.id}

    def _describe_vswitches(self, values: dict[str, Any]) -> dict[str, Any]:
        ids = values["VSwitchId"].split(",") if "VSwitchId" in values else None
        found = [v for v in self._matching("vswitch", values, Vpc=values.get("VpcId")) if ids is None or v.id in ids]
        page, head = _page(found, values, 50)
        rows = [
            {
                "VSwitchId": v.id,
                "VSwitchName": v.data["Name"],
                "VpcId": v.data["Vpc"],
                "CidrBlock": v.data["Cidr"],
                "ZoneId": v.data["Zone"],
                "Status": self._state(v),
                "Tags": _tags(v),
            }
            for v in page
        ]
        return {**head, "VSwitches": {"VSwitch": rows}}

    def _delete_vswitch(self, values: dict[str, Any]) -> dict[str, Any]:
        switch = self._get("vswitch", values["VSwitchId"], "InvalidVSwitchId.NotFound")
        self._need(switch, "IncorrectVSwitchStatus", "Available")
        users = self._in(("instance", "nat"), "Switch", switch.id)
        if users:
            raise Refused("DependencyViolation", f"The vSwitch still has {users[0].kind} {users[0].id}.")
        switch.becomes(self.clock.now(), (0, "Pending"), (1, GONE))
        return {}

    def _allocate_eip_address(self, values: dict[str, Any]) -> dict[str, Any]:
        if len(self.of("eip")) >= self.limits.eips:
            raise Refused("QuotaExceeded.Eip", f"The account has {self.limits.eips} EIPs already.")
        if (
            not 1
            <= int(values.get("Bandwidth", 5))
            <= (200 if values.get("InternetChargeType") == "PayByTraffic" else 500)
        ):
            raise Refused("InvalidBandwidth.ValueNotSupported", f"bandwidth {values['Bandwidth']}")
        eip = self._new(
            "eip",
            "eip",
            values,
            {"Bound": "", "Type": "", "Bandwidth": values.get("Bandwidth", "5"), "Name": values.get("Name", "")},
            (0, "Available"),
        )
        eip.data["Address"] = f"203.0.113.{self._count % 254 + 1}"
        return {"AllocationId": eip.id, "EipAddress": eip.data["Address"]}

    def _describe_eip_addresses(self, values: dict[str, Any]) -> dict[str, Any]:
        found = [e for e in self._matching("eip", values) if values.get("AllocationId", e.id) == e.id]
        page, head = _page(found, values, 100)
        rows = [
            {
                "AllocationId": e.id,
                "IpAddress": e.data["Address"],
                "Name": e.data["Name"],
                "Status": self._state(e),
                "InstanceId": e.data["Bound"],
                "InstanceType": e.data["Type"] if e.data["Bound"] else "",
                "Bandwidth": e.data["Bandwidth"],
                "Tags": _tags(e),
            }
            for e in page
        ]
        return {**head, "EipAddresses": {"EipAddress": rows}}

    def _associate_eip_address(self, values: dict[str, Any]) -> dict[str, Any]:
        eip = self._get("eip", values["AllocationId"], "InvalidAllocationId.NotFound")
        self._need(eip, "IncorrectEipStatus", "Available")
        kind = values.get("InstanceType", "EcsInstance")
        if kind == "EcsInstance":
            target = self._get("instance", values["InstanceId"], "InvalidInstanceId.NotFound")
            self._need(target, "IncorrectInstanceStatus", "Running", "Stopped")
        elif kind == "Nat":
            target = self._get("nat", values["InstanceId"], "InvalidNatGatewayId.NotFound")
            self._need(target, "IncorrectStatus.NatGateway", "Available")
        else:
            raise Refused("InvalidInstanceType.ValueNotSupported", f"instance type {kind}")
        if kind == "EcsInstance" and self._in(["eip"], "Bound", target.id):
            raise Refused("InvalidAssociation.Duplicated", f"{target.id} has an EIP already.")
        eip.data.update(Bound=target.id, Type=kind)
        eip.becomes(self.clock.now(), (0, "Associating"), (2, "InUse"))
        return {}

    def _unassociate_eip_address(self, values: dict[str, Any]) -> dict[str, Any]:
        eip = self._get("eip", values["AllocationId"], "InvalidAllocationId.NotFound")
        self._need(eip, "IncorrectEipStatus", "InUse")
        if not values.get("Force") and self._in(["snat"], "Address", eip.data["Address"]):
            raise Refused("InvalidIpStatus.HasBeenUsedBySnatTable", f"{eip.id} is used by an SNAT entry.")
        eip.data["Bound"] = ""
        eip.becomes(self.clock.now(), (0, "Unassociating"), (2, "Available"))
        return {}

    def _release_eip_address(self, values: dict[str, Any]) -> dict[str, Any]:
        eip = self._get("eip", values["AllocationId"], "InvalidAllocationId.NotFound")
        self._need(eip, "IncorrectEipStatus", "Available")
        eip.becomes(self.clock.now(), (0, GONE))
        return {}

    def _create_nat_gateway(self, values: dict[str, Any]) -> dict[str, Any]:
        vpc = self._get("vpc", values["VpcId"], "InvalidVpcId.NotFound")
        self._need(vpc, "IncorrectVpcStatus", "Available")
        if values.get("NatType") != "Enhanced":
            raise Refused("InvalidNatType", f"NatType {values.get('NatType')!r} can't be bought any more")
        switch = self._get("vswitch", values.get("VSwitchId"), "InvalidVSwitchId.NotFound")
        self._need(switch, "IncorrectVSwitchStatus", "Available")
        data = {
            "Vpc": vpc.id,
            "Switch": switch.id,
            "Name": values.get("Name", ""),
            "Address": self._address(switch, values.get("NatIp")),
        }
        nat = self._new("nat", "ngw", values, data, (0, "Creating"), (4, "Available"))
        nat.data["Table"] = f"stb-{nat.id[4:]}"
        return {"NatGatewayId": nat.id, "SnatTableIds": {"SnatTableId": [nat.data["Table"]]}}

    def _describe_nat_gateways(self, values: dict[str, Any]) -> dict[str, Any]:
        found = [
            n
            for n in self._matching("nat", values, Vpc=values.get("VpcId"))
            if values.get("NatGatewayId", n.id) == n.id
        ]
        page, head = _page(found, values, 50)
        rows = [
            {
                "NatGatewayId": n.id,
                "Name": n.data["Name"],
                "VpcId": n.data["Vpc"],
                "Status": self._state(n),
                "SnatTableIds": {"SnatTableId": [n.data["Table"]]},
                "NatGatewayPrivateInfo": {"VswitchId": n.data["Switch"], "PrivateIpAddress": n.data["Address"]},
                "Tags": _ecs_tags(n),
            }
            for n in page
        ]
        return {**head, "NatGateways": {"NatGateway": rows}}

    def _delete_nat_gateway(self, values: dict[str, Any]) -> dict[str, Any]:
        nat = self._get("nat", values["NatGatewayId"], "InvalidNatGatewayId.NotFound")
        self._need(nat, "IncorrectStatus.NatGateway", "Available")
        now = self.clock.now()
        if not values.get("Force") and (self._in(["eip"], "Bound", nat.id) or self._in(["snat"], "Nat", nat.id)):
            raise Refused("DependencyViolation.EIPS", f"{nat.id} has EIPs or SNAT entries.")
        for entry in self._in(["snat"], "Nat", nat.id):
            entry.becomes(now, (0, GONE))
        nat.becomes(now, (0, "Deleting"), (3, GONE))
        return {}

    def _create_snat_entry(self, values: dict[str, Any]) -> dict[str, Any]:
        nats = self._in(["nat"], "Table", values["SnatTableId"])
        if not nats:
            raise Refused("InvalidSnatTableId.NotFound", f"SNAT table {values['SnatTableId']}", 404)
        self._need(nats[0], "IncorrectStatus.NatGateway", "Available")
        bound = {e.data["Address"] for e in self._in(["eip"], "Bound", nats[0].id) if self._state(e) == "InUse"}
        if values.get("SnatIp") not in bound:
            raise Refused("IncorrectEipStatus", f"SnatIp {values.get('SnatIp')!r} is not bound to {nats[0].id}")
        if ("SourceCIDR" in values) == ("SourceVSwitchId" in values):
            raise Refused("MissingParameter", "one of SourceCIDR and SourceVSwitchId is needed, not both")
        source = values.get("SourceCIDR", values.get("SourceVSwitchId"))
        if any(e.data["Source"] == source for e in self._in(["snat"], "Nat", nats[0].id)):
            raise Refused("InvalidSourceCIDR.Duplicate", f"{source} has an SNAT entry already")
        if "SourceVSwitchId" in values:
            self._get("vswitch", source, "InvalidVSwitchId.NotFound")
        data = {
            "Nat": nats[0].id,
            "Table": values["SnatTableId"],
            "Address": values["SnatIp"],
            "Source": source,
            "Name": values.get("SnatEntryName", ""),
        }
        entry = self._new("snat", "snat", {}, data, (0, "Pending"), (1, "Available"))
        return {"SnatEntryId": entry.id}

    def _delete_snat_entry(self, values: dict[str, Any]) -> dict[str, Any]:
        entry = self._get("snat", values["SnatEntryId"], "InvalidSnatEntryId.NotFound")
        self._need(entry, "IncorrectSnatEntryStatus", "Available")
        entry.becomes(self.clock.now(), (0, "Deleting"), (1, GONE))
        return {}

    def _describe_snat_table_entries(self, values: dict[str, Any]) -> dict[str, Any]:
        if "SnatTableId" not in values and "NatGatewayId" not in values:
            raise Refused("MissingParameter", "SnatTableId or NatGatewayId")
        found = self._matching("snat", {}, Table=values.get("SnatTableId"), Nat=values.get("NatGatewayId"))
        page, head = _page(found, values, 50)
        rows = [
            {
                "SnatEntryId": s.id,
                "SnatEntryName": s.data["Name"],
                "SnatTableId": s.data["Table"],
                "NatGatewayId": s.data["Nat"],
                "SnatIp": s.data["Address"],
                "SourceCIDR": s.data["Source"] if "/" in s.data["Source"] else "",
                "SourceVSwitchId": "" if "/" in s.data["Source"] else s.data["Source"],
                "Status": self._state(s),
            }
            for s in page
        ]
        return {**head, "SnatTableEntries": {"SnatTableEntry": rows}}

    # ECS: groups

    def _create_security_group(self, values: dict[str, Any]) -> dict[str, Any]:
        vpc = self._get("vpc", values.get("VpcId"), "InvalidVpcId.NotFound")
        self._need(vpc, "IncorrectVpcStatus", "Available")
        data = {
            "Vpc": vpc.id,
            "Name": values.get("SecurityGroupName", ""),
            "Rules": [],
            "Type": values.get("SecurityGroupType", "normal"),
        }
        return {"SecurityGroupId": self._new("group", "sg", values, data, (0, "Available")).id}

    def _describe_security_groups(self, values: dict[str, Any]) -> dict[str, Any]:
        found = [
            g
            for g in self._matching("group", values, Vpc=values.get("VpcId"))
            if values.get("SecurityGroupId", g.id) == g.id
        ]
        page, head = _chunk(found, values, 100)
        rows = [
            {"SecurityGroupId": g.id, "SecurityGroupName": g.data["Name"], "VpcId": g.data["Vpc"], "Tags": _ecs_tags(g)}
            for g in page
        ]
        return {**head, "SecurityGroups": {"SecurityGroup": rows}}

    def _describe_security_group_attribute(self, values: dict[str, Any]) -> dict[str, Any]:
        group = self._get("group", values["SecurityGroupId"], "InvalidSecurityGroupId.NotFound")
        rules = [rule for rule in group.data["Rules"] if values.get("Direction", "all") in ("all", rule["Direction"])]
        start = int(values.get("NextToken") or 0)
        size = max(10, min(1000, int(values.get("MaxResults", 500))))
        following = str(start + size) if start + size < len(rules) else ""
        return {
            "SecurityGroupId": group.id,
            "VpcId": group.data["Vpc"],
            "NextToken": following,
            "Permissions": {"Permission": rules[start : start + size]},
        }

    def _authorize_security_group(self, values: dict[str, Any]) -> dict[str, Any]:
        group = self._get("group", values["SecurityGroupId"], "InvalidSecurityGroupId.NotFound")
        new = [self._rule(permission) for permission in _permissions(values)]
        for rule in new:
            if not any(_same_rule(rule, other) for other in group.data["Rules"]):  # a rule that is there counts as made
                self._count += 1
                group.data["Rules"].append({**rule, "SecurityGroupRuleId": f"sgr-{self._count:06d}"})
        return {}

    def _rule(self, permission: dict[str, Any]) -> dict[str, Any]:
        sources = [
            permission.get(name) for name in ("SourceCidrIp", "SourceGroupId", "Ipv6SourceCidrIp", "SourcePrefixListId")
        ]
        if not any(sources):
            raise Refused("MissingParameter.Source", "a rule needs a source")
        if permission.get("SourceGroupId"):
            self._get("group", permission["SourceGroupId"], "InvalidSourceGroupId.NotFound")
        elif "SourceCidrIp" in permission:
            _network(permission["SourceCidrIp"], 0, 32)
        protocol, ports = str(permission.get("IpProtocol", "")).upper(), permission.get("PortRange", "")
        match = re.fullmatch(r"(-?\d+)/(-?\d+)", ports)
        if protocol not in ("TCP", "UDP", "ICMP", "GRE", "ALL") or not match:
            raise Refused("InvalidParam.PortRange", f"protocol {protocol!r}, ports {ports!r}")
        low, high = int(match[1]), int(match[2])
        if (protocol in ("TCP", "UDP")) != (1 <= low <= high <= 65535) or (
            protocol not in ("TCP", "UDP") and (low, high) != (-1, -1)
        ):
            raise Refused("InvalidParam.PortRange", f"protocol {protocol!r}, ports {ports!r}")
        return {
            "IpProtocol": protocol,
            "PortRange": ports,
            "Policy": str(permission.get("Policy", "accept")).capitalize(),
            "Priority": str(permission.get("Priority", 1)),
            "Direction": "ingress",
            "SourceCidrIp": permission.get("SourceCidrIp", ""),
            "SourceGroupId": permission.get("SourceGroupId", ""),
            "Description": permission.get("Description", ""),
        }

    def _revoke_security_group(self, values: dict[str, Any]) -> dict[str, Any]:
        group = self._get("group", values["SecurityGroupId"], "InvalidSecurityGroupId.NotFound")
        if values.get("SecurityGroupRuleId"):
            doomed = set(values["SecurityGroupRuleId"])
            group.data["Rules"] = [rule for rule in group.data["Rules"] if rule["SecurityGroupRuleId"] not in doomed]
            return {}
        old = [self._rule(permission) for permission in _permissions(values)]
        group.data["Rules"] = [
            rule for rule in group.data["Rules"] if not any(_same_rule(rule, other) for other in old)
        ]
        return {}

    def _modify_security_group_rule(self, values: dict[str, Any]) -> dict[str, Any]:
        group = self._get("group", values["SecurityGroupId"], "InvalidSecurityGroupId.NotFound")
        for rule in group.data["Rules"]:
            if rule["SecurityGroupRuleId"] == values.get("SecurityGroupRuleId"):
                rule["Description"] = values.get("Description", rule["Description"])
                return {}
        raise Refused("InvalidSecurityGroupRuleId.NotFound", f"rule {values.get('SecurityGroupRuleId')!r}", 404)

    def _delete_security_group(self, values: dict[str, Any]) -> dict[str, Any]:
        group = self._get("group", values["SecurityGroupId"], "InvalidSecurityGroupId.NotFound")
        members = [i for i in self.things.values() if i.kind == "instance" and group.id in i.data["Groups"]]
        others = [
            g
            for g in self.of("group")
            if g.id != group.id and any(r["SourceGroupId"] == group.id for r in g.data["Rules"])
        ]
        if members or others:
            raise Refused("DependencyViolation", f"{group.id} is used by {(members or others)[0].id}.")
        group.becomes(self.clock.now(), (0, GONE))
        return {}

    # ECS: instances

    def _address(self, switch: Thing, wanted: str | None, count: int = 1) -> str:
        """Return the first of ``count`` free addresses; refuse reserved and taken ones."""
        network = ipaddress.ip_network(switch.data["Cidr"])
        taken = {t.data["Address"] for t in self.things.values() if t.data.get("Switch") == switch.id}
        size = network.num_addresses
        usable = [str(network[n]) for n in range(1, size - 3)]
        if wanted is None:
            free = [address for address in usable if address not in taken]
            if not free:
                raise Refused("InvalidVSwitchId.IpNotEnough", f"{switch.id} has no free address")
            return free[-1]
        first = ipaddress.ip_address(wanted)
        for number in range(count):
            address = str(first + number)
            if address not in usable:
                raise Refused("InvalidPrivateIpAddress", f"{address} is not a usable address of {network}.")
            if address in taken:
                raise Refused("InvalidPrivateIpAddress.Duplicated", f"{address} is in use.")
        return wanted

    def _run_instances(self, values: dict[str, Any]) -> dict[str, Any]:
        amount = int(values.get("Amount", 1))
        least = int(values.get("MinAmount", amount))
        if not 1 <= least <= amount <= 100:
            raise Refused("InvalidAmount.ValueNotSupported", f"Amount {amount}, MinAmount {least}: 1 to 100")
        if values.get("InstanceType") not in TYPES:
            raise Refused("InvalidInstanceType.NotFound", f"instance type {values.get('InstanceType')!r}")
        image = self._get("image", values.get("ImageId"), "InvalidImageId.NotFound")
        self._need(image, "IncorrectImageStatus", "Available")
        switch = self._get("vswitch", values.get("VSwitchId"), "InvalidVSwitchId.NotFound")
        self._need(switch, "IncorrectVSwitchStatus", "Available")
        groups = self._run_groups(values, switch)
        if "DeploymentSetId" in values:
            self._get("placement", values["DeploymentSetId"], "InvalidDeploymentSetId.NotFound")
        names = values.get("HostNames") or [values.get("HostName", "")] * amount
        if len(names) != amount or ("HostName" in values and "HostNames" in values):
            raise Refused("InvalidHostNames", f"{len(names)} host names for {amount} instances")
        for name in names:
            if name and not re.fullmatch(r"(?=.{2,64}$)[A-Za-z0-9]+([.-][A-Za-z0-9]+)*", name):
                raise Refused("InvalidHostName.Malformed", f"host name {name!r}")
        self._run_user_data(values)
        if values.get("SpotStrategy", "NoSpot") not in ("NoSpot", "SpotAsPriceGo", "SpotWithPriceLimit"):
            raise Refused("InvalidSpotStrategy", f"spot strategy {values['SpotStrategy']!r}")
        if "PrivateIpAddress" in values:
            self._address(switch, values["PrivateIpAddress"], amount)
        if len(self.of("instance")) + least > self.limits.instances:
            raise Refused("QuotaExceed.ElasticQuota", f"The account may have {self.limits.instances} instances.")
        left = min(amount, self.limits.stock if self._stock is None else self._stock)
        if left < least:
            raise Refused("OperationDenied.NoStock", "The requested resource is sold out in the specified zone.", 403)
        self.limits.stock -= left
        ids = []
        for number in range(left):
            wanted = (
                str(ipaddress.ip_address(values["PrivateIpAddress"]) + number) if "PrivateIpAddress" in values else None
            )
            data = {
                "Vpc": switch.data["Vpc"],
                "Switch": switch.id,
                "Zone": switch.data["Zone"],
                "Groups": groups,
                "Image": image.id,
                "Type": values["InstanceType"],
                "HostName": names[number],
                "Name": values.get("InstanceName", ""),
                "Address": self._address(switch, wanted),
                "UserData": values.get("UserData", ""),
                "Spot": values.get("SpotStrategy", "NoSpot"),
                "SystemDisk": values.get("SystemDisk", {}),
                "Public": [f"198.51.100.{self._count % 254 + 1}"]
                if int(values.get("InternetMaxBandwidthOut", 0))
                else [],
                "Placement": values.get("DeploymentSetId", ""),
            }
            instance = self._new("instance", "i", values, data, (0, "Pending"), (1, "Starting"), (3, "Running"))
            disk = {
                "Zone": switch.data["Zone"],
                "Bound": "",
                "Instance": instance.id,
                "Type": "system",
                "Size": int(values.get("SystemDisk", {}).get("Size", image.data["Size"])),
                "Name": "",
            }
            disk["DeleteWithInstance"] = True
            self._new("disk", "d", values, disk, (0, "In_use"))
            self.launched(instance)
            ids.append(instance.id)
        return {"InstanceIdSets": {"InstanceIdSet": ids}}

    def _run_groups(self, values: dict[str, Any], switch: Thing) -> list[str]:
        if ("SecurityGroupId" in values) == bool(values.get("SecurityGroupIds")):
            raise Refused(
                "InvalidParameter.SecurityGroup", "one of SecurityGroupId and SecurityGroupIds is needed, not both"
            )
        groups = values.get("SecurityGroupIds") or [values["SecurityGroupId"]]
        if len(groups) > 5:
            raise Refused("InvalidSecurityGroupIds.LimitExceeded", "an instance has at most 5 security groups")
        for name in groups:
            group = self._get("group", name, "InvalidSecurityGroupId.NotFound")
            if group.data["Vpc"] != switch.data["Vpc"]:
                raise Refused("InvalidSecurityGroupId.VPCMismatch", f"{name} is in another VPC than {switch.id}")
        return list(groups)

    @staticmethod
    def _run_user_data(values: dict[str, Any]) -> None:
        try:
            raw = base64.b64decode(values.get("UserData", ""), validate=True)
        except ValueError:
            raise Refused("InvalidUserData.Base64FormatInvalid", "user data is not base64") from None
        if len(raw) > USER_DATA_BYTES:
            raise Refused("InvalidUserData.SizeExceeded", f"user data has {len(raw)} bytes, at most {USER_DATA_BYTES}")

    def _describe_instances(self, values: dict[str, Any]) -> dict[str, Any]:
        ids = _ids(values["InstanceIds"], 100) if "InstanceIds" in values else None
        found = self._matching("instance", values, Vpc=values.get("VpcId"))
        found = [
            i for i in found if (ids is None or i.id in ids) and values.get("Status", self._state(i)) == self._state(i)
        ]
        page, head = _chunk(found, values, 100)
        eips = {e.data["Bound"]: e for e in self.of("eip") if e.data["Bound"]}
        rows = []
        for i in page:
            eip = eips.get(i.id)
            rows.append(
                {
                    "InstanceId": i.id,
                    "InstanceName": i.data["Name"],
                    "HostName": i.data["HostName"],
                    "Status": self._state(i),
                    "ImageId": i.data["Image"],
                    "InstanceType": i.data["Type"],
                    "ZoneId": i.data["Zone"],
                    "RegionId": REGION,
                    "SpotStrategy": i.data["Spot"],
                    "CreationTime": "2026-11-22T09:00Z",
                    "SecurityGroupIds": {"SecurityGroupId": i.data["Groups"]},
                    "VpcAttributes": {
                        "VpcId": i.data["Vpc"],
                        "VSwitchId": i.data["Switch"],
                        "PrivateIpAddress": {"IpAddress": [i.data["Address"]]},
                    },
                    "EipAddress": {"AllocationId": eip.id, "IpAddress": eip.data["Address"]} if eip else {},
                    "PublicIpAddress": {"IpAddress": i.data["Public"]},
                    "Tags": _ecs_tags(i),
                }
            )
        return {**head, "Instances": {"Instance": rows}}

    def _instances(self, values: dict[str, Any]) -> list[Thing]:
        ids = values["InstanceId"]
        if not 1 <= len(ids) <= 100:
            raise Refused("InvalidInstanceId.Malformed", f"{len(ids)} instance ids: 1 to 100")
        return [self._get("instance", name, "InvalidInstanceId.NotFound") for name in ids]

    def _delete_instances(self, values: dict[str, Any]) -> dict[str, Any]:
        doomed = self._instances(values)
        for instance in doomed:
            if self._state(instance) in ("Pending", "Starting", "Stopping"):
                raise Refused("IncorrectInstanceStatus.Initializing", f"{instance.id} is {self._state(instance)}.")
            if self._state(instance) == "Running" and not values.get("Force"):
                raise Refused("IncorrectInstanceStatus", f"{instance.id} is Running; Force is needed.")
        now = self.clock.now()
        for instance in doomed:
            instance.becomes(now, (0, "Stopping"), (3, GONE))
            for disk in self._in(["disk"], "Instance", instance.id):
                if disk.data["DeleteWithInstance"]:
                    disk.becomes(now, (3, GONE))
                else:
                    disk.data.update(Instance="")
                    disk.becomes(now, (0, "Detaching"), (3, "Available"))
        return {}

    def _start_instances(self, values: dict[str, Any]) -> dict[str, Any]:
        for instance in (chosen := self._instances(values)):
            self._need(instance, "IncorrectInstanceStatus", "Stopped")
        for instance in chosen:
            instance.becomes(self.clock.now(), (0, "Starting"), (2, "Running"))
        return {
            "InstanceResponses": {
                "InstanceResponse": [{"InstanceId": i.id, "Code": "200", "Message": "success"} for i in chosen]
            }
        }

    def _stop_instances(self, values: dict[str, Any]) -> dict[str, Any]:
        for instance in (chosen := self._instances(values)):
            self._need(instance, "IncorrectInstanceStatus", "Running")
        for instance in chosen:
            instance.becomes(self.clock.now(), (0, "Stopping"), (2, "Stopped"))
        return {
            "InstanceResponses": {
                "InstanceResponse": [{"InstanceId": i.id, "Code": "200", "Message": "success"} for i in chosen]
            }
        }

    def _get_instance_console_output(self, values: dict[str, Any]) -> dict[str, Any]:
        instance = self._get("instance", values["InstanceId"], "InvalidInstanceId.NotFound")
        text = "Linux version 6.1.0\n"
        if self._state(instance) == "Running":
            text += self.console(instance)
        return {
            "InstanceId": instance.id,
            "ConsoleOutput": base64.b64encode(text.encode()).decode(),
            "LastUpdateTime": "2026-11-22T09:00:00Z",
        }

    def _describe_instance_types(self, values: dict[str, Any]) -> dict[str, Any]:
        wanted = values.get("InstanceTypes") or list(TYPES)
        rows = [
            {
                "InstanceTypeId": name,
                "CpuCoreCount": TYPES[name][0],
                "MemorySize": TYPES[name][1],
                "NvmeSupport": "required" if name in NVME else "unsupported",
            }
            for name in wanted
            if name in TYPES
        ]
        return {"InstanceTypes": {"InstanceType": rows}, "NextToken": ""}

    def _describe_zones(self, _values: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {"ZoneId": zone, "LocalName": zone, "AvailableInstanceTypes": {"InstanceTypes": sorted(TYPES)}}
            for zone in ZONES
        ]
        return {"Zones": {"Zone": rows}}

    def _create_deployment_set(self, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("Strategy", "Availability") not in ("Availability", "AvailabilityGroup", "LowLatency"):
            raise Refused("InvalidStrategy", f"strategy {values['Strategy']!r}")
        data = {"Name": values.get("DeploymentSetName", ""), "Strategy": values.get("Strategy", "Availability")}
        data["Description"] = values.get("Description", "")
        return {"DeploymentSetId": self._new("placement", "ds", {}, data, (0, "Available")).id}

    def _describe_deployment_sets(self, values: dict[str, Any]) -> dict[str, Any]:
        found = self._matching("placement", {}, Name=values.get("DeploymentSetName"))
        page, head = _page(found, values, 50)
        rows = [
            {
                "DeploymentSetId": p.id,
                "DeploymentSetName": p.data["Name"],
                "DeploymentStrategy": p.data["Strategy"],
                "DeploymentSetDescription": p.data["Description"],
            }
            for p in page
        ]
        return {**head, "RegionId": REGION, "DeploymentSets": {"DeploymentSet": rows}}

    def _delete_deployment_set(self, values: dict[str, Any]) -> dict[str, Any]:
        placement = self._get("placement", values["DeploymentSetId"], "InvalidDeploymentSetId.NotFound")
        if self._in(["instance"], "Placement", placement.id):
            raise Refused("DeploymentSetNotEmpty", f"{placement.id} has instances.")
        placement.becomes(self.clock.now(), (0, GONE))
        return {}

    # ECS: disks

    def _create_disk(self, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("ZoneId") not in ZONES:
            raise Refused("InvalidZoneId.NotFound", f"zone {values.get('ZoneId')!r}")
        category = values.get("DiskCategory", "cloud")
        smallest = {
            "cloud": 5,
            "cloud_efficiency": 20,
            "cloud_ssd": 20,
            "cloud_essd": 20,
            "cloud_auto": 1,
            "cloud_essd_entry": 10,
        }.get(category)
        if smallest is None or int(values.get("Size", 0)) < smallest:
            raise Refused("InvalidDiskSize.NotSupported", f"{category} of {values.get('Size')} GiB")
        if values.get("DiskName") and not re.fullmatch(r"[A-Za-z][A-Za-z0-9:_.-]{1,127}", values["DiskName"]):
            raise Refused("InvalidDiskName.Malformed", f"disk name {values['DiskName']!r}")
        data = {
            "Zone": values["ZoneId"],
            "Instance": "",
            "Type": "data",
            "Size": int(values["Size"]),
            "Name": values.get("DiskName", ""),
            "DeleteWithInstance": False,
            "Category": category,
        }
        return {"DiskId": self._new("disk", "d", values, data, (0, "Creating"), (2, "Available")).id}

    def _describe_disks(self, values: dict[str, Any]) -> dict[str, Any]:
        ids = _ids(values["DiskIds"], 100) if "DiskIds" in values else None
        found = [
            d for d in self._matching("disk", values, Instance=values.get("InstanceId")) if ids is None or d.id in ids
        ]
        kind = values.get("DiskType", "all")
        found = [d for d in found if kind in ("all", d.data["Type"])]
        page, head = _chunk(found, values, 500)
        rows = [
            {
                "DiskId": d.id,
                "DiskName": d.data["Name"],
                "Status": self._state(d),
                "InstanceId": d.data["Instance"],
                "ZoneId": d.data["Zone"],
                "Size": d.data["Size"],
                "Type": d.data["Type"],
                "Category": d.data.get("Category", "cloud_essd"),
                "DeleteWithInstance": d.data["DeleteWithInstance"],
                "Tags": _ecs_tags(d),
            }
            for d in page
        ]
        return {**head, "Disks": {"Disk": rows}}

    def _attach_disk(self, values: dict[str, Any]) -> dict[str, Any]:
        disk = self._get("disk", values["DiskId"], "InvalidDiskId.NotFound")
        instance = self._get("instance", values["InstanceId"], "InvalidInstanceId.NotFound")
        self._need(disk, "IncorrectDiskStatus", "Available")
        self._need(instance, "IncorrectInstanceStatus", "Running", "Stopped")
        if disk.data["Zone"] != instance.data["Zone"]:
            raise Refused("ResourcesNotInSameZone", f"{disk.id} and {instance.id} are in different zones")
        disk.data.update(Instance=instance.id, DeleteWithInstance=bool(values.get("DeleteWithInstance")))
        disk.becomes(self.clock.now(), (0, "Attaching"), (2, "In_use"))
        return {}

    def _detach_disk(self, values: dict[str, Any]) -> dict[str, Any]:
        disk = self._get("disk", values["DiskId"], "InvalidDiskId.NotFound")
        self._need(disk, "IncorrectDiskStatus", "In_use")
        if disk.data["Instance"] != values["InstanceId"]:
            raise Refused("DependencyViolation", f"{disk.id} is attached to {disk.data['Instance']}")
        disk.data.update(Instance="")
        disk.becomes(self.clock.now(), (0, "Detaching"), (2, "Available"))
        return {}

    def _delete_disk(self, values: dict[str, Any]) -> dict[str, Any]:
        disk = self._get("disk", values["DiskId"], "InvalidDiskId.NotFound")
        self._need(disk, "IncorrectDiskStatus", "Available")
        disk.becomes(self.clock.now(), (0, GONE))
        return {}

    # ECS: images

    def _create_image(self, values: dict[str, Any]) -> dict[str, Any]:
        instance = self._get("instance", values.get("InstanceId"), "InvalidInstanceId.NotFound")
        self._need(instance, "IncorrectInstanceStatus", "Running", "Stopped")
        name = values.get("ImageName", "")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9:_.-]{1,127}", name):
            raise Refused("InvalidImageName.Malformed", f"image name {name!r}")
        if any(i.data["ImageName"] == name for i in self.of("image")):
            raise Refused("InvalidImageName.Duplicated", f"an image {name} exists")
        self.imaged(instance)
        snapshot = self._new("snapshot", "s", {}, {"Image": ""}, (0, "progressing"), (3, "accomplished"))
        self._count += 1
        data = {
            "ImageName": name,
            "Owner": "self",
            "Snapshots": [snapshot.id],
            "Size": 20,
            "Created": f"2026-11-22T09:{self._count // 60 % 60:02d}:{self._count % 60:02d}Z",
        }
        image = self._new("image", "m", values, data, (0, "Creating"), (5, "Available"))
        snapshot.data["Image"] = image.id
        return {"ImageId": image.id}

    def _describe_images(self, values: dict[str, Any]) -> dict[str, Any]:
        states = values.get("Status", "Available").split(",")
        ids = values["ImageId"].split(",") if "ImageId" in values else None
        found = []
        for image in self._matching("image", values):
            if ids is not None and image.id not in ids:
                continue
            if states != ["ALL"] and self._state(image) not in states:
                continue
            if values.get("ImageOwnerAlias", image.data["Owner"]) != image.data["Owner"]:
                continue
            in_use = any(i.data["Image"] == image.id for i in self.of("instance"))
            if values.get("Usage") not in (None, "instance" if in_use else "none"):
                continue
            if values.get("ImageName", "") in image.data["ImageName"]:  # "fuzzy", and nothing about wildcards
                found.append(image)
        page, head = _page(found, values, 100)
        rows = [
            {
                "ImageId": i.id,
                "ImageName": i.data["ImageName"],
                "Status": self._state(i),
                "ImageOwnerAlias": i.data["Owner"],
                "CreationTime": i.data["Created"],
                "Size": i.data["Size"],
                "Tags": _ecs_tags(i),
                "DiskDeviceMappings": {
                    "DiskDeviceMapping": [{"SnapshotId": s, "Type": "system"} for s in i.data["Snapshots"]]
                },
            }
            for i in page
        ]
        return {**head, "RegionId": REGION, "Images": {"Image": rows}}

    def _delete_image(self, values: dict[str, Any]) -> dict[str, Any]:
        image = self.things.get(values["ImageId"])
        if image is None or image.kind != "image":
            return {}  # "If the specified custom image does not exist, the request is ignored."
        if image.data["Owner"] == "system":
            raise Refused("InvalidOperation.SystemImage", "a system image can't be deleted")
        if not values.get("Force") and any(i.data["Image"] == image.id for i in self.of("instance")):
            raise Refused("ImageUsingByInstance", f"{image.id} is used by instances")
        image.becomes(self.clock.now(), (0, GONE))
        return {}

    def _describe_snapshots(self, values: dict[str, Any]) -> dict[str, Any]:
        page, head = _chunk(self._matching("snapshot", values), values, 100)
        rows = [{"SnapshotId": s.id, "Status": self._state(s), "Tags": _ecs_tags(s)} for s in page]
        return {**head, "Snapshots": {"Snapshot": rows}}

    def _delete_snapshot(self, values: dict[str, Any]) -> dict[str, Any]:
        snapshot = self._get("snapshot", values["SnapshotId"], "InvalidSnapshotId.NotFound")
        if snapshot.data["Image"] in self.things:
            raise Refused("SnapshotCreatedImage", f"{snapshot.id} is used by image {snapshot.data['Image']}")
        snapshot.becomes(self.clock.now(), (0, GONE))
        return {}

    def _tag_resources(self, values: dict[str, Any]) -> dict[str, Any]:
        ids = values["ResourceId"]
        if len(ids) > 50:
            raise Refused("NumberExceed.ResourceIds", f"{len(ids)} resource ids, at most 50")
        for name in ids:
            thing = self.things.get(name)
            if thing is None:
                raise Refused("InvalidResourceId.NotFound", f"resource {name}", 404)
            thing.tags.update({tag["Key"]: tag.get("Value", "") for tag in values["Tag"]})
        return {}


def console_keys(identity: str) -> str:
    """Return what cloud-init prints to the console: a public host key."""
    blob = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00 " + hashlib.sha256(identity.encode()).digest()
    return console_block(f"ssh-ed25519 {base64.b64encode(blob).decode()} root@{identity}")


def console_block(key: str) -> str:
    """Return how cloud-init prints a public host key to the console."""
    return f"-----BEGIN SSH HOST KEY KEYS-----\n{key}\n-----END SSH HOST KEY KEYS-----\nlogin: "


def _network(text: str, shortest: int, longest: int) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        raise Refused("InvalidCidrBlock.Malformed", f"{text!r} is not a network") from None
    if not shortest <= network.prefixlen <= longest:
        raise Refused("InvalidCidrBlock.Malformed", f"{text} must have a prefix of {shortest} to {longest}")
    return network


def _check_tags(tags: list[dict[str, str]], *, filtering: bool) -> None:
    if len(tags) > 20 or (not filtering and len({tag["Key"] for tag in tags}) < len(tags)):
        raise Refused("InvalidTag", f"{len(tags)} tags: at most 20, each key once")
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not 1 <= len(key) <= 128 or key.startswith(("aliyun", "acs:")) or "http://" in key or "https://" in key:
            raise Refused("InvalidTagKey.Malformed", f"tag key {key!r}")
        if len(value) > 128 or value.startswith(("aliyun", "acs:")) or "http://" in value or "https://" in value:
            raise Refused("InvalidTagValue.Malformed", f"tag value {value!r}")


def _permissions(values: dict[str, Any]) -> list[dict[str, Any]]:
    permissions = values.get("Permissions") or []
    if not 1 <= len(permissions) <= 100:
        raise Refused("InvalidPermissions", f"{len(permissions)} permissions: 1 to 100")
    return list(permissions)


def _same_rule(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = ("IpProtocol", "PortRange", "SourceCidrIp", "SourceGroupId", "Policy", "Priority", "Direction")
    return all(one[name] == other[name] for name in names)


def _ids(text: str, most: int) -> list[str]:
    try:
        ids = json.loads(text)
    except ValueError:
        raise Refused("InvalidParameter", f"{text!r} is not a JSON list") from None
    if not isinstance(ids, list) or len(ids) > most:
        raise Refused("InvalidParameter", f"{text!r} must be a list of at most {most}")
    return ids


def _page(found: list[Thing], values: dict[str, Any], most: int) -> tuple[list[Thing], dict[str, Any]]:
    number, size = int(values.get("PageNumber", 1)), int(values.get("PageSize", 10))
    if not 1 <= size <= most or number < 1:
        raise Refused("InvalidParameter.PageSize", f"page {number} of {size}: at most {most}")
    head = {"PageNumber": number, "PageSize": size, "TotalCount": len(found)}
    return found[(number - 1) * size : number * size], head


def _chunk(found: list[Thing], values: dict[str, Any], most: int) -> tuple[list[Thing], dict[str, Any]]:
    start, size = int(values.get("NextToken") or 0), min(most, max(10, int(values.get("MaxResults", 10))))
    following = str(start + size) if start + size < len(found) else ""
    return found[start : start + size], {"NextToken": following}


def _tags(thing: Thing) -> dict[str, Any]:
    return {"Tag": [{"Key": key, "Value": value} for key, value in thing.tags.items()]}


def _ecs_tags(thing: Thing) -> dict[str, Any]:
    return {"Tag": [{"TagKey": key, "TagValue": value} for key, value in thing.tags.items()]}
