# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Amazon's EC2: each function is a call or two; when they are made is decided in ``cloud``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree

from .._errors import HpcError
from .aws_calls import connect_ec2, translated
from .base import ClusterSpec, Conflict, Desired, Exists, Invalid, NotFound, Resource, State, natural_key
from .cloud import (
    CLUSTER,
    ELASTIC,
    HOST_KEY,
    INPUTS,
    MACHINES,
    NAME,
    OURS,
    ROLE,
    SPEC,
    WORKERS,
    CloudRequest,
    Limits,
    Row,
    Rule,
    groups_for,
    groups_of,
    item_of,
    machine_attributes,
    machine_of,
    row_of,
    tags_of,
)
from .cloud_image import IMAGE_OF, CloudImage, ImageCloud

__all__ = ["AwsProvider", "newest_image", "read_rows", "rules_of"]

STATES = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "going",
    "terminated": "gone",
}
DEVICE_LETTERS = "fghijklmnop"
PAGE = 400  # instances a reply: the parsed reply of 1000 takes more memory than all rows of a large cluster
IMAGE_STATES = {"available": "ready", "pending": "pending", "transient": "pending"}
EVERYWHERE = "0.0.0.0/0"

# The type of a resource in TagSpecifications, by our kind.
TAG_TYPES = {
    "network": "vpc",
    "subnet": "subnet",
    "gateway": "internet-gateway",
    "routes": "route-table",
    "security_group": "security-group",
    "key_pair": "key-pair",
    "placement": "placement-group",
    "address": "elastic-ip",
    "nat": "natgateway",
    "volume": "volume",
    "machine": "instance",
    "elastic": "instance",
}


class AwsProvider(ImageCloud):
    """Machines are instances of EC2 in a VPC of their own."""

    login_user = "admin"  # of Debian's images
    limits = Limits(run=1, terminate=500, user_data_bytes=16384)

    def __init__(self, client: Any, *, login_user: str = "", **options: Any) -> None:
        """Take a client of EC2; ``options`` are those of ``CloudProvider``."""
        super().__init__(**options)
        self._client = client
        self.login_user = login_user or self.login_user
        self._zone = ""
        self._images: dict[str, Mapping[str, Any]] = {}
        self._reading = threading.local()
        client.meta.events.register("before-parse.ec2.DescribeInstances", self._read_rows)

    @classmethod
    def connect(cls, cloud: Mapping[str, Any]) -> AwsProvider:
        """Connect to a region."""
        return cls(connect_ec2(str(cloud.get("region") or "")), login_user=str(cloud.get("login_user") or ""))

    # What should be

    def extra(self, spec: ClusterSpec) -> list[Desired]:
        """Return the gateway to the internet, the NAT gateway and the routes to them."""
        request = CloudRequest(spec)
        nat = request.cloud.egress == "nat"
        items = [item_of("gateway", "main", {}, request, depends=("network/main",), settings=_one("attached", "yes"))]
        if nat:
            before = ("subnet/public", "address/nat", "gateway/main", "routes/public")
            items.append(item_of("nat", "main", {}, request, depends=before, settings=_one("available", "yes")))
        for name, way, depends in (
            ("public", "gateway main", ("subnet/public", "gateway/main")),
            ("private", "nat main" if nat else "", ("subnet/private", *(["nat/main"] if nat else []))),
        ):
            settings = {"ways": frozenset({way} - {""}), "subnets": frozenset({name})}
            exact = frozenset({"ways"})
            items.append(item_of("routes", name, {}, request, depends=depends, settings=settings, exact=exact))
        return items

    def before_machines(self, spec: ClusterSpec, machine: Any) -> tuple[str, ...]:
        """Return the routes: a machine may need the internet when it boots."""
        return (f"routes/{machine.subnet}",)

    # What is

    def resources(self, cluster: str) -> list[Resource]:
        """Return everything with the cluster's tag."""
        tagged = [{"Name": f"tag:{CLUSTER}", "Values": [cluster]}]
        calls: dict[str, Callable[[], list[Any]]] = {
            "network": lambda: self._all("describe_vpcs", "Vpcs", Filters=tagged),
            "subnet": lambda: self._all("describe_subnets", "Subnets", Filters=tagged),
            "gateway": lambda: self._all("describe_internet_gateways", "InternetGateways", Filters=tagged),
            "routes": lambda: self._all("describe_route_tables", "RouteTables", Filters=tagged),
            "security_group": lambda: self._all("describe_security_groups", "SecurityGroups", Filters=tagged),
            "key_pair": lambda: self._call("describe_key_pairs", Filters=tagged)["KeyPairs"],
            "placement": lambda: self._call("describe_placement_groups", Filters=tagged)["PlacementGroups"],
            "address": lambda: self._call("describe_addresses", Filters=tagged)["Addresses"],
            "nat": lambda: self._all("describe_nat_gateways", "NatGateways", Filter=tagged),
            "volume": lambda: self._all("describe_volumes", "Volumes", Filters=tagged),
            "machine": lambda: self._instances(tagged),
        }
        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            found = dict(zip(calls, pool.map(lambda call: call(), calls.values())))
        # Nothing that isn't ours, whatever a filter is worth.
        found = {k: [i for i in items if _tags(i).get(CLUSTER) == cluster] for k, items in found.items()}
        # A NAT gateway that failed is removed by AWS itself.
        found["nat"] = [nat for nat in found["nat"] if nat["State"] in ("pending", "available")]
        found["volume"] = [volume for volume in found["volume"] if volume["State"] not in ("deleting", "deleted")]
        found["machine"] = [item for item in found["machine"] if STATES[item["State"]["Name"]] not in ("going", "gone")]
        found["placement"] = [group for group in found["placement"] if group["State"] in ("pending", "available")]
        names = {_id_of(kind, item): _tags(item).get(NAME, "") for kind in found for item in found[kind]}
        attached: dict[str, set[str]] = {}
        for volume in found["volume"]:
            for attachment in volume.get("Attachments") or ():
                if attachment.get("State") in (None, "attaching", "attached", "busy"):
                    attached.setdefault(attachment["InstanceId"], set()).add(_tags(volume).get(NAME, ""))
        zones = [item["AvailabilityZone"] for item in (*found["subnet"], *found["volume"])]
        self._zone = zones[0] if zones else self._zone
        return [
            _resource(kind, item, names, attached)
            for kind, items in found.items()
            for item in items
            if _tags(item).get(ROLE) in (MACHINES if kind == "machine" else (kind,))
        ]

    def find(self, desired: Desired) -> str:
        """Return the id of one resource by its tags."""
        cluster = desired.request.spec.cluster
        found = [item for item in self.resources(cluster) if item.ref == desired.ref]
        return found[0].id if found else ""

    def rows(self, cluster: str = "") -> list[Row]:
        """Return the instances of a cluster, or of all."""
        tag = {"Name": f"tag:{CLUSTER}", "Values": [cluster]} if cluster else {"Name": "tag-key", "Values": [CLUSTER]}
        # botocore's parser takes six times as long as reading the few fields that a row has.
        rows: list[Row] = []
        self._reading.rows = rows
        try:
            parsed = self._instances([tag])
        finally:
            del self._reading.rows
        return rows + [_row(item) for item in parsed if _tags(item).get(ROLE) in MACHINES]

    def _read_rows(self, response_dict: dict[str, Any], **_event: Any) -> None:
        """Take the rows out of a reply before botocore parses it, in a thread that wants rows."""
        rows = getattr(self._reading, "rows", None)
        if rows is not None and response_dict["status_code"] == 200:
            found, response_dict["body"] = read_rows(response_dict["body"])
            rows.extend(found)

    def clusters(self) -> dict[str, list[Row]]:
        """Return the machines of all clusters in the region; what is left of one without machines costs money too."""
        found = super().clusters()
        tagged = [{"Name": "tag-key", "Values": [CLUSTER]}]
        for network in self.patient(lambda: self._all("describe_vpcs", "Vpcs", Filters=tagged)):
            found.setdefault(_tags(network)[CLUSTER], [])
        return dict(sorted(found.items()))

    def preflight(self, spec: ClusterSpec, state: State) -> list[str]:
        """Return what would make creation fail: kinds of machines, zone, images."""
        hashes = {item.key: item.spec_hash for item in self.desired(spec) if item.kind == "machine"}
        there = state.of_kind("machine")
        new = [m for m in spec.machines if m.name not in there or there[m.name].spec_hash != hashes[m.name]]
        if not new:
            return []
        problems = self._choose_zone(CloudRequest(spec).cloud.zone, sorted({m.instance_type for m in new}))
        for text in sorted({machine.image for machine in new}):
            try:
                self.find_image(text)
            except (Invalid, NotFound) as error:
                problems.append(str(error))
        return problems

    def _choose_zone(self, wanted: str, types: Sequence[str]) -> list[str]:
        offers = self._all(
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": list(types)}],
        )
        zones: dict[str, set[str]] = {name: set() for name in types}
        for offer in offers:
            zones[offer["InstanceType"]].add(offer["Location"])
        problems = [
            f"instance_type {name!r} is offered nowhere in this region: choose another."
            for name in types
            if not zones[name]
        ]
        if problems:
            return problems
        common = sorted(set.intersection(*zones.values()))
        zone = self._zone or wanted
        if zone and zone not in common:
            listed = ", ".join(name for name in types if zone not in zones[name])
            return [
                f"zone {zone} has no {listed}. Zones with all of {', '.join(types)}: {', '.join(common) or 'none'}."
            ]
        if not common:
            return [f"no zone has all of {', '.join(types)}: choose kinds that one zone has."]
        self._zone = zone or common[0]
        return []

    def figures(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return what instance types have; one that doesn't exist is an error."""
        found = self._all("describe_instance_types", "InstanceTypes", InstanceTypes=list(types))
        return {item["InstanceType"]: _figures(item) for item in found}

    def find_image(self, text: str) -> None:
        """Look an image up and remember it."""
        self._images[text] = self._image(text)

    def _image(self, text: str) -> Mapping[str, Any]:
        """Return an image by its id, or the newest by its name pattern, our own or as in ``OWNER/PATTERN``."""
        if text.startswith("ami-"):
            images = self._call("describe_images", ImageIds=[text])["Images"]
        else:
            owner, _slash, pattern = text.rpartition("/")
            filters = [{"Name": "name", "Values": [pattern]}, {"Name": "state", "Values": ["available"]}]
            images = self._all("describe_images", "Images", Owners=[owner or "self"], Filters=filters)
        return newest_image(text, images)

    # Creating

    def create(self, desired: Desired) -> str:
        """Make one resource that is no machine."""
        request, cloud, name = desired.request, desired.request.cloud, f"turnkey-{desired.request.spec.cluster}"
        tags = _tag_specifications(desired)
        if desired.kind == "network":
            return str(self._call("create_vpc", CidrBlock=request.spec.network, **tags)["Vpc"]["VpcId"])
        if desired.kind == "subnet":
            return str(
                self._call(
                    "create_subnet",
                    VpcId=self.ids["network/main"],
                    CidrBlock=cloud.subnet(desired.key),
                    AvailabilityZone=self._zone,
                    **tags,
                )["Subnet"]["SubnetId"]
            )
        if desired.kind == "gateway":
            return str(self._call("create_internet_gateway", **tags)["InternetGateway"]["InternetGatewayId"])
        if desired.kind == "routes":
            made = self._call("create_route_table", VpcId=self.ids["network/main"], **tags, **self._token(desired))
            return str(made["RouteTable"]["RouteTableId"])
        if desired.kind == "security_group":
            made = self._call(
                "create_security_group",
                GroupName=f"{name}-{desired.key}",
                Description=f"{desired.key} of cluster {request.spec.cluster}, made by turnkey.hpc",
                VpcId=self.ids["network/main"],
                **tags,
            )
            return str(made["GroupId"])
        if desired.kind == "key_pair":
            key = request.spec.admin_public_key.encode()
            return str(self._call("import_key_pair", KeyName=name, PublicKeyMaterial=key, **tags)["KeyName"])
        if desired.kind == "placement":
            group = f"{name}-{desired.key}"
            self._call("create_placement_group", GroupName=group, Strategy=desired.attributes["strategy"], **tags)
            return group
        if desired.kind == "address":
            return str(self._call("allocate_address", Domain="vpc", **tags)["AllocationId"])
        if desired.kind == "nat":
            made = self._call(
                "create_nat_gateway",
                SubnetId=self.ids["subnet/public"],
                AllocationId=self.ids["address/nat"],
                **tags,
                **self._token(desired),
            )
            return str(made["NatGateway"]["NatGatewayId"])
        made = self._call(
            "create_volume",
            AvailabilityZone=self._zone,
            Size=request.volume.size_gb,
            VolumeType=request.volume.type or "gp3",
            Encrypted=True,
            **tags,
            **self._token(desired),
        )
        return str(made["VolumeId"])

    def launch_groups(self, items: Sequence[Desired]) -> list[list[Desired]]:
        """Return each machine alone: EC2 takes an address for one machine only."""
        return [[item] for item in items]

    def launch(self, group: Sequence[Desired]) -> Mapping[str, str]:
        """Make one machine."""
        desired = group[0]
        machine = machine_of(desired)
        if machine.image not in self._images:
            self.find_image(machine.image)
        image = self._images[machine.image]
        request: dict[str, Any] = {
            "ImageId": image["ImageId"],
            "InstanceType": machine.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "KeyName": f"turnkey-{desired.request.spec.cluster}",
            # The key pair has the operator's key; an elastic node lets the controller in.
            "UserData": self.user_data(
                desired,
                _device,
                authorized_key=desired.request.spec.admin_public_key if desired.kind == ELASTIC else "",
            ),
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": self.ids[f"subnet/{machine.subnet}"],
                    "PrivateIpAddress": machine.address,
                    "Groups": [self.ids[f"security_group/{name}"] for name in groups_for(machine)],
                    "AssociatePublicIpAddress": machine.bastion,
                    "DeleteOnTermination": True,
                }
            ],
            # Only with a token do a machine's metadata answer, so that no request that was smuggled in reads them.
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "Placement": {"AvailabilityZone": self._zone},
            **_tag_specifications(desired),
            **self._token(desired),
        }
        if machine.placement:
            request["Placement"]["GroupName"] = self.ids[f"placement/{machine.set_name}"]
        if machine.spot:
            request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
        if machine.root_gb:
            disk = {"DeleteOnTermination": True, "VolumeSize": machine.root_gb, "VolumeType": "gp3"}
            request["BlockDeviceMappings"] = [{"DeviceName": image["RootDeviceName"], "Ebs": disk}]
        with translated(f"launch machine {machine.name}"):
            made = self._client.run_instances(**request)
        return {machine.name: made["Instances"][0]["InstanceId"]}

    # Settings

    def settle(self, desired: Desired, identity: str, resource: Resource | None) -> None:
        """Make the settings of a resource what they should be."""
        have: Mapping[str, frozenset[str]] = resource.settings if resource else {}
        if desired.kind == "gateway" and not have.get("attached"):
            self._unless_there("attach_internet_gateway", InternetGatewayId=identity, VpcId=self.ids["network/main"])
        elif desired.kind == "nat":
            self._nat_is_available(identity)
        elif desired.kind == "routes":
            self._settle_routes(desired, identity, have)
        elif desired.kind == "security_group":
            self._settle_rules(desired, identity)
        elif desired.kind in MACHINES:
            self._settle_machine(desired, identity, resource)

    def _nat_is_available(self, identity: str) -> None:
        nat = self._call("describe_nat_gateways", NatGatewayIds=[identity])["NatGateways"][0]
        if nat["State"] == "pending":
            raise Conflict(f"NAT gateway {identity} is not ready yet.")
        if nat["State"] != "available":
            raise HpcError(f"NAT gateway {identity} is {nat['State']}: {nat.get('FailureMessage', 'no reason given')}.")

    def _settle_routes(self, desired: Desired, identity: str, have: Mapping[str, frozenset[str]]) -> None:
        ways = desired.settings["ways"]
        for way in sorted(ways - have.get("ways", frozenset())):
            kind, key = way.split()
            target = {"GatewayId" if kind == "gateway" else "NatGatewayId": self.ids[f"{kind}/{key}"]}
            route = {"RouteTableId": identity, "DestinationCidrBlock": EVERYWHERE, **target}
            try:
                self._call("create_route", **route)
            except Exists:
                self._call("replace_route", **route)
        if not ways and have.get("ways"):
            self._unless_gone("delete_route", RouteTableId=identity, DestinationCidrBlock=EVERYWHERE)
        for subnet in sorted(desired.settings["subnets"] - have.get("subnets", frozenset())):
            self._unless_there("associate_route_table", RouteTableId=identity, SubnetId=self.ids[f"subnet/{subnet}"])

    def _settle_rules(self, desired: Desired, identity: str) -> None:
        group = self._call("describe_security_groups", GroupIds=[identity])["SecurityGroups"][0]
        names = {value: ref.partition("/")[2] for ref, value in self.ids.items() if ref.startswith("security_group/")}
        ours, foreign = rules_of(group, names)
        wanted = desired.settings["rules"]
        for text in sorted(wanted - ours):
            permission = [self._permission(Rule.parse(text))]
            try:
                self._call("authorize_security_group_ingress", GroupId=identity, IpPermissions=permission)
            except Exists:  # someone else made it: it is ours from now on
                call = "update_security_group_rule_descriptions_ingress"
                self._call(call, GroupId=identity, IpPermissions=permission)
        surplus = ours - wanted
        if "foreign_rules" in desired.exact:
            surplus |= foreign - wanted
        for permission in group["IpPermissions"]:
            doomed = _revocable(permission, surplus, names)
            if doomed:
                self._unless_gone("revoke_security_group_ingress", GroupId=identity, IpPermissions=[doomed])

    def _permission(self, rule: Rule) -> dict[str, Any]:
        result: dict[str, Any] = {"IpProtocol": "-1" if rule.protocol == "all" else rule.protocol}
        if rule.first_port >= 0:
            result.update(FromPort=rule.first_port, ToPort=rule.last_port)
        if rule.source.startswith("group "):
            group = self.ids[f"security_group/{rule.source.removeprefix('group ')}"]
            return {**result, "UserIdGroupPairs": [{"GroupId": group, "Description": OURS}]}
        return {**result, "IpRanges": [{"CidrIp": rule.source, "Description": OURS}]}

    def _settle_machine(self, desired: Desired, identity: str, resource: Resource | None) -> None:
        have = resource.settings if resource else {"groups": desired.settings["groups"]}
        if have["groups"] != desired.settings["groups"]:
            tags = [{"Key": key, "Value": value} for key, value in tags_of(desired).items() if key == "turnkey:groups"]
            if tags:
                self._call("create_tags", Resources=[identity], Tags=tags)
            else:
                self._call("delete_tags", Resources=[identity], Tags=[{"Key": "turnkey:groups"}])
        names = sorted(desired.settings["attached"], key=natural_key)
        for letter, name in zip(DEVICE_LETTERS, names):
            if name not in have.get("attached", frozenset()):
                volume = self.ids[f"volume/{name}"]
                self._attach(identity, volume, f"/dev/sd{letter}")

    def _attach(self, identity: str, volume: str, device: str) -> None:
        try:
            self._call("attach_volume", InstanceId=identity, VolumeId=volume, Device=device)
            return
        except Exists:
            found = self._call("describe_volumes", VolumeIds=[volume])["Volumes"][0]
        if identity not in [attachment["InstanceId"] for attachment in found.get("Attachments") or ()]:
            raise Conflict(f"volume {volume} is still attached to another machine.")

    def tag_host_key(self, identity: str, key: str) -> None:
        """Keep a machine's host key in its tags."""
        self._call("create_tags", Resources=[identity], Tags=[{"Key": HOST_KEY, "Value": key}])

    def console(self, identity: str) -> str:
        """Return what an instance has written to its console."""
        try:
            return str(self._call("get_console_output", InstanceId=identity, Latest=True).get("Output") or "")
        except Invalid:  # kinds of machines without Nitro know only the console as it was some minutes ago
            return str(self._call("get_console_output", InstanceId=identity).get("Output") or "")

    def start_machines(self, ids: Sequence[str]) -> None:
        """Start instances."""
        self._call("start_instances", InstanceIds=list(ids))

    def stop_machines(self, ids: Sequence[str]) -> None:
        """Stop instances."""
        self._call("stop_instances", InstanceIds=list(ids))

    def terminate_machines(self, ids: Sequence[str]) -> None:
        """Terminate instances."""
        self._call("terminate_instances", InstanceIds=list(ids))

    # Removing

    def delete(self, resource: Resource) -> None:
        """Remove one resource that is no machine."""
        kind, identity = resource.kind, resource.id
        if kind == "nat":
            self._delete_nat(identity)
        elif kind == "address":
            self._call("release_address", AllocationId=identity)
        elif kind == "routes":
            table = self._call("describe_route_tables", RouteTableIds=[identity])["RouteTables"][0]
            for association in table.get("Associations") or ():
                self._unless_gone("disassociate_route_table", AssociationId=association["RouteTableAssociationId"])
            self._call("delete_route_table", RouteTableId=identity)
        elif kind == "subnet":
            self._call("delete_subnet", SubnetId=identity)
        elif kind == "gateway":
            gateway = self._call("describe_internet_gateways", InternetGatewayIds=[identity])["InternetGateways"][0]
            for attachment in gateway.get("Attachments") or ():
                self._unless_gone("detach_internet_gateway", InternetGatewayId=identity, VpcId=attachment["VpcId"])
            self._call("delete_internet_gateway", InternetGatewayId=identity)
        elif kind == "security_group":
            self._call("delete_security_group", GroupId=identity)
        elif kind == "placement":
            self._call("delete_placement_group", GroupName=identity)
        elif kind == "key_pair":
            self._call("delete_key_pair", KeyName=identity)
        elif kind == "volume":
            self._call("delete_volume", VolumeId=identity)
        else:
            self._call("delete_vpc", VpcId=identity)

    def _delete_nat(self, identity: str) -> None:
        """Remove a NAT gateway; the address is free only when it is gone, which takes a minute."""
        found = self._call("describe_nat_gateways", NatGatewayIds=[identity])["NatGateways"]
        state = found[0]["State"] if found else "deleted"
        if state in ("deleted", "failed"):
            return
        if state != "deleting":
            self._call("delete_nat_gateway", NatGatewayId=identity)
        raise Conflict(f"NAT gateway {identity} is being removed.")

    # Images

    def images(self) -> list[CloudImage]:
        """Return our own images that carry our tag."""
        tagged = [{"Name": "tag-key", "Values": [IMAGE_OF]}]
        found = self._all("describe_images", "Images", Owners=["self"], Filters=tagged)
        filters = [{"Name": "image-id", "Values": [image["ImageId"] for image in found]}]
        machines = self._instances(filters) if found else []
        used = {item["ImageId"] for item in machines if STATES[item["State"]["Name"]] != "gone"}
        return [_image_of(image, used) for image in found]

    def create_image(self, identity: str, name: str, tags: Mapping[str, str]) -> str:
        """Begin to make an image of a stopped machine."""
        given = [{"Key": key, "Value": value} for key, value in sorted({"Name": name, **tags}.items())]
        specifications = [{"ResourceType": kind, "Tags": given} for kind in ("image", "snapshot")]
        try:
            made = self._call("create_image", InstanceId=identity, Name=name, TagSpecifications=specifications)
            return str(made["ImageId"])
        except Exists:  # an earlier request, whose answer was lost, has made it
            found = [image.id for image in self.images() if image.name == name]
        if not found:
            raise Conflict(f"there is an image called {name} that is not ours, or not known yet.")
        return found[0]

    def delete_image(self, image: CloudImage) -> None:
        """Remove an image; its snapshots carry our tag."""
        self._call("deregister_image", ImageId=image.id)

    def orphans(self) -> list[str]:
        """Return the snapshots with our tag that no image is stored in any more."""
        stored = {snapshot for image in self.images() for snapshot in image.snapshots}
        tagged = [{"Name": "tag-key", "Values": [IMAGE_OF]}]
        found = self._all("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=tagged)
        return [s["SnapshotId"] for s in found if s["State"] != "pending" and s["SnapshotId"] not in stored]

    def delete_snapshot(self, identity: str) -> None:
        """Remove a snapshot."""
        self._call("delete_snapshot", SnapshotId=identity)

    # Calls

    def _call(self, operation: str, **parameters: Any) -> Any:
        with translated(operation.replace("_", " ")):
            return getattr(self._client, operation)(**parameters)

    def _all(self, operation: str, key: str, **parameters: Any) -> list[Any]:
        """Return the items of all pages."""
        if not self._client.can_paginate(operation):  # Debian 12's SDK knows fewer lists that have pages
            return list(self._call(operation, **parameters)[key])
        with translated(operation.replace("_", " ")):
            pages = self._client.get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page[key]]

    def _instances(self, filters: list[dict[str, Any]]) -> list[Any]:
        reservations = self._all(
            "describe_instances", "Reservations", Filters=filters, PaginationConfig={"PageSize": PAGE}
        )
        return [item for reservation in reservations for item in reservation["Instances"]]

    def _unless_there(self, operation: str, **parameters: Any) -> None:
        """Make a call whose effect may be there already."""
        try:
            self._call(operation, **parameters)
        except Exists:
            return

    def _unless_gone(self, operation: str, **parameters: Any) -> None:
        """Make a call about something that may be gone already."""
        try:
            self._call(operation, **parameters)
        except NotFound:
            return

    def _token(self, desired: Desired) -> dict[str, str]:
        return {"ClientToken": self.token(desired.ref, desired.spec_hash)}


# Pure helpers


def newest_image(text: str, images: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the newest of the images that a pattern matches; none, or two equally new ones, are an error."""
    if not images:
        raise NotFound(
            f"image {text!r} doesn't exist in this region, or you may not use it.",
            "Give an image id, a name pattern of your own images, or OWNER/PATTERN for those of others.",
        )
    newest = max(image["CreationDate"] for image in images)
    found = [image for image in images if image["CreationDate"] == newest]
    if len(found) > 1:
        listed = ", ".join(sorted(f"{image['ImageId']} ({image['Name']})" for image in found))
        raise Invalid(f"image {text!r} matches several that are equally new: {listed}.", "Give a narrower pattern.")
    return found[0]


def read_rows(body: bytes) -> tuple[list[Row], bytes]:
    """Return the machines in a reply to DescribeInstances, and the reply without its instances."""
    root = ElementTree.fromstring(body)
    space = root.tag.partition("}")[0] + "}"
    rows = []
    reservations = root.find(f"{space}reservationSet")
    for item in root.iterfind(f"{space}reservationSet/{space}item/{space}instancesSet/{space}item"):
        parts = {part.tag: part for part in item}

        def text(name: str, parts: Mapping[str, Any] = parts) -> str:
            part = parts.get(f"{space}{name}")
            return "" if part is None else part.text or ""

        tags = {}
        for pair in parts.get(f"{space}tagSet", ()):
            found = {part.tag: part.text or "" for part in pair}
            tags[found[f"{space}key"]] = found.get(f"{space}value", "")
        if tags.get(ROLE) in MACHINES:
            rows.append(
                row_of(
                    tags,
                    text("instanceId"),
                    text("privateIpAddress"),
                    STATES[item.findtext(f"{space}instanceState/{space}name", "")],
                    public_address=text("ipAddress"),
                    instance_type=text("instanceType"),
                    reason=item.findtext(f"{space}stateReason/{space}message", ""),
                )
            )
    if reservations is not None:
        reservations.clear()
    return rows, ElementTree.tostring(root)


def _row(item: Mapping[str, Any]) -> Row:
    reason = item.get("StateReason") or {}
    return row_of(
        _tags(item),
        item["InstanceId"],
        item.get("PrivateIpAddress", ""),
        STATES[item["State"]["Name"]],
        public_address=item.get("PublicIpAddress", ""),
        instance_type=item.get("InstanceType", ""),
        reason=reason.get("Message", ""),
    )


def rules_of(group: Mapping[str, Any], names: Mapping[str, str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return our rules and those of others. ``names`` gives the keys of the cluster's groups by id."""
    ours: set[str] = set()
    foreign: set[str] = set()
    for permission in group.get("IpPermissions") or ():
        for text, description in _texts(permission, names):
            (ours if description == OURS else foreign).add(text)
    return frozenset(ours), frozenset(foreign - ours)


def _sources(permission: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return where a permission's sources are, and what they are."""
    kinds = {
        "IpRanges": "CidrIp",
        "Ipv6Ranges": "CidrIpv6",
        "UserIdGroupPairs": "GroupId",
        "PrefixListIds": "PrefixListId",
    }
    return [
        (name, str(item.get(field, "")), item) for name, field in kinds.items() for item in permission.get(name) or ()
    ]


def _text(permission: Mapping[str, Any], field: str, source: str, names: Mapping[str, str]) -> str:
    protocol = str(permission["IpProtocol"])
    ports = permission.get("FromPort", -1), permission.get("ToPort", -1)
    if field == "UserIdGroupPairs":
        source = f"group {names.get(source, source)}"
    if protocol == "-1":
        return str(Rule("all", source))
    return str(Rule(protocol, source, int(ports[0]), int(ports[1])))


def _texts(permission: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (_text(permission, field, source, names), str(item.get("Description", "")))
        for field, source, item in _sources(permission)
    ]


def _revocable(permission: Mapping[str, Any], doomed: frozenset[str], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the part of a permission that stands for doomed rules, empty if there is none."""
    parts: dict[str, list[Any]] = {}
    for field, source, item in _sources(permission):
        if _text(permission, field, source, names) in doomed:
            wanted = {name: value for name, value in item.items() if name != "Description"}
            parts.setdefault(field, []).append(wanted)
    if not parts:
        return {}
    head = {name: permission[name] for name in ("IpProtocol", "FromPort", "ToPort") if name in permission}
    return {**head, **parts}


def _resource(
    kind: str, item: Mapping[str, Any], names: Mapping[str, str], attached: Mapping[str, set[str]]
) -> Resource:
    tags = _tags(item)
    identity = _id_of(kind, item)
    attributes: dict[str, Any] = {}
    settings: dict[str, frozenset[str]] = {}
    if kind == "network":
        attributes = {"cidr": item["CidrBlock"]}
    elif kind == "subnet":
        attributes = {"cidr": item["CidrBlock"], "zone": item["AvailabilityZone"]}
    elif kind == "gateway":
        settings = _one("attached", "yes") if item.get("Attachments") else {}
    elif kind == "nat":
        settings = _one("available", "yes") if item["State"] == "available" else {}
    elif kind == "routes":
        settings = {
            "ways": frozenset(_way(route, names) for route in item["Routes"]) - {""},
            "subnets": frozenset(names.get(a.get("SubnetId", ""), "") for a in item.get("Associations") or ()) - {""},
        }
    elif kind == "security_group":
        ours, foreign = rules_of(item, names)
        settings = {"rules": ours, "foreign_rules": foreign}
    elif kind == "volume":
        attributes = {
            "size_gb": str(item["Size"]),
            "type": item.get("VolumeType", ""),
            "zone": item["AvailabilityZone"],
        }
    elif kind == "placement":
        attributes = {"strategy": item["Strategy"]}
    elif kind == "machine":
        state = STATES[item["State"]["Name"]]
        address, instance_type = item.get("PrivateIpAddress", ""), item.get("InstanceType", "")
        attributes = machine_attributes(tags, address, instance_type, state)
        settings = {"groups": frozenset(groups_of(tags)), "attached": frozenset(attached.get(identity, ()))}
    return Resource(tags[ROLE], tags[NAME], identity, tags.get(SPEC, ""), attributes, settings)


def _image_of(image: Mapping[str, Any], used: set[str]) -> CloudImage:
    tags = _tags(image)
    disks = (disk.get("Ebs", {}).get("SnapshotId", "") for disk in image.get("BlockDeviceMappings") or ())
    return CloudImage(
        id=image["ImageId"],
        name=image.get("Name", ""),
        image_of=tags.get(IMAGE_OF, ""),
        inputs=tags.get(INPUTS, ""),
        created=image.get("CreationDate", ""),
        state=IMAGE_STATES.get(image["State"], "failed"),
        used=image["ImageId"] in used,
        snapshots=tuple(snapshot for snapshot in disks if snapshot),
    )


def _way(route: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return what a route to everywhere leads to, empty for the routes that are not ours."""
    if route.get("DestinationCidrBlock") != EVERYWHERE:
        return ""
    if route.get("NatGatewayId"):
        return f"nat {names.get(route['NatGatewayId'], route['NatGatewayId'])}"
    if route.get("GatewayId"):
        return f"gateway {names.get(route['GatewayId'], route['GatewayId'])}"
    return ""


def _id_of(kind: str, item: Mapping[str, Any]) -> str:
    field = {
        "network": "VpcId",
        "subnet": "SubnetId",
        "gateway": "InternetGatewayId",
        "routes": "RouteTableId",
        "security_group": "GroupId",
        "key_pair": "KeyName",
        "placement": "GroupName",
        "address": "AllocationId",
        "nat": "NatGatewayId",
        "volume": "VolumeId",
        "machine": "InstanceId",
    }[kind]
    return str(item[field])


def _tags(item: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in item.get("Tags") or ()}


def _tag_specifications(desired: Desired) -> dict[str, Any]:
    tags = [{"Key": key, "Value": value} for key, value in sorted(tags_of(desired).items())]
    return {"TagSpecifications": [{"ResourceType": TAG_TYPES[desired.kind], "Tags": tags}]}


def _one(name: str, value: str) -> dict[str, frozenset[str]]:
    return {name: frozenset({value})}


def _device(volume: str) -> str:
    """Return the device of a volume on a machine with Nitro."""
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


def _figures(item: Mapping[str, Any]) -> dict[str, int]:
    """Return what an instance type has. EC2 doesn't tell sockets; slurmd compares their product with the cores."""
    cpus = item["VCpuInfo"]
    figures = {"cpus": int(cpus["DefaultVCpus"]), "memory_mb": int(item["MemoryInfo"]["SizeInMiB"])}
    if "DefaultCores" in cpus and "DefaultThreadsPerCore" in cpus:
        cores, threads = int(cpus["DefaultCores"]), int(cpus["DefaultThreadsPerCore"])
        figures |= {"sockets": 1, "cores_per_socket": cores, "threads_per_core": threads}
    return figures
