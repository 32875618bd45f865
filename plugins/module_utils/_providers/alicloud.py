# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ECS instances of Alibaba Cloud as machines: what one call of the core is in the calls of that cloud."""

from __future__ import annotations

import base64
import fnmatch
import ipaddress
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from .._errors import HpcError
from .alicloud_api import Api, connect_api
from .base import (
    Capacity,
    ClusterSpec,
    Conflict,
    Desired,
    Exists,
    Invalid,
    NotFound,
    NotReady,
    Resource,
    State,
    natural_key,
    spec_hash,
)
from .cloud import (
    CLUSTER,
    ELASTIC,
    HOST_KEY,
    INPUTS,
    MACHINES,
    NAME,
    OURS,
    RECIPE,
    ROLE,
    SPEC,
    WORKERS,
    CloudRequest,
    Limits,
    Row,
    Rule,
    Timing,
    consecutive,
    groups_of,
    machine_attributes,
    machine_of,
    row_of,
    tags_of,
)
from .cloud_image import IMAGE_OF, CloudImage, ImageCloud

__all__ = ["AlicloudProvider", "newest_image", "text_of_rule"]

BATCH = "turnkey:batch"
"""Tag of machines made in one call: name and address of the first one, from which those of the others follow."""

OPERATOR_KEY = "turnkey:operator-key"
"""Tag of machines: fingerprint of the key that they let in."""

TAG_LENGTH = 128
SPREAD = 20  # machines of a deployment set that lie on different hosts of one zone
DISK = "cloud_essd"
BANDWIDTH_MBIT = 100  # paid by traffic, so a high limit costs nothing
STRATEGIES = {"cluster": "LowLatency", "spread": "Availability"}
STATES = {
    "Pending": "pending",
    "Starting": "pending",
    "Running": "running",
    "Stopping": "stopping",
    "Stopped": "stopped",
}
IMAGE_STATES = {
    "Creating": "pending",
    "Waiting": "pending",
    "Available": "ready",
    "UnAvailable": "failed",
    "CreateFailed": "failed",
}


class AlicloudProvider(ImageCloud):
    """One region of an Alibaba Cloud account."""

    name = "alicloud"
    login_user = "root"
    limits = Limits(run=100, terminate=100, user_data_bytes=32 * 1024)

    def __init__(self, api: Api, timing: Timing | None = None, reach: Callable[[str, int], None] | None = None) -> None:
        """Take the calls of one region."""
        super().__init__(timing, reach)
        self._api = api
        api.again = self._again
        self._zone = ""
        self._images: dict[str, str] = {}
        self._nvme: dict[str, bool] = {}

    def _again(self, call: Callable[[], Any], on: tuple[type[HpcError], ...]) -> Any:
        return self.timing.retry(call, on, self.timing.throttle_seconds)

    @classmethod
    def connect(cls, cloud: Mapping[str, Any]) -> AlicloudProvider:
        """Use the credentials that the SDK finds: environment, profile, or the role of the machine this runs on."""
        return cls(connect_api(str(cloud.get("region") or "")))

    # What should be

    def desired(self, spec: ClusterSpec) -> list[Desired]:
        """Return everything that ``spec`` stands for. Key pairs here can't be ed25519, so the key is in user data."""
        items = super().desired(spec)
        (key,) = (str(item.attributes["public_key"]) for item in items if item.kind == "key_pair")
        return [_with_key(item, key) if item.kind in MACHINES else item for item in items if item.kind != "key_pair"]

    def extra(self, spec: ClusterSpec) -> list[Desired]:
        """Return the gateway through which the private machines reach the world, if they may."""
        request = CloudRequest(spec)
        if request.cloud.egress != "nat":
            return []
        return [
            Desired(
                "nat",
                "main",
                spec_hash({"recipe": RECIPE}),
                {},
                settings={"translates": frozenset({"private as nat"})},
                depends=("subnet/public", "subnet/private", "address/nat"),
                request=request,
                exact=frozenset({"translates"}),
            )
        ]

    # Before anything is made

    def preflight(self, spec: ClusterSpec, state: State) -> list[str]:
        """Return what would make creation fail."""
        problems = []
        kinds = sorted({machine.instance_type for machine in spec.machines})
        self._look_up_kinds(kinds)
        problems += [f"instance_type {kind} doesn't exist." for kind in kinds if kind not in self._nvme]
        known = {kind for kind in kinds if kind in self._nvme}
        zones = {str(item.attributes["zone"]) for item in state.of_kind("subnet").values()}
        try:
            self._zone = choose_zone(self._offers(), known, CloudRequest(spec).cloud.zone, zones)
        except (Capacity, Invalid) as error:
            problems.append(str(error))
        for image in sorted({machine.image for machine in spec.machines}):
            try:
                self._image(image)
            except Invalid as error:
                problems.append(str(error))
        problems += _name_problems(self.desired(spec))
        spread: dict[str, int] = {}
        for machine in spec.machines:
            if machine.placement == "spread":
                spread[machine.set_name] = spread.get(machine.set_name, 0) + 1
        problems += [
            f"machine set {name!r}: placement spread takes {SPREAD} machines, not {count}: make several sets."
            for name, count in spread.items()
            if count > SPREAD
        ]
        return problems

    def _offers(self) -> dict[str, set[str]]:
        """Return the instance types of each zone."""
        zones = self._api.ecs("DescribeZones").zones.zone
        return {str(zone.zone_id): set(zone.available_instance_types.instance_types or ()) for zone in zones}

    def _look_up_kinds(self, kinds: Sequence[str]) -> None:
        for item in self._types([kind for kind in kinds if kind not in self._nvme]):
            self._nvme[str(item.instance_type_id)] = item.nvme_support == "required"

    def _types(self, names: Sequence[str]) -> Iterator[Any]:
        for start in range(0, len(names), 10):
            some = list(names[start : start + 10])
            answer = self._api.ecs("DescribeInstanceTypes", region=False, instance_types=some)
            yield from answer.instance_types.instance_type

    def figures(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return what instance types have; one that doesn't exist is left out."""
        return {
            str(item.instance_type_id): {
                "cpus": int(item.cpu_core_count),
                "memory_mb": int(float(item.memory_size) * 1024),
            }
            for item in self._types(types)
        }

    def find_image(self, text: str) -> None:
        """Look an image up and remember it."""
        self._image(text)

    def _image(self, text: str) -> str:
        """Return the id of an image: itself, or the newest of a pattern, our own or as in ``OWNER/PATTERN``."""
        if text not in self._images:
            if re.fullmatch(r"m-[a-z0-9]+|[^/*]+\.vhd", text):
                found = self._api.ecs("DescribeImages", image_id=text).images.image
                pattern = "*"
            else:
                owner, _slash, pattern = text.rpartition("/")
                who = {"image_owner_id": owner} if owner.isdigit() else {"image_owner_alias": owner or "self"}
                # What the service takes for a match is not documented, so patterns are looked at here.
                exact = {} if "*" in pattern else {"image_name": pattern}
                found = self._api.pages("ecs", "DescribeImages", 100, **who, **exact)
            candidates = {
                str(image.image_id): (str(image.image_name), str(image.creation_time))
                for image in found
                if fnmatch.fnmatchcase(str(image.image_name), pattern)
            }
            self._images[text] = newest_image(text, candidates)
        return self._images[text]

    # What is

    def resources(self, cluster: str) -> list[Resource]:
        """Return what carries this cluster's tag, asked for at the same time."""
        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            listings = [
                pool.submit(listing, cluster)
                for listing in (
                    self._instances,
                    self._disks,
                    self._groups,
                    self._networks,
                    self._subnets,
                    self._addresses,
                    self._gateways,
                    self._placements,
                )
            ]
            instances, disks, groups, networks, subnets, addresses, gateways, placements = (
                future.result() for future in listings
            )
        attached: dict[str, set[str]] = {}
        for disk in disks:
            attached.setdefault(str(disk.instance_id or ""), set()).add(_pairs(disk.tags).get(NAME, ""))
        by_id = {str(item.v_switch_id): _pairs(item.tags).get(NAME, "") for item in subnets}
        by_address = {str(item.ip_address): _pairs(item.tags).get(NAME, "") for item in addresses}
        found = [_found(item.vpc_id, item.tags, {"cidr": str(item.cidr_block)}) for item in networks]
        found += [
            _found(item.v_switch_id, item.tags, {"cidr": str(item.cidr_block), "zone": str(item.zone_id)})
            for item in subnets
        ]
        found += [_found(item.allocation_id, item.tags, {}) for item in addresses]
        found += [self._found_group(item) for item in groups]
        found += [
            Resource("placement", key, str(item.deployment_set_id), digest, {"strategy": str(item.deployment_strategy)})
            for item, key, digest in placements
        ]
        for item in gateways:
            names = frozenset(
                f"{by_id.get(str(entry.source_vswitch_id)) or entry.source_cidr} as "
                f"{by_address.get(str(entry.snat_ip)) or entry.snat_ip}"
                for entry in self._translations(str(item.nat_gateway_id))
            )
            found.append(_found(item.nat_gateway_id, item.tags, {}, {"translates": names}))
        found += [
            _found(
                disk.disk_id,
                disk.tags,
                {"size_gb": str(disk.size), "type": str(disk.category), "zone": str(disk.zone_id)},
            )
            for disk in disks
        ]
        found += [_found_machine(item, attached.get(str(item.instance_id), set())) for item in instances]
        return found

    def find(self, desired: Desired) -> str:
        """Return the id of a resource by its tags."""
        listing: Callable[[str], Iterable[Any]] = {
            "network": self._networks,
            "subnet": self._subnets,
            "security_group": self._groups,
            "placement": self._placements,
            "address": self._addresses,
            "nat": self._gateways,
            "volume": self._disks,
        }[desired.kind]
        cluster = desired.request.spec.cluster
        if desired.kind == "placement":
            return next(
                (str(item.deployment_set_id) for item, key, _digest in listing(cluster) if key == desired.key), ""
            )
        for item in listing(cluster):
            if _pairs(item.tags).get(NAME) == desired.key:
                return _identity(desired.kind, item)
        return ""

    def rows(self, cluster: str = "") -> list[Row]:
        """Return the machines of one cluster, or of all."""
        rows = []
        for instance in self._api.each("ecs", "DescribeInstances", 100, tag=_filter(cluster)):
            tags = _machine_tags(instance)
            if tags.get(ROLE) not in MACHINES:
                continue
            rows.append(
                row_of(
                    tags,
                    str(instance.instance_id),
                    _private_address(instance),
                    STATES.get(str(instance.status), "pending"),
                    public_address=_public_address(instance),
                    instance_type=str(instance.instance_type),
                )
            )
        return rows

    def clusters(self) -> dict[str, list[Row]]:
        """Return the machines of all clusters in the region; what is left of one without machines costs money too."""
        found = super().clusters()
        for network in self._networks(""):
            found.setdefault(_pairs(network.tags).get(CLUSTER, ""), [])
        return dict(sorted(found.items()))

    def console(self, identity: str) -> str:
        """Return what a machine has written to its console."""
        text = self._api.ecs("GetInstanceConsoleOutput", instance_id=identity).console_output
        return base64.b64decode(text or "").decode(errors="replace")

    # Making and removing

    def create(self, desired: Desired) -> str:
        """Make one resource. Its token makes a repeated request harmless, so a lost answer is asked for again."""
        make: Callable[[Desired], str] = {
            "network": self._create_network,
            "subnet": self._create_subnet,
            "security_group": self._create_group,
            "placement": self._create_placement,
            "address": self._create_address,
            "nat": self._create_nat,
            "volume": self._create_volume,
        }[desired.kind]
        return self.patient(lambda: make(desired))

    def _create_network(self, desired: Desired) -> str:
        answer = self._api.vpc(
            "CreateVpc",
            cidr_block=desired.attributes["cidr"],
            vpc_name=_title(desired),
            client_token=self._token(desired),
            tag=_tags(tags_of(desired)),
        )
        return str(answer.vpc_id)

    def _create_subnet(self, desired: Desired) -> str:
        answer = self._api.vpc(
            "CreateVSwitch",
            vpc_id=self.ids["network/main"],
            zone_id=self._zone_of(desired.request.spec),
            cidr_block=desired.attributes["cidr"],
            v_switch_name=_title(desired),
            client_token=self._token(desired),
            tag=_tags(tags_of(desired)),
        )
        return str(answer.v_switch_id)

    def _create_group(self, desired: Desired) -> str:
        answer = self._api.ecs(
            "CreateSecurityGroup",
            vpc_id=self.ids["network/main"],
            security_group_name=_title(desired),
            client_token=self._token(desired),
            tag=_tags(tags_of(desired)),
        )
        return str(answer.security_group_id)

    def _create_placement(self, desired: Desired) -> str:
        answer = self._api.ecs(
            "CreateDeploymentSet",
            deployment_set_name=_placement_name(desired.request.spec.cluster, desired.key),
            description=f"{SPEC}={desired.spec_hash}",  # it can't have tags
            strategy=STRATEGIES[desired.attributes["strategy"]],
            client_token=self._token(desired),
        )
        return str(answer.deployment_set_id)

    def _create_address(self, desired: Desired) -> str:
        answer = self._api.vpc(
            "AllocateEipAddress",
            bandwidth=str(BANDWIDTH_MBIT),
            internet_charge_type="PayByTraffic",
            name=_title(desired),
            client_token=self._token(desired),
            tag=_tags(tags_of(desired)),
        )
        return str(answer.allocation_id)

    def _create_nat(self, desired: Desired) -> str:
        answer = self._api.vpc(
            "CreateNatGateway",
            vpc_id=self.ids["network/main"],
            v_switch_id=self.ids["subnet/public"],
            # Else it takes any address, perhaps that of a machine to come.
            nat_ip=_gateway_address(desired.request.cloud.public_subnet),
            nat_type="Enhanced",
            network_type="internet",
            internet_charge_type="PayByLcu",
            name=_title(desired),
            client_token=self._token(desired),
            tag=_tags(tags_of(desired)),
        )
        return str(answer.nat_gateway_id)

    def _create_volume(self, desired: Desired) -> str:
        answer = self._api.ecs(
            "CreateDisk",
            zone_id=self._zone_of(desired.request.spec),
            size=int(desired.attributes["size_gb"]),
            disk_category=desired.attributes.get("type") or DISK,
            disk_name=_title(desired),
            client_token=self._token(desired),
            tag=_tags(tags_of(desired)),
        )
        return str(answer.disk_id)

    def delete(self, resource: Resource) -> None:
        """Remove one resource that is no machine."""
        identity = resource.id
        {
            "network": lambda: self._api.vpc("DeleteVpc", vpc_id=identity),
            "subnet": lambda: self._api.vpc("DeleteVSwitch", v_switch_id=identity),
            "security_group": lambda: self._api.ecs("DeleteSecurityGroup", security_group_id=identity),
            "placement": lambda: self._api.ecs("DeleteDeploymentSet", deployment_set_id=identity),
            "address": lambda: self._api.vpc("ReleaseEipAddress", allocation_id=identity),
            # Its translations and the tie to its address go with it.
            "nat": lambda: self._api.vpc("DeleteNatGateway", nat_gateway_id=identity, force=True),
            "volume": lambda: self._api.ecs("DeleteDisk", region=False, disk_id=identity),
        }[resource.kind]()

    # Settings

    def settle(self, desired: Desired, identity: str, resource: Resource | None) -> None:
        """Make the settings of a resource what they should be, and wait until it can be used."""
        if desired.kind == "security_group":
            self._settle_rules(desired, identity)
        elif desired.kind == "nat":
            self._settle_nat(identity)
        elif desired.kind in MACHINES:
            self._settle_machine(desired, identity, resource)
        elif desired.kind in ("network", "subnet", "volume"):
            self._await_available(desired.kind, identity)

    def _await_available(self, kind: str, identity: str) -> None:
        def look() -> None:
            if kind == "network":
                found = self._api.vpc("DescribeVpcs", vpc_id=identity).vpcs.vpc
            elif kind == "subnet":
                found = self._api.vpc("DescribeVSwitches", v_switch_id=identity).v_switches.v_switch
            elif kind == "nat":
                found = self._api.vpc("DescribeNatGateways", nat_gateway_id=identity).nat_gateways.nat_gateway
            else:
                found = self._api.ecs("DescribeDisks", disk_ids=json.dumps([identity])).disks.disk
            if not found:
                raise NotFound(f"{kind} {identity} isn't known yet.")
            if found[0].status not in ("Available", "In_use"):
                raise NotReady(f"{kind} {identity} is {found[0].status}.")

        self.timing.poll(lambda: self.patient(look), self.timing.ready_seconds)

    def _settle_rules(self, desired: Desired, identity: str) -> None:
        wanted = desired.settings["rules"]
        present: dict[str, Any] = {}
        surplus = []
        for rule in self._rules(identity):
            text = text_of_rule(rule, {identity: desired.key})
            if text in wanted and text not in present:
                present[text] = rule
            elif rule.description == OURS or "foreign_rules" in desired.exact:
                surplus.append(str(rule.security_group_rule_id))
        # Rules that somebody made by hand and that are wanted become ours.
        for rule in present.values():
            if rule.description != OURS:
                self._api.ecs(
                    "ModifySecurityGroupRule",
                    security_group_id=identity,
                    security_group_rule_id=str(rule.security_group_rule_id),
                    description=OURS,
                )
        missing = [_permission(Rule.parse(text), identity) for text in sorted(wanted - present.keys())]
        for start in range(0, len(missing), 100):
            chunk = missing[start : start + 100]
            self._api.ecs("AuthorizeSecurityGroup", security_group_id=identity, permissions=chunk)
        for start in range(0, len(surplus), 100):
            chunk_ids = surplus[start : start + 100]
            self._api.ecs("RevokeSecurityGroup", security_group_id=identity, security_group_rule_id=chunk_ids)

    def _settle_nat(self, identity: str) -> None:
        self._await_available("nat", identity)
        address = self.ids["address/nat"]

        def tied() -> str:
            eips = self._api.vpc("DescribeEipAddresses", allocation_id=address).eip_addresses.eip_address
            if not eips:
                raise NotFound(f"address {address} isn't known yet.")
            if eips[0].status == "Available":
                self._api.vpc("AssociateEipAddress", allocation_id=address, instance_id=identity, instance_type="Nat")
            elif eips[0].status == "InUse" and eips[0].instance_id == identity:
                return str(eips[0].ip_address)
            elif eips[0].status == "InUse":
                raise Conflict(f"address {address} is used by {eips[0].instance_id}.", "Release it there.")
            raise NotReady(f"address {address} is {eips[0].status}.")

        public = self.timing.poll(lambda: self.patient(tied), self.timing.ready_seconds)
        gateways = self._api.vpc("DescribeNatGateways", nat_gateway_id=identity).nat_gateways.nat_gateway
        table = str(gateways[0].snat_table_ids.snat_table_id[0])
        source = self.ids["subnet/private"]
        stale = [e for e in self._translations(identity) if (e.source_vswitch_id, e.snat_ip) != (source, public)]
        for entry in stale:
            self._api.vpc("DeleteSnatEntry", snat_table_id=table, snat_entry_id=str(entry.snat_entry_id))
        if len(stale) == len(self._translations(identity)):
            try:
                self._api.vpc("CreateSnatEntry", snat_table_id=table, snat_ip=public, source_vswitch_id=source)
            except Exists:  # made by a request that got no answer, or a stale one that is still going
                raise Conflict(f"nat {identity} translates already.") from None

    def _settle_machine(self, desired: Desired, identity: str, resource: Resource | None) -> None:
        if resource is not None and resource.settings.get("groups") != desired.settings["groups"]:
            tags = tags_of(desired)
            self._tag(identity, {"turnkey:groups": tags.get("turnkey:groups", "")})
        for key in sorted(desired.settings["attached"]):
            self._attach(self.ids[f"volume/{key}"], identity)

    def _attach(self, disk_id: str, identity: str) -> None:
        def look() -> None:
            disks = self._api.ecs("DescribeDisks", disk_ids=json.dumps([disk_id])).disks.disk
            if not disks:
                raise NotFound(f"volume {disk_id} isn't known yet.")
            disk = disks[0]
            if disk.status == "In_use" and disk.instance_id == identity:
                return
            if disk.status == "In_use":
                raise Conflict(f"volume {disk_id} is attached to {disk.instance_id}.", "Detach it there.")
            if disk.status == "Available":
                # It must outlive the machine.
                self._api.ecs(
                    "AttachDisk", region=False, disk_id=disk_id, instance_id=identity, delete_with_instance=False
                )
            raise NotReady(f"volume {disk_id} is {disk.status}.")

        self.timing.poll(lambda: self.patient(look), self.timing.ready_seconds)

    # Machines

    def launch_groups(self, items: Sequence[Desired]) -> list[list[Desired]]:
        """Return machines that differ in nothing but name and address, in runs of addresses without a gap."""
        groups: list[list[Desired]] = []
        kind = ""
        ordered = sorted(items, key=lambda item: (_likeness(item), ipaddress.IPv4Address(machine_of(item).address)))
        for item in ordered:
            last = groups[-1][-1] if groups else None
            fits = (
                last is not None
                and kind == _likeness(item)
                and not machine_of(item).volumes  # their devices are in the user data
                and len(groups[-1]) < self.limits.run
                and consecutive([machine_of(last).address, machine_of(item).address])
                and _successor(last.key) == item.key
            )
            if fits:
                groups[-1].append(item)
            else:
                groups.append([item])
            kind = _likeness(item)
        return groups

    def launch(self, group: Sequence[Desired]) -> Mapping[str, str]:
        """Make machines in one call: as many of them as there is room for, from the first on."""
        group = self.launch_groups(group)[0]
        first, machine = group[0], machine_of(group[0])
        request: CloudRequest = first.request
        names = [item.key for item in group]
        groups = ["bastion", "cluster"] if machine.bastion else ["cluster"]
        key = request.spec.admin_public_key
        user_data = self.user_data(first, self._device_of(machine), hostname=False, authorized_key=key)
        values: dict[str, Any] = {
            "amount": len(group),
            "min_amount": 1,
            "image_id": self._image(machine.image),
            "instance_type": machine.instance_type,
            "instance_charge_type": "PostPaid",
            "spot_strategy": "SpotAsPriceGo" if machine.spot else "NoSpot",
            "v_switch_id": self.ids[f"subnet/{machine.subnet}"],
            "security_group_ids": [self.ids[f"security_group/{name}"] for name in groups],
            "private_ip_address": machine.address,
            "system_disk": {"category": DISK, **({"size": str(machine.root_gb)} if machine.root_gb else {})},
            "user_data": base64.b64encode(user_data).decode(),
            "client_token": self.token("launch", *names),
            "tag": _tags(_tags_of_batch(group)),
        }
        values.update({"host_name": names[0]} if len(names) == 1 else {"host_names": names})
        values["instance_name"] = f"{request.spec.cluster}-{machine.set_name}"
        if machine.bastion:
            values.update(internet_charge_type="PayByTraffic", internet_max_bandwidth_out=BANDWIDTH_MBIT)
        if machine.placement:
            values["deployment_set_id"] = self.ids[f"placement/{machine.set_name}"]
        answer = self._api.ecs("RunInstances", **values)
        ids = [str(identity) for identity in answer.instance_id_sets.instance_id_set]
        listed = self._api.pages("ecs", "DescribeInstances", 100, instance_ids=json.dumps(ids))
        if len(listed) < len(ids):
            raise NotFound(f"machines {', '.join(ids)} aren't known yet.")  # asked again with the same token
        by_address = {machine_of(item).address: item.key for item in group}
        return {by_address[_private_address(instance)]: str(instance.instance_id) for instance in listed}

    def _device_of(self, machine: Any) -> Callable[[str], str]:
        """Return what tells the device of a volume: it depends on how this kind of machine sees its disks."""
        self._look_up_kinds([machine.instance_type])
        prefix = "nvme-Alibaba_Cloud_Elastic_Block_Storage_" if self._nvme.get(machine.instance_type) else "virtio-"
        return lambda identity: f"/dev/disk/by-id/{prefix}{identity.removeprefix('d-')}"

    def start_machines(self, ids: Sequence[str]) -> None:
        """Start those that are stopped."""
        stopped = self._in_state(ids, "Stopped", "Stopping")
        if stopped:
            self._api.ecs("StartInstances", instance_id=stopped)

    def stop_machines(self, ids: Sequence[str]) -> None:
        """Stop those that run; what they cost stops too, except for their disks."""
        running = self._in_state(ids, "Running", "Starting")
        if running:
            self._api.ecs("StopInstances", instance_id=running, stopped_mode="StopCharging")

    def _in_state(self, ids: Sequence[str], state: str, not_yet: str) -> list[str]:
        listed = self._api.pages("ecs", "DescribeInstances", 100, instance_ids=json.dumps(list(ids)))
        for instance in listed:
            if instance.status in (not_yet, "Pending"):
                raise Conflict(f"machine {instance.instance_id} is {instance.status}.")
        return [str(instance.instance_id) for instance in listed if instance.status == state]

    def terminate_machines(self, ids: Sequence[str]) -> None:
        """Remove machines for good."""
        self._api.ecs("DeleteInstances", instance_id=list(ids), force=True)

    def tag_host_key(self, identity: str, key: str) -> None:
        """Keep a machine's host key in its tags."""
        self._tag(identity, {HOST_KEY: key})

    def _tag(self, identity: str, tags: Mapping[str, str]) -> None:
        self._api.ecs("TagResources", resource_type="instance", resource_id=[identity], tag=_tags(tags))

    # Images

    def images(self) -> list[CloudImage]:
        """Return our own images that carry our tag."""
        ours = {"image_owner_alias": "self", "tag": [{"key": IMAGE_OF}], "status": ",".join(IMAGE_STATES)}
        used = {str(i.image_id) for i in self._api.pages("ecs", "DescribeImages", 100, usage="instance", **ours)}
        return [_image_of(image, used) for image in self._api.pages("ecs", "DescribeImages", 100, **ours)]

    def create_image(self, identity: str, name: str, tags: Mapping[str, str]) -> str:
        """Begin to make an image of a stopped machine."""
        answer = self._api.ecs(
            "CreateImage",
            instance_id=identity,
            image_name=name,
            client_token=self.token("image", identity, name),
            tag=_tags(tags),
        )
        return str(answer.image_id)

    def delete_image(self, image: CloudImage) -> None:
        """Remove an image. Its snapshots get our tag before, so that they are found when it is gone."""
        if image.snapshots:
            tags = _tags({IMAGE_OF: image.image_of})
            ids = list(image.snapshots)
            self._api.ecs("TagResources", resource_type="snapshot", resource_id=ids, tag=tags)
        self._api.ecs("DeleteImage", image_id=image.id)

    def orphans(self) -> list[str]:
        """Return the snapshots with our tag that no image is stored in any more."""
        stored = {snapshot for image in self.images() for snapshot in image.snapshots}
        found = self._api.pages("ecs", "DescribeSnapshots", 100, tag=[{"key": IMAGE_OF}])
        return [str(snapshot.snapshot_id) for snapshot in found if snapshot.snapshot_id not in stored]

    def delete_snapshot(self, identity: str) -> None:
        """Remove a snapshot."""
        self._api.ecs("DeleteSnapshot", region=False, snapshot_id=identity)

    # Listings

    def _instances(self, cluster: str) -> list[Any]:
        found = self._api.pages("ecs", "DescribeInstances", 100, tag=_filter(cluster))
        return [instance for instance in found if _pairs(instance.tags).get(ROLE) in MACHINES]

    def _disks(self, cluster: str) -> list[Any]:
        # Root disks have the tags of their machines.
        return self._api.pages("ecs", "DescribeDisks", 100, tag=_filter(cluster, "volume"), disk_type="data")

    def _groups(self, cluster: str) -> list[Any]:
        return self._api.pages("ecs", "DescribeSecurityGroups", 100, tag=_filter(cluster, "security_group"))

    def _networks(self, cluster: str) -> list[Any]:
        return self._api.pages("vpc", "DescribeVpcs", 50, tag=_filter(cluster, "network"))

    def _subnets(self, cluster: str) -> list[Any]:
        return self._api.pages("vpc", "DescribeVSwitches", 50, tag=_filter(cluster, "subnet"))

    def _addresses(self, cluster: str) -> list[Any]:
        return self._api.pages("vpc", "DescribeEipAddresses", 100, tag=_filter(cluster, "address"))

    def _gateways(self, cluster: str) -> list[Any]:
        found = self._api.pages("vpc", "DescribeNatGateways", 50, tag=_filter(cluster, "nat"))
        return [gateway for gateway in found if gateway.status != "Deleting"]

    def _translations(self, gateway: str) -> list[Any]:
        return self._api.pages("vpc", "DescribeSnatTableEntries", 50, nat_gateway_id=gateway)

    def _placements(self, cluster: str) -> list[tuple[Any, str, str]]:
        """Return deployment sets, which can't have tags: their names and descriptions serve."""
        prefix = _placement_name(cluster, "")
        found = []
        for item in self._api.pages("ecs", "DescribeDeploymentSets", 50):
            name, description = str(item.deployment_set_name), str(item.deployment_set_description)
            if name.startswith(prefix) and description.startswith(f"{SPEC}="):
                found.append((item, name.removeprefix(prefix), description.removeprefix(f"{SPEC}=")))
        return found

    def _rules(self, group: str) -> list[Any]:
        rules = self._api.pages(
            "ecs", "DescribeSecurityGroupAttribute", 1000, security_group_id=group, direction="ingress"
        )
        return [rule for rule in rules if rule.direction == "ingress"]

    def _found_group(self, group: Any) -> Resource:
        identity, key = str(group.security_group_id), _pairs(group.tags).get(NAME, "")
        ours: set[str] = set()
        foreign: set[str] = set()
        for rule in self._rules(identity):
            (ours if rule.description == OURS else foreign).add(text_of_rule(rule, {identity: key}))
        settings = {"rules": frozenset(ours), "foreign_rules": frozenset(foreign)}
        return _found(identity, group.tags, {}, settings)

    # Small things

    def _token(self, desired: Desired) -> str:
        return self.token("create", desired.ref, desired.spec_hash)

    def _zone_of(self, spec: ClusterSpec) -> str:
        if not self._zone:
            used = {str(subnet.zone_id) for subnet in self._subnets(spec.cluster)}
            kinds = {machine.instance_type for machine in spec.machines}
            self._zone = choose_zone(self._offers(), kinds, CloudRequest(spec).cloud.zone, used)
        return self._zone


# Pure helpers


def choose_zone(offers: Mapping[str, set[str]], kinds: set[str], asked: str, used: set[str]) -> str:
    """Return the zone for the cluster: where it is already, the one asked for, or the first that has all kinds."""
    if len(used) == 1:
        (asked,) = used
    fitting = sorted(zone for zone, offered in offers.items() if kinds <= offered)
    if asked and asked not in offers:
        raise Invalid(f"zone {asked} doesn't exist.", f"Use one of {', '.join(sorted(offers))}.")
    if asked and asked not in fitting:
        missing = ", ".join(sorted(kinds - offers[asked]))
        elsewhere = f"Use one of {', '.join(fitting)}." if fitting else "Choose another instance_type."
        raise Capacity(f"zone {asked} doesn't offer {missing}.", elsewhere)
    if not fitting:
        raise Capacity(f"no zone offers all of {', '.join(sorted(kinds))}.", "Choose another instance_type.")
    return asked or fitting[0]


def newest_image(text: str, candidates: Mapping[str, tuple[str, str]]) -> str:
    """Return the id of the newest image. ``candidates`` has name and date of creation by id."""
    if not candidates:
        raise Invalid(
            f"image {text!r} is none of this region's.",
            "Give the id of an image, a pattern for names of your own ones, or one with its owner as in "
            "system/debian_12_*_x64_*.",
        )
    newest = max(date for _name, date in candidates.values())
    ids = sorted(identity for identity, (_name, date) in candidates.items() if date == newest)
    if len(ids) > 1:
        listed = ", ".join(f"{identity} ({candidates[identity][0]})" for identity in ids)
        raise Invalid(f"image {text!r} fits several that are equally new: {listed}.", "Give the id of one of them.")
    return ids[0]


def text_of_rule(rule: Any, groups: Mapping[str, str]) -> str:
    """Return a security rule in the words of :class:`Rule`; ``groups`` has the keys of groups by id."""
    first, _slash, last = str(rule.port_range or "-1/-1").partition("/")
    source = str(
        rule.source_cidr_ip
        or (f"group {groups.get(rule.source_group_id, rule.source_group_id)}" if rule.source_group_id else "")
        or getattr(rule, "ipv_6source_cidr_ip", "")
        or f"list {getattr(rule, 'source_prefix_list_id', '')}"
    )
    if rule.source_cidr_ip:
        source = str(ipaddress.ip_network(source, strict=False))
    text = str(Rule(str(rule.ip_protocol).lower(), source, int(first), int(last)))
    return text if str(rule.policy).lower() == "accept" else f"not {text}"


def _permission(rule: Rule, own_group: str) -> dict[str, str]:
    source = {"source_group_id": own_group} if rule.source.startswith("group ") else {"source_cidr_ip": rule.source}
    return {
        "ip_protocol": rule.protocol.upper(),
        "port_range": f"{rule.first_port}/{rule.last_port}",
        "policy": "accept",
        "priority": "1",
        "description": OURS,
        **source,
    }


def _likeness(item: Desired) -> str:
    """Return what machines have in common that one call can make."""
    return json.dumps(
        [item.attributes["set"], _base_hash(item.attributes), sorted(item.settings["groups"])], sort_keys=True
    )


def _with_key(item: Desired, key: str) -> Desired:
    """Return a machine that lets the operator's key in by its user data and not by a key pair."""
    attributes = {**item.attributes, "operator_key": key}
    depends = tuple(ref for ref in item.depends if ref != "key_pair/operator")
    return replace(item, attributes=attributes, depends=depends, spec_hash=_machine_hash(attributes))


def _machine_hash(attributes: Mapping[str, Any]) -> str:
    return spec_hash({"recipe": RECIPE, **{name: value for name, value in attributes.items() if name != "state"}})


def _base_hash(attributes: Mapping[str, Any]) -> str:
    """Return the hash of a machine without what differs within a batch."""
    return spec_hash({"recipe": RECIPE, **{k: v for k, v in attributes.items() if k not in ("address", "state")}})


def _tags_of_batch(group: Sequence[Desired]) -> dict[str, str]:
    """Return the tags that the machines of a group share."""
    tags = {key: value for key, value in tags_of(group[0]).items() if key not in (NAME, "Name")}
    own = {SPEC: _base_hash(group[0].attributes), OPERATOR_KEY: group[0].attributes["operator_key"]}
    return {**tags, **own, BATCH: f"{group[0].key} {machine_of(group[0]).address}"}


def _machine_tags(instance: Any) -> dict[str, str]:
    """Return a machine's tags with the name that its address gives it."""
    tags = _pairs(instance.tags)
    first, _space, address = tags.get(BATCH, "").partition(" ")
    try:
        number = int(ipaddress.IPv4Address(_private_address(instance))) - int(ipaddress.IPv4Address(address))
    except ValueError:
        return tags
    return {NAME: _successor(first, number), **tags}


def _successor(name: str, steps: int = 1) -> str:
    """Return the name that many machines further on: node2 after node1. A name without a number has none."""
    match = re.fullmatch(r"(.*?)(\d+)", name)
    if steps == 0:
        return name
    return f"{match[1]}{int(match[2]) + steps:0{len(match[2])}}" if match else ""


def _found_machine(instance: Any, attached: set[str]) -> Resource:
    tags = _machine_tags(instance)
    # To be seen whether it stops or goes away; node-power knows about its own.
    if instance.status == "Stopping" and tags[ROLE] != ELASTIC:
        raise Conflict(f"machine {tags.get(NAME, instance.instance_id)} is stopping.")
    attributes = machine_attributes(
        tags, _private_address(instance), str(instance.instance_type), STATES.get(str(instance.status), "pending")
    )
    attributes["operator_key"] = tags.get(OPERATOR_KEY, "")
    intact = tags.get(SPEC) == _base_hash(attributes)
    digest = _machine_hash(attributes) if intact else tags.get(SPEC, "")
    settings = {"groups": frozenset(groups_of(tags)), "attached": frozenset(attached)}
    return Resource(tags[ROLE], tags.get(NAME, ""), str(instance.instance_id), digest, attributes, settings)


def _image_of(image: Any, used: Container[str]) -> CloudImage:
    tags = _pairs(image.tags)
    disks = image.disk_device_mappings.disk_device_mapping if image.disk_device_mappings is not None else ()
    return CloudImage(
        id=str(image.image_id),
        name=str(image.image_name),
        image_of=tags.get(IMAGE_OF, ""),
        inputs=tags.get(INPUTS, ""),
        created=str(image.creation_time),
        state=IMAGE_STATES.get(str(image.status), "pending"),
        used=image.image_id in used,
        snapshots=tuple(str(disk.snapshot_id) for disk in disks or () if disk.snapshot_id),
    )


def _found(
    identity: Any, tags: Any, attributes: Mapping[str, Any], settings: Mapping[str, frozenset[str]] | None = None
) -> Resource:
    pairs = _pairs(tags)
    return Resource(
        pairs.get(ROLE, ""), pairs.get(NAME, ""), str(identity), pairs.get(SPEC, ""), attributes, settings or {}
    )


def _identity(kind: str, item: Any) -> str:
    field = {
        "network": "vpc_id",
        "subnet": "v_switch_id",
        "security_group": "security_group_id",
        "address": "allocation_id",
        "nat": "nat_gateway_id",
        "volume": "disk_id",
    }[kind]
    return str(getattr(item, field))


def _pairs(tags: Any) -> dict[str, str]:
    """Return tags as a mapping. ECS and VPC call their parts differently."""
    result = {}
    for tag in (tags.tag if tags is not None else None) or ():
        ecs = hasattr(tag, "tag_key")
        result[str(tag.tag_key if ecs else tag.key)] = str((tag.tag_value if ecs else tag.value) or "")
    return result


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


def _filter(cluster: str, kind: str = "") -> list[dict[str, str]]:
    which = {"key": CLUSTER, "value": cluster} if cluster else {"key": CLUSTER}
    return [which, *([{"key": ROLE, "value": kind}] if kind else [])]


def _private_address(instance: Any) -> str:
    addresses = instance.vpc_attributes.private_ip_address.ip_address
    return str(addresses[0]) if addresses else ""


def _public_address(instance: Any) -> str:
    eip = instance.eip_address.ip_address if instance.eip_address is not None else ""
    plain = instance.public_ip_address.ip_address if instance.public_ip_address is not None else ()
    return str(eip or (plain[0] if plain else ""))


def _title(desired: Desired) -> str:
    """Return the name that people see in the console of the cloud."""
    return f"{desired.request.spec.cluster}-{desired.kind.replace('_', '-')}-{desired.key}"


def _placement_name(cluster: str, set_name: str) -> str:
    # Names of clusters and sets have no colon, so no other cluster's name begins so.
    return f"turnkey:{cluster}:{set_name}"


def _gateway_address(subnet: str) -> str:
    """Return the address of the gateway to the world: below those of machines."""
    return str(ipaddress.IPv4Network(subnet)[2])


def _name_problems(desired: Sequence[Desired]) -> list[str]:
    """Return names and tags that this cloud doesn't take."""
    problems = []
    for item in sorted((item for item in desired if item.kind in MACHINES), key=lambda item: natural_key(item.key)):
        if len(item.key) < 2:
            problems.append(f"machine {item.key!r}: host names have at least 2 characters here.")
        problems += [
            f"machine {item.key}: {name.removeprefix('turnkey:')} is too long to be kept as a tag: "
            f"{len(value)} characters, at most {TAG_LENGTH}."
            for name, value in tags_of(item).items()
            if len(value) > TAG_LENGTH
        ]
    return problems
