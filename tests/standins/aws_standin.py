# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for EC2: moto, and before it what moto leaves out and what goes wrong in a cloud.

It answers HTTP. moto keeps the resources; this front adds what the service does and moto does not: tokens that make
a repeated request the same, addresses that are in use, instances that take their time, placement groups, consoles,
objects that are not known everywhere at once, dependencies. And it breaks things on order: throttling, no room, errors
before and after the work is done, replies that get lost. A green test shows that we fit this reading of EC2's
documentation, not that we fit EC2.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree

os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")

from moto.ec2.models import ec2_backends
from moto.moto_api._internal import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

ACCOUNT = "123456789012"
REGION = "eu-central-1"
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

HTTP_OF = {
    "RequestLimitExceeded": 503,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "InsufficientInstanceCapacity": 500,
}
"""Status of the errors that don't have 400."""

CREATING = re.compile(r"^(Create|Run|Allocate|Import)")
"""Actions whose new ids are young for a while."""

_ID = re.compile(r"^(vpc|subnet|igw|rtb|sg|key|eipalloc|nat|vol|i)-[0-9a-f]{8,17}$")
_ID_TAGS = {
    "vpcId",
    "subnetId",
    "internetGatewayId",
    "routeTableId",
    "groupId",
    "keyPairId",
    "allocationId",
    "natGatewayId",
    "volumeId",
    "instanceId",
}
NOT_FOUND = {
    "vpc": "InvalidVpcID.NotFound",
    "subnet": "InvalidSubnetID.NotFound",
    "igw": "InvalidInternetGatewayID.NotFound",
    "rtb": "InvalidRouteTableID.NotFound",
    "sg": "InvalidGroup.NotFound",
    "key": "InvalidKeyPair.NotFound",
    "eipalloc": "InvalidAllocationID.NotFound",
    "nat": "NatGatewayNotFound",
    "vol": "InvalidVolume.NotFound",
    "i": "InvalidInstanceID.NotFound",
}


class Refused(Exception):
    """An error of the service."""

    def __init__(self, code: str, message: str = "refused by the stand-in"):
        super().__init__(code)
        self.code, self.message = code, message


class AwsStandIn:
    """A server on the loopback address; use it as a context manager."""

    def __init__(self, visible_after: float = 0, boot_seconds: float = 0):
        self.visible_after = visible_after
        """Seconds until what was created is known to other requests."""
        self.boot_seconds = boot_seconds
        """Seconds that an instance is pending."""
        self.fault: Callable[[str, dict[str, str]], str] = lambda _action, _params: ""
        """Says what goes wrong with a request: an error code, `after:CODE` (the work is done), `lost`, or nothing."""
        self.launched: Callable[[str, dict[str, str]], None] = lambda _identity, _params: None
        self.imaged: Callable[[str], None] = lambda _identity: None
        self.terminated: Callable[[str], None] = lambda _identity: None
        self.public_addresses: dict[str, str] = {}
        """What is shown instead of the public addresses that moto invents."""
        self.console: Callable[[str], str] = console_of
        self.actions: list[str] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._clear()
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def _clear(self) -> None:
        self._replies: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._born: dict[str, float] = {}
        self._groups: dict[str, dict[str, str]] = {}
        self.actions.clear()
        self.requests.clear()

    def reset(self) -> None:
        """Forget everything: an account as new."""
        with self._lock:
            moto_api_backend.reset()
            self._clear()
        self.visible_after = self.boot_seconds = 0
        self.fault = lambda _action, _params: ""
        self.console = console_of

    @property
    def url(self) -> str:
        """Where it answers; AWS_ENDPOINT_URL takes it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def backend(self):
        """The model behind it, to look at without asking."""
        return ec2_backends[ACCOUNT][REGION]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # Serving

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        params = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = params.get("Action", "")
        if not environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4-HMAC-SHA256 Credential="):
            return _answer(start_response, 401, _error("AuthFailure", "not signed"))
        with self._lock:
            self.actions.append(action)
            self.requests.append((action, params))
            fault = self.fault(action, params)
            if fault and fault != "lost" and not fault.startswith("after:"):
                return _answer(start_response, HTTP_OF.get(fault, 400), _error(fault, "injected by the test"))
            try:
                status, reply = self._serve(action, params, environ, body)
            except Refused as error:
                status, reply = HTTP_OF.get(error.code, 400), _error(error.code, error.message)
        if fault == "lost":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return _answer(start_response, 200, b"")
        if fault:
            code = fault.removeprefix("after:")
            return _answer(start_response, HTTP_OF.get(code, 400), _error(code, "injected by the test, after the work"))
        return _answer(start_response, status, reply)

    def _serve(self, action, params, environ, body):
        token = params.get("ClientToken")
        digest = hashlib.sha256(repr(sorted(params.items())).encode()).hexdigest()
        if token and (action, token) in self._replies:
            before, reply = self._replies[action, token]
            if before != digest:
                raise Refused("IdempotentParameterMismatch")
            return 200, reply
        self._check_visible(action, params)
        if action == "CreateImage":  # moto refuses tags for snapshots
            kept = {k: v for k, v in params.items() if not k.startswith("TagSpecification.2.")}
            body = urlencode(kept).encode()
        special = getattr(self, f"_{action}", None)
        answer = special(params) if special else None
        if answer is None:
            answer = self._ask_moto(environ, body)
        status, reply = answer
        if status == 200:
            if CREATING.match(action):
                self._remember(action, params, reply)
            if token:
                self._replies[action, token] = (digest, reply)
            if action == "TerminateInstances":
                for name, value in params.items():
                    if name.startswith("InstanceId."):
                        self.terminated(value)
            if action == "CreateImage":
                self._tag_snapshots(reply)
            if action.startswith("Describe"):
                reply = self._seen(reply)
            for invented, shown in self.public_addresses.items():
                reply = reply.replace(f">{invented}<".encode(), f">{shown}<".encode())
        return status, reply

    def _ask_moto(self, environ, body):
        import io

        caught = {}

        def start(status, headers, _info=None):
            caught["status"] = int(status.split()[0])

        copy = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        parts = self._moto(copy, start)
        reply = b"".join(parts)
        if hasattr(parts, "close"):
            parts.close()
        return caught["status"], reply

    # What is young is not known everywhere

    def _young(self, identity: str) -> bool:
        return time.monotonic() - self._born.get(identity, -1e9) < self.visible_after

    def settle(self) -> None:
        """Wait until all that was made is known everywhere."""
        while any(self._young(identity) for identity in list(self._born)):
            time.sleep(0.01)  # poll interval

    def _check_visible(self, action, params):
        for value in params.values():
            match = _ID.match(value)
            if match and self._young(value):
                raise Refused(NOT_FOUND[match[1]], f"{value} does not exist")

    def _remember(self, action, params, reply):
        root = ElementTree.fromstring(reply)
        for element in root.iter():
            name = element.tag.rpartition("}")[2]
            if name in _ID_TAGS and element.text and element.text not in self._born and _ID.match(element.text):
                kind = element.text.partition("-")[0]
                if action != "RunInstances" or kind == "i":
                    self._born.setdefault(element.text, time.monotonic())
                if action == "RunInstances" and kind == "i":
                    self.launched(element.text, params)

    def _seen(self, reply: bytes) -> bytes:
        now = time.monotonic()
        longest = max(self.visible_after, self.boot_seconds)
        young = [identity for identity, born in self._born.items() if now - born < longest]
        if not young or not any(identity.encode() in reply for identity in young):
            return reply
        root = ElementTree.fromstring(reply)
        for parent in list(root.iter()):
            for item in [child for child in parent if child.tag.endswith("}item")]:
                own = [e.text for e in item if e.tag.rpartition("}")[2] in _ID_TAGS and _ID.match(e.text or "")]
                # The first id of an item is its own.
                if own and self._young(own[0]):
                    parent.remove(item)
                elif own and own[0].startswith("i-") and now - self._born.get(own[0], 0) < self.boot_seconds:
                    state = item.find(f"{{{NAMESPACE}}}instanceState/{{{NAMESPACE}}}name")
                    if state is not None and state.text == "running":
                        state.text = "pending"
        ElementTree.register_namespace("", NAMESPACE)
        return ElementTree.tostring(root)

    # What the service does and moto doesn't

    def _RunInstances(self, params):
        address = next((v for k, v in params.items() if k.endswith("PrivateIpAddress")), "")
        for instance in self._instances():
            same = instance.private_ip == address and instance.subnet_id == params.get("NetworkInterface.1.SubnetId")
            if same and instance.state != "terminated":
                raise Refused("InvalidIPAddress.InUse", f"Address {address} is in use.")
        if len(base64.b64decode(params.get("UserData", ""))) > 16384:
            raise Refused("InvalidParameterValue", "User data is limited to 16384 bytes")
        name = next((v for k, v in params.items() if k == "Placement.GroupName"), "")
        if name and name not in self._groups:
            raise Refused("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")

    def _instances(self):
        return [item for reservation in self.backend.reservations.values() for item in reservation.instances]

    def _alive(self):
        return [instance for instance in self._instances() if instance.state != "terminated"]

    def _DeleteSubnet(self, params):
        identity = params["SubnetId"]
        if any(instance.subnet_id == identity for instance in self._alive()) or any(
            nat.subnet_id == identity and nat.state not in ("deleted",) for nat in self.backend.nat_gateways.values()
        ):
            raise Refused("DependencyViolation", f"The subnet '{identity}' has dependencies and cannot be deleted.")

    def _DeleteSecurityGroup(self, params):
        identity = params.get("GroupId", "")
        used = {group.id for instance in self._alive() for nic in instance.nics.values() for group in nic.group_set}
        others = [group for groups in self.backend.groups.values() for group in groups.values() if group.id != identity]
        used |= {rule.source_group.get("GroupId") for group in others for rule in group.ingress_rules}
        if identity in used:
            raise Refused("DependencyViolation", f"resource {identity} has a dependent object")

    def _DetachInternetGateway(self, params):
        # Public addresses must be gone before.
        vpc = params["VpcId"]
        if any(instance.vpc_id == vpc and instance.public_ip for instance in self._alive()):
            raise Refused("DependencyViolation", f"Network {vpc} has some mapped public address(es).")

    def _ReleaseAddress(self, params):
        identity = params["AllocationId"]
        for nat in self.backend.nat_gateways.values():
            if nat.state != "deleted" and any(a.get("allocationId") == identity for a in nat.address_set):
                raise Refused("InvalidIPAddress.InUse", f"{identity} is in use")

    def _CreateImage(self, params):
        if any(image.name == params["Name"] and image.owner_id == ACCOUNT for image in self.backend.amis.values()):
            raise Refused("InvalidAMIName.Duplicate", f"AMI name {params['Name']} is already in use")
        instance = self.backend.get_instance(params["InstanceId"])
        if instance.state not in ("running", "stopped"):
            raise Refused("IncorrectState", "The instance is not running or stopped")
        self.imaged(instance.id)

    def _tag_snapshots(self, reply):
        identity = next(e.text for e in ElementTree.fromstring(reply).iter() if e.tag.endswith("}imageId"))
        image = self.backend.amis[identity]
        tags = {one["key"]: one["value"] for one in image.get_tags()}
        self.backend.create_tags([image.ebs_snapshot.id], tags)

    def _DeleteSnapshot(self, params):
        identity = params["SnapshotId"]
        if any(image.ebs_snapshot.id == identity for image in self.backend.amis.values() if image.ebs_snapshot):
            raise Refused("InvalidSnapshot.InUse", f"The snapshot {identity} is currently in use by an image")

    def _GetConsoleOutput(self, params):
        text = base64.b64encode(self.console(params["InstanceId"]).encode()).decode()
        inner = f"<instanceId>{params['InstanceId']}</instanceId><output>{text}</output>"
        return 200, _reply("GetConsoleOutput", inner)

    def _CreatePlacementGroup(self, params):
        if params["GroupName"] in self._groups:
            raise Refused("InvalidPlacementGroup.Duplicate", f"The Placement Group '{params['GroupName']}' exists.")
        tags = {}
        for number in range(1, 50):
            key = params.get(f"TagSpecification.1.Tag.{number}.Key")
            if key is None:
                break
            tags[key] = params[f"TagSpecification.1.Tag.{number}.Value"]
        self._groups[params["GroupName"]] = {"strategy": params["Strategy"], **tags}
        return 200, _reply("CreatePlacementGroup", "<return>true</return>")

    def _DescribePlacementGroups(self, params):
        items = ""
        for name, group in self._groups.items():
            wanted = params.get("Filter.1.Name", "").removeprefix("tag:")
            if wanted and group.get(wanted) != params.get("Filter.1.Value.1"):
                continue
            tags = "".join(
                f"<item><key>{key}</key><value>{value}</value></item>"
                for key, value in group.items()
                if key != "strategy"
            )
            items += (
                f"<item><groupName>{name}</groupName><strategy>{group['strategy']}</strategy><state>available</state>"
                f"<tagSet>{tags}</tagSet></item>"
            )
        return 200, _reply("DescribePlacementGroups", f"<placementGroupSet>{items}</placementGroupSet>")

    def _DeletePlacementGroup(self, params):
        if params["GroupName"] not in self._groups:
            raise Refused("InvalidPlacementGroup.Unknown", "it is unknown")
        del self._groups[params["GroupName"]]
        return 200, _reply("DeletePlacementGroup", "<return>true</return>")

    # Looking at it

    def left(self) -> dict[str, list[str]]:
        """Return what there is beyond a new account, by kind."""
        backend = self.backend
        default = {vpc.id for vpc in backend.vpcs.values() if vpc.is_default in (True, "true")}
        vpcs = [vpc.id for vpc in backend.vpcs.values() if vpc.id not in default]
        found = {
            "vpc": vpcs,
            "subnet": [s.id for zone in backend.subnets.values() for s in zone.values() if s.vpc_id not in default],
            "gateway": list(backend.internet_gateways),
            "routes": [t.id for t in backend.route_tables.values() if t.vpc_id not in default],
            "group": [
                group.id
                for vpc, groups in backend.groups.items()
                if vpc in vpcs or (vpc and vpc not in default)
                for group in groups.values()
            ],
            "key": list(backend.key_pairs),
            "address": [a.allocation_id for a in backend.addresses],
            "nat": [n.id for n in backend.nat_gateways.values() if n.state != "deleted"],
            "volume": [v.id for v in backend.volumes.values()],
            "instance": [i.id for i in self._alive()],
            "placement": list(self._groups),
        }
        return {kind: ids for kind, ids in found.items() if ids}


class _Quiet(MotoRequestHandler):
    def log(self, *_arguments):
        pass


def console_of(identity: str) -> str:
    """Return the console of an instance that has booted, with a host key made from its id."""
    return f"[  OK  ] Started ssh.service\n{keys_block(host_key(identity))}\ncloud-init finished"


def keys_block(key: str) -> str:
    """Return what cloud-init prints about a host key."""
    return (
        "-----BEGIN SSH HOST KEY KEYS-----\n"
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY= root@machine\n"
        f"{key} root@machine\n"
        "-----END SSH HOST KEY KEYS-----"
    )


def host_key(identity: str) -> str:
    """Return a host key that only this instance has."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + hashlib.sha256(identity.encode()).digest()
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def _reply(action: str, inner: str) -> bytes:
    text = f'<{action}Response xmlns="{NAMESPACE}"><requestId>{uuid.uuid4()}</requestId>{inner}</{action}Response>'
    return text.encode()


def _error(code: str, message: str) -> bytes:
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        f"<RequestID>{uuid.uuid4()}</RequestID></Response>"
    ).encode()


def _answer(start_response, status: int, reply: bytes):
    start_response(f"{status} X", [("Content-Type", "text/xml"), ("Content-Length", str(len(reply)))])
    return [reply]
