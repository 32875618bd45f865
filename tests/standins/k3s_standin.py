# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the program k3s: the behaviour that the role has to deal with, and no Kubernetes.

It is as strict as k3s where the role could be wrong: unknown configuration keys end it, a token that doesn't fit is
refused, the CA is pinned, a node of the same name with another password is refused, agents wait for a server that is
down without an end, servers count their voters, and a call that it doesn't know fails. It leaves on the host what k3s
leaves: processes that outlive the service, mounts, links. It runs no container, so nothing that was tried with it
proves that a pod runs.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.client
import http.server
import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

VERSION = "v1.34.2+k3s1"  # replaced by tests that need another
ETC = Path("/etc/rancher/k3s")
SERVER_KEYS = {
    "agent-token", "agent-token-file", "cluster-init", "tls-san", "advertise-address", "bind-address",
    "https-listen-port", "cluster-cidr", "service-cidr", "cluster-dns", "cluster-domain",
    "service-node-port-range", "flannel-backend", "disable", "write-kubeconfig-mode", "secrets-encryption",
    "embedded-registry", "kube-apiserver-arg", "kube-controller-manager-arg", "kube-scheduler-arg",
    "etcd-snapshot-schedule-cron", "etcd-snapshot-retention", "etcd-snapshot-dir", "etcd-arg",
    "disable-network-policy", "cluster-reset", "cluster-reset-restore-path",
}  # fmt: skip
AGENT_KEYS = {
    "token", "token-file", "server", "data-dir", "node-ip", "node-external-ip", "node-name", "node-label",
    "node-taint", "flannel-iface", "flannel-conf", "kubelet-arg", "kube-proxy-arg", "selinux",
    "prefer-bundled-bin", "protect-kernel-defaults", "resolv-conf", "default-runtime", "snapshotter",
    "private-registry", "system-default-registry", "disable-default-registry-endpoint", "lb-server-port", "v",
}  # fmt: skip
LISTS = {"tls-san", "disable", "node-label", "node-taint"}


def fatal(text: str) -> None:
    print(f'level=fatal msg="{text}"', file=sys.stderr, flush=True)
    sys.exit(1)


def log(text: str) -> None:
    print(f'level=info msg="{text}"', flush=True)


def sh(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.chmod(mode)
    temporary.replace(path)


# --- configuration


def scalar(text: str) -> object:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return {"true": True, "false": False, "[]": [], "{}": {}}.get(text, text)


def parse_yaml(path: Path) -> dict:
    """Read the part of YAML that a plain emitter writes: nested mappings, lists of texts."""
    lines = [line.rstrip() for line in path.read_text().splitlines()]
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#") and line != "---"]

    def block(index: int, indent: int) -> tuple[object, int]:
        if lines[index].lstrip().startswith("- "):
            items = []
            while index < len(lines) and re.match(rf" {{{indent}}}- ", lines[index]):
                items.append(scalar(lines[index].lstrip()[2:]))
                index += 1
            return items, index
        result: dict = {}
        while index < len(lines) and len(lines[index]) - len(lines[index].lstrip()) == indent:
            found = re.match(r"""\s*("[^"]+"|'[^']+'|[^\s"':][^:]*(?::\d+)?):(?:\s+(.*))?$""", lines[index])
            if not found:
                fatal(f"{path}: yaml: can't parse {lines[index]!r}")
            key, value = str(scalar(found[1])), found[2]
            index += 1
            if value:
                result[key] = scalar(value)
                continue
            deeper = len(lines[index]) - len(lines[index].lstrip()) if index < len(lines) else 0
            if index < len(lines) and (deeper > indent or lines[index].lstrip().startswith("- ")):
                result[key], index = block(index, deeper)
            else:
                result[key] = None
        return result, index

    if not lines or lines == ["{}"]:
        return {}
    found, index = block(0, 0)
    if index != len(lines):
        fatal(f"{path}: yaml: can't parse {lines[index]!r}")
    return found  # type: ignore[return-value]


def configuration(part: str, argv: list[str]) -> dict:
    result: dict = {}
    places = [ETC / "config.yaml", *sorted((ETC / "config.yaml.d").glob("*.yaml"))]
    for path in places:
        if path.exists():
            for key, value in parse_yaml(path).items():
                if key in LISTS and not isinstance(value, list):
                    value = [value]
                result[key] = value
    for argument in argv:
        found = re.match(r"--([\w-]+)(?:=(.*))?$", argument)
        if not found:
            fatal(f"unexpected argument {argument}")
        result[found[1]] = found[2] or True
    known = AGENT_KEYS | (SERVER_KEYS if part == "server" else set())
    unknown = sorted(set(result) - known)
    if unknown:
        fatal(f"flag provided but not defined: -{unknown[0]}")
    if result.get("token-file"):
        result["token"] = Path(str(result["token-file"])).read_text().strip()
    interface = result.get("flannel-iface")
    if interface and not Path(f"/sys/class/net/{interface}").exists():
        fatal(f"unable to find interface {interface}")
    if not any(line.split()[1] == "00000000" for line in Path("/proc/net/route").read_text().splitlines()[1:]):
        fatal("no default routes found in /proc/net/route")
    registries()
    return result


def registries() -> dict:
    path = ETC / "registries.yaml"
    found = parse_yaml(path) if path.exists() else {}
    unknown = set(found) - {"mirrors", "configs", "auths"}
    if unknown:
        fatal(f"registries.yaml: unknown field {sorted(unknown)[0]}")
    for host, entry in (found.get("configs") or {}).items():
        if set(entry or {}) - {"auth", "tls"}:
            fatal(f"registries.yaml: unknown field in configs.{host}")
    for host, entry in (found.get("mirrors") or {}).items():
        if set(entry or {}) - {"endpoint", "rewrite"}:
            fatal(f"registries.yaml: unknown field in mirrors.{host}")
    return found


def data_dir(config: dict) -> Path:
    return Path(str(config.get("data-dir") or "/var/lib/rancher/k3s"))


def current_data_dir() -> Path:
    """Where a command that is not the service finds the data."""
    for path in (ETC / "config.yaml", *sorted((ETC / "config.yaml.d").glob("*.yaml"))):
        if path.exists() and "data-dir" in (found := parse_yaml(path)):
            return Path(found["data-dir"])
    return Path("/var/lib/rancher/k3s")


def node_name(config: dict) -> str:
    return str(config.get("node-name") or socket.gethostname().lower())


def own_address(config: dict) -> str:
    return str(config.get("node-ip") or subprocess.check_output(["hostname", "-I"], text=True).split()[0])


def notify(message: str) -> None:
    place = os.environ.get("NOTIFY_SOCKET")
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + place[1:] if place[0] == "@" else place)
            channel.send(message.encode())


# --- what a node leaves on its host


def litter(data: Path) -> None:
    """Leave a process that outlives the service, a mount, links and a network namespace, as k3s does."""
    shim = data / "data/0123456789abcdef/bin/containerd-shim-runc-v2"
    if not shim.exists():
        shim.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2("/bin/sleep", shim)
        current = data / "data/current"
        if not current.is_symlink():
            current.symlink_to("0123456789abcdef")
    running = any(
        os.path.realpath(link) == str(shim) for link in Path("/proc").glob("[0-9]*/exe") if os.access(link, os.R_OK)
    )
    if not running:
        subprocess.Popen([str(shim), "infinity"], start_new_session=True, stdout=subprocess.DEVNULL)
    mounts = Path("/proc/self/mounts").read_text()
    for place in ("/run/k3s/containerd/standin/rootfs", "/var/lib/kubelet/pods/standin/volumes/token"):
        if f" {place} " not in mounts:
            Path(place).mkdir(parents=True, exist_ok=True)
            sh("mount", "-t", "tmpfs", "-o", "size=64k", "standin", place)
    if not Path("/sys/class/net/cni0").exists():
        sh("ip", "link", "add", "cni0", "type", "bridge")
        sh("ip", "link", "add", "vethstandin", "type", "veth", "peer", "name", "vethpeer")
        sh("ip", "link", "set", "vethstandin", "master", "cni0")
    if not Path("/run/netns/cni-standin").exists():
        sh("ip", "netns", "add", "cni-standin")
    Path("/var/lib/cni/networks/cbr0").mkdir(parents=True, exist_ok=True)
    Path("/run/flannel").mkdir(exist_ok=True)
    write(Path("/run/flannel/subnet.env"), "FLANNEL_NETWORK=10.42.0.0/16\n", 0o644)
    (data / "storage").mkdir(parents=True, exist_ok=True)


def import_images(data: Path) -> None:
    names: list[str] = []
    place = data / "agent/images"
    for path in sorted(place.glob("*")) if place.is_dir() else []:
        opener = {"zst": ["zstd", "-dc"], "gz": ["gzip", "-dc"], "tgz": ["gzip", "-dc"], "tar": ["cat"]}
        command = opener.get(path.name.rsplit(".", 1)[-1])
        if path.name.startswith(".") or not command:
            continue
        content = subprocess.run([*command, str(path)], capture_output=True, check=False).stdout
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for image in json.load(archive.extractfile("manifest.json")):  # type: ignore[arg-type]
                    names += image["RepoTags"] or []
        except (tarfile.TarError, KeyError, ValueError) as error:
            print(f'level=error msg="Error encountered while importing {path}: {error}"', flush=True)
    write(data / "agent/standin-images.json", json.dumps(names))


# --- the store of the servers


class Unavailable(Exception):
    """There is no quorum."""


class Store:
    """The cluster's state, on every server. A write is done when most voters have it."""

    def __init__(self, data: Path, name: str, etcd: bool) -> None:
        self.path = data / "server" / ("db/etcd/state.json" if etcd else "db/state.db")
        self.name, self.etcd = name, etcd
        self.lock = threading.RLock()
        self.beats: dict[str, float] = {}
        self.quorum = not etcd
        self.secret, self.context = "", ssl.create_default_context()
        self.state: dict = {"rev": 0, "members": {}, "nodes": {}, "passwords": {}}
        if self.path.exists():
            self.state = json.loads(self.path.read_text())

    def save(self) -> None:
        write(self.path, json.dumps(self.state))

    def call(self, url: str, method: str, path: str, body: object = None, timeout: float = 2.0) -> bytes:
        request = urllib.request.Request(
            url + path, method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("Authorization", "Basic " + base64.b64encode(f"server:{self.secret}".encode()).decode())
        with urllib.request.urlopen(request, context=self.context, timeout=timeout) as answer:
            return answer.read()

    def others(self) -> dict:
        return {name: member for name, member in self.state["members"].items() if name != self.name}

    def look_around(self) -> None:
        """Count the voters that answer; catch up with them; promote learners."""
        if not self.etcd:
            return
        voters = [name for name, member in self.state["members"].items() if member["voter"]]
        up = {self.name}
        newest = None
        for name, member in self.others().items():
            try:
                state = json.loads(self.call(member["url"], "GET", "/standin/state"))
            except (OSError, ValueError, http.client.HTTPException):
                continue
            up.add(name)
            if state["rev"] > self.state["rev"] and (newest is None or state["rev"] > newest["rev"]):
                newest = state
        if newest:
            with self.lock:
                if newest["rev"] > self.state["rev"]:
                    self.state = newest
                    self.save()
        self.quorum = len(up & set(voters)) * 2 > len(voters)
        leader = next((name for name in self.state["members"] if name in up and name in voters), "")
        if self.quorum and leader == self.name:
            for name, member in list(self.state["members"].items()):
                if not member["voter"] and name in up and time.time() - member["since"] > 2:
                    try:
                        self.commit(lambda state, name=name: state["members"][name].update(voter=True))
                    except Unavailable:
                        return

    def commit(self, change) -> object:
        with self.lock:
            state = json.loads(json.dumps(self.state))
            result = change(state)
            state["rev"] += 1
            voters = {name for name, member in self.state["members"].items() if member["voter"]}
            if self.etcd:
                done = {self.name}
                for name, member in self.others().items():
                    try:
                        self.call(member["url"], "PUT", "/standin/state", state)
                        done.add(name)
                    except (OSError, http.client.HTTPException):
                        pass
                if voters and len(done & voters) * 2 <= len(voters):
                    raise Unavailable("etcdserver: request timed out, no quorum")
            self.state = state
            self.save()
            return result

    def beat(self, name: str) -> None:
        self.beats[name] = time.time()

    def nodes(self) -> list[dict]:
        result = []
        for name, node in self.state["nodes"].items():
            node = json.loads(json.dumps(node))
            ready = time.time() - self.beats.get(name, 0) < 6
            conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
            if name in self.state["members"]:
                voter = self.state["members"][name]["voter"]
                conditions.append({"type": "EtcdIsVoter", "status": "True" if voter else "False"})
            node["status"]["conditions"] = conditions
            result.append(node)
        return result


def put_node(state: dict, name: str, address: str, version: str, labels: list, taints: list, roles: list) -> None:
    old = state["nodes"].get(name)
    if old:  # labels and taints count at the first registration only
        old["status"]["nodeInfo"]["kubeletVersion"] = version
        return
    pairs = dict(str(label).split("=", 1) for label in labels)
    pairs.update({"kubernetes.io/hostname": name, **{f"node-role.kubernetes.io/{role}": "true" for role in roles}})
    state["nodes"][name] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": pairs},
        "spec": {"taints": [taint_of(str(taint)) for taint in taints]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": version},
        },
    }


def taint_of(text: str) -> dict:
    rest, effect = text.rsplit(":", 1)
    key, mark, value = rest.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if mark else {})}


# --- the API


class Handler(http.server.BaseHTTPRequestHandler):
    store: Store
    config: dict
    secret: str
    agent_secret: str
    data: Path

    def log_message(self, *_args: object) -> None:
        pass

    def reply(self, code: int, body: str | bytes) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        try:
            self.answer()
        except Unavailable as error:
            self.reply(503, str(error))

    do_POST = do_PUT = do_GET

    def answer(self) -> None:
        tls = self.data / "server/tls"
        if self.path == "/cacerts":
            return self.reply(200, (tls / "server-ca.crt").read_bytes())
        if self.path == "/ping":
            return self.reply(200, "pong")
        given = self.headers.get("Authorization", "")
        user, secret = "", ""
        if given.startswith("Basic "):
            user, _colon, secret = base64.b64decode(given[6:]).decode().partition(":")
        is_server = user == "server" and secret == self.secret
        is_node = is_server or (user == "node" and secret in (self.secret, self.agent_secret))
        if not is_node:
            return self.reply(401, '{"kind":"Status","status":"Failure","message":"not authorized","code":401}')
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/v1-k3s/client-kubelet.crt":
            return self.register()
        if self.path == "/standin/beat":
            return self.beat(json.loads(body))
        if not is_server:
            return self.reply(403, "forbidden: an agent's token opens this door not")
        return self.serve_servers(body, tls)

    def register(self) -> None:
        name, password = self.headers.get("k3s-Node-Name"), self.headers.get("k3s-Node-Password")
        if not name or not password:
            return self.reply(400, "node name/password not set")
        if self.store.state["passwords"].get(name, password) != password:
            return self.reply(
                403, "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password'"
            )
        if not self.store.quorum:
            return self.reply(503, "etcdserver: no leader")
        details = json.loads(self.headers["k3s-Node-Details"])

        def change(state: dict) -> None:
            state["passwords"][name] = password
            put_node(state, name, **details)

        self.store.commit(change)
        self.store.beat(name)
        return self.reply(200, "certificate")

    def beat(self, message: dict) -> None:
        if message["name"] not in self.store.state["nodes"]:
            return self.reply(404, "the node was deleted")
        self.store.beat(message["name"])
        if not message.get("passed_on"):
            for member in self.store.others().values():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self.store.call(member["url"], "POST", "/standin/beat", {**message, "passed_on": True}, timeout=1)
        return self.reply(200, json.dumps([member["url"] for member in self.store.state["members"].values()]))

    def serve_servers(self, body: bytes, tls: Path) -> None:
        store = self.store
        if self.path == "/standin/state" and self.command == "GET":
            return self.reply(200, json.dumps(store.state))
        if self.path == "/standin/state":
            state = json.loads(body)
            with store.lock:
                if state["rev"] <= store.state["rev"]:
                    return self.reply(409, "an older revision")
                store.state = state
                store.save()
            return self.reply(200, "ok")
        if self.path == "/v1-k3s/server-bootstrap":
            files = {name: (tls / name).read_text() for name in ("server-ca.crt", "server-ca.key")}
            return self.reply(200, json.dumps({"files": files, "etcd": store.etcd, "same": same(self.config)}))
        if self.path == "/standin/join":
            joiner = json.loads(body)
            if not store.quorum:
                raise Unavailable("etcdserver: no leader")
            if any(not member["voter"] for member in store.state["members"].values()):
                return self.reply(503, "etcdserver: too many learner members in cluster")
            store.commit(
                lambda state: state["members"].update(
                    {joiner["name"]: {"url": joiner["url"], "voter": False, "since": time.time()}}
                )
            )
            return self.reply(200, json.dumps(store.state))
        if self.path == "/standin/kubectl":
            if not store.quorum:
                raise Unavailable("Error from server (Timeout): etcdserver: request timed out")
            code, text = kubectl(store, json.loads(body))
            return self.reply(200, json.dumps({"code": code, "text": text}))
        return self.reply(404, "404 page not found")


def same(config: dict) -> dict:
    """What has to be the same on every server."""
    keys = ("agent-token", "cluster-cidr", "service-cidr", "cluster-dns", "flannel-backend", "secrets-encryption")
    return {key: config.get(key) for key in keys}


def kubectl(store: Store, argv: list[str]) -> tuple[int, str]:
    flags = [word for word in argv if word.startswith("-") and word not in ("-o",)]
    words = [word for word in argv if word not in flags]
    verb = words[0] if words else ""
    if argv == ["get", "--raw", "/readyz"]:
        return 0, "ok"
    if words == ["get", "nodes", "-o", "json"]:
        return 0, json.dumps({"apiVersion": "v1", "kind": "List", "items": store.nodes()})
    target = {"label": 2, "taint": 2, "delete": 2}.get(verb, 1)
    name = words[target] if len(words) > target else ""
    if verb in ("label", "taint", "delete") and words[1] not in ("node", "nodes"):
        return 1, f"stand-in k3s: unsupported: kubectl {' '.join(argv)}"
    if verb not in ("label", "taint", "delete", "cordon", "uncordon", "drain"):
        return 1, f"stand-in k3s: unsupported: kubectl {' '.join(argv)}"
    if name not in store.state["nodes"]:
        return 1, f'Error from server (NotFound): nodes "{name}" not found'

    def change(state: dict) -> None:
        node = state["nodes"][name]
        if verb == "delete":
            del state["nodes"][name]
            state["passwords"].pop(name, None)
            state["members"].pop(name, None)
        elif verb in ("cordon", "drain"):
            node["spec"]["unschedulable"] = True
        elif verb == "uncordon":
            node["spec"].pop("unschedulable", None)
        for item in words[3:] if verb in ("label", "taint") else []:
            labels, taints = node["metadata"]["labels"], node["spec"]["taints"]
            if item.endswith("-") and verb == "label":
                labels.pop(item[:-1], None)
            elif verb == "label":
                labels.update([item.split("=", 1)])
            else:
                new = taint_of(item.removesuffix("-"))
                taints[:] = [old for old in taints if (old["key"], old["effect"]) != (new["key"], new["effect"])]
                taints += [] if item.endswith("-") else [new]

    store.commit(change)
    return 0, f"node/{name} {verb}ed"


# --- server and agent


def split_token(token: str) -> tuple[str, str, str]:
    """Return the CA's hash, the user and the secret; the first two are empty in a short token."""
    found = re.match(r"K10([0-9a-f]{64})::(\w+):(.+)$", token)
    return (found[1], found[2], found[3]) if found else ("", "", token)


def trusted(url: str, token: str) -> ssl.SSLContext:
    """Fetch the CA of ``url``, without an end if nobody answers, and check it against the token."""
    blind = ssl._create_unverified_context()
    while True:
        try:
            with urllib.request.urlopen(f"{url}/cacerts", context=blind, timeout=5) as answer:
                authority = answer.read()
            break
        except OSError as error:
            print(f'level=error msg="failed to get CA certs: {error}"', flush=True)
            time.sleep(1)  # poll interval
    pinned = split_token(token)[0]
    if pinned and hashlib.sha256(authority).hexdigest() != pinned:
        fatal("token CA hash does not match the Cluster CA certificate hash")
    if not pinned:
        print('level=warning msg="Cluster CA certificate is not trusted by the token"', flush=True)
    return ssl.create_default_context(cadata=authority.decode())


def ask(
    url: str, path: str, context: ssl.SSLContext, user: str, secret: str, body: object = None, **headers: str
) -> bytes:
    request = urllib.request.Request(
        url + path, data=None if body is None else json.dumps(body).encode(), headers=headers
    )
    request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode())
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        return answer.read()


def patient(
    url: str, path: str, context: ssl.SSLContext, user: str, secret: str, body: object = None, **headers: str
) -> bytes:
    """Ask until there is an answer; what is refused is fatal."""
    while True:
        try:
            return ask(url, path, context, user, secret, body, **headers)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            if error.code < 500:
                time.sleep(1)  # poll interval
                fatal(f"{path}: {error.code}: {text}")
            print(f'level=error msg="{path}: {text}"', flush=True)
        except OSError as error:
            print(f'level=error msg="{path}: {error}"', flush=True)
        time.sleep(1)  # poll interval


def password() -> str:
    path = Path("/etc/rancher/node/password")
    if not path.exists():
        write(path, secrets.token_hex(16))
    return path.read_text()


def headers_of(config: dict, roles: list[str]) -> dict[str, str]:
    details = {
        "address": own_address(config),
        "version": VERSION,
        "labels": config.get("node-label") or [],
        "taints": config.get("node-taint") or [],
        "roles": roles,
    }
    return {
        "k3s-Node-Name": node_name(config),
        "k3s-Node-Password": password(),
        "k3s-Node-Details": json.dumps(details),
    }


def is_etcd(config: dict, data: Path) -> bool:
    if (data / "server/db/etcd").exists() or config.get("cluster-init"):
        return True
    return bool(config.get("server")) and not (data / "server/db/state.db").exists()


def run_server(argv: list[str]) -> None:
    config = configuration("server", argv)
    data, name = data_dir(config), node_name(config)
    server, tls = data / "server", data / "server/tls"
    tls.mkdir(parents=True, exist_ok=True, mode=0o700)
    etcd = is_etcd(config, data)
    token = str(config.get("token") or "")
    _hash, _user, secret = split_token(token)
    old = server / "db/state.db"
    if etcd and old.exists() and config.get("cluster-init"):  # from SQLite to etcd
        write(server / "db/etcd/state.json", old.read_text())
        old.unlink()
    store = Store(data, name, etcd)
    stored = server / "token"
    if stored.exists() and not secret:
        secret = split_token(stored.read_text().strip())[2]
    secret = secret or secrets.token_hex(16)
    if store.path.exists() and stored.exists() and split_token(stored.read_text().strip())[2] != secret:
        fatal("bootstrap data already found and encrypted with different token")
    url = f"https://{own_address(config)}:6443"
    joining = bool(config.get("server")) and not store.path.exists()
    if config.get("cluster-reset"):
        reset_cluster(config, store, url)
        return
    if joining:
        join(config, store, tls, secret)
    elif not (tls / "server-ca.crt").exists():
        subject = f"/CN=k3s-server-ca@{int(time.time())}"
        sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", subject,
           "-keyout", str(tls / "server-ca.key"), "-out", str(tls / "server-ca.crt"))  # fmt: skip
    serving_certificate(config, tls)
    authority = (tls / "server-ca.crt").read_bytes()
    store.secret, store.context = secret, ssl.create_default_context(cadata=authority.decode())
    agent_secret = str(config.get("agent-token") or secret)
    pin = hashlib.sha256(authority).hexdigest()
    write(stored, f"K10{pin}::server:{secret}\n")
    write(server / "agent-token", f"K10{pin}::node:{agent_secret}\n")
    if not (server / "node-token").is_symlink():
        (server / "node-token").symlink_to("token")
    cluster = {
        "server": "https://127.0.0.1:6443",
        "certificate-authority-data": base64.b64encode(authority).decode(),
    }
    # JSON is YAML.
    kubeconfig = json.dumps(
        {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "default", "cluster": cluster}]}
    )
    write(ETC / "k3s.yaml", kubeconfig, int(str(config.get("write-kubeconfig-mode", "0600")), 8))
    handler = type("Bound", (Handler,), {"store": store, "config": config, "secret": secret, "data": data,
                                         "agent_secret": agent_secret})  # fmt: skip
    web = http.server.ThreadingHTTPServer(("0.0.0.0", 6443), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "serving.crt", tls / "serving.key")
    web.socket = context.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    store.state.setdefault("bootstrap", {name: (tls / name).read_text() for name in ("server-ca.crt", "server-ca.key")})
    become_member(config, store, url, joining, secret)
    roles = ["control-plane", "master", *(["etcd"] if etcd else [])]
    local = "https://127.0.0.1:6443"
    wait_for_quorum(store)
    patient(local, "/v1-k3s/client-kubelet.crt", store.context, "server", secret, **headers_of(config, roles))
    import_images(data)
    litter(data)
    notify("READY=1")
    log("k3s is up and running")
    threading.Thread(target=keep_looking, args=(store,), daemon=True).start()
    keep_beating(name, [local], store.context, "server", secret)


def keep_looking(store: Store) -> None:
    while True:
        store.look_around()
        time.sleep(1)  # poll interval


def wait_for_quorum(store: Store) -> None:
    while True:
        store.look_around()
        if store.quorum:
            return
        print('level=info msg="Waiting for other members to finish joining etcd cluster"', flush=True)
        time.sleep(1)  # poll interval


def become_member(config: dict, store: Store, url: str, joining: bool, secret: str) -> None:
    if joining:
        target = str(config["server"])
        body = {"name": store.name, "url": url}
        store.state = json.loads(patient(target, "/standin/join", store.context, "server", secret, body))
        store.save()
    elif store.etcd and not store.state["members"]:
        store.state["members"] = {store.name: {"url": url, "voter": True, "since": 0}}
        store.save()
    elif not store.path.exists():
        store.save()
    elif store.etcd:
        for member in store.others().values():
            try:
                state = json.loads(store.call(member["url"], "GET", "/standin/state"))
            except (OSError, ValueError, http.client.HTTPException):
                continue
            if store.name not in state["members"]:
                fatal("this server has been removed from the cluster: it must be reset and join again")


def join(config: dict, store: Store, tls: Path, secret: str) -> None:
    url, token = str(config["server"]), str(config.get("token") or "")
    if not url.startswith("https://") or not token:
        fatal("--server must be an https URL, and --token is required to join")
    context = trusted(url, token)
    found = json.loads(patient(url, "/v1-k3s/server-bootstrap", context, "server", secret))
    if not found["etcd"]:
        fatal("the other server has no etcd: it must be started with --cluster-init")
    theirs, ours = found["same"], same(config)
    different = sorted(key for key in ours if ours[key] != theirs[key])
    if different:
        fatal(f"critical configuration value mismatch between servers: {different[0]}")
    for name, text in found["files"].items():
        write(tls / name, text)


def serving_certificate(config: dict, tls: Path) -> None:
    given = config.get("tls-san") or []
    names = ["127.0.0.1", own_address(config), "localhost", node_name(config), *map(str, given)]
    kinds = [("IP:" if re.fullmatch(r"[\d.]+|.*:.*", name) else "DNS:") + name for name in dict.fromkeys(names)]
    write(tls / "extensions", f"subjectAltName={','.join(kinds)}\n")
    sh("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=k3s", "-keyout", str(tls / "serving.key"),
       "-out", str(tls / "serving.csr"))  # fmt: skip
    sh("openssl", "x509", "-req", "-in", str(tls / "serving.csr"), "-CA", str(tls / "server-ca.crt"), "-CAkey",
       str(tls / "server-ca.key"), "-CAcreateserial", "-days", "365", "-extfile", str(tls / "extensions"),
       "-out", str(tls / "serving.crt"))  # fmt: skip


def reset_cluster(config: dict, store: Store, url: str) -> None:
    source = config.get("cluster-reset-restore-path")
    if source:
        place = Path(str(source))
        if not place.exists():
            fatal(f"etcd: snapshot path does not exist: {place}")
        store.state = json.loads(place.read_text())
        for name, text in store.state["bootstrap"].items():
            write(data_dir(config) / "server/tls" / name, text)
    store.state["members"] = {store.name: {"url": url, "voter": True, "since": 0}}
    store.state["rev"] += 1
    store.save()
    log("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now.")


def keep_beating(name: str, urls: list[str], context: ssl.SSLContext, user: str, secret: str) -> None:
    """Say every second that the node is there, to any server that answers."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    known = list(urls)
    while True:
        for url in known:
            try:
                found = json.loads(ask(url, "/standin/beat", context, user, secret, {"name": name}))
                known = list(dict.fromkeys([*urls, *found])) if user == "node" else urls
                break
            except urllib.error.HTTPError as error:
                if error.code == 404:  # the node object was deleted: kubelet would register again after a restart
                    break
            except (OSError, ValueError, http.client.HTTPException):
                continue
        time.sleep(1)  # poll interval


def run_agent(argv: list[str]) -> None:
    config = configuration("agent", argv)
    data, url, token = data_dir(config), str(config.get("server") or ""), str(config.get("token") or "")
    if not url or not token:
        fatal("--server and --token are required")
    context = trusted(url, token)
    _hash, user, secret = split_token(token)
    user = "node"
    patient(url, "/v1-k3s/client-kubelet.crt", context, user, secret, **headers_of(config, []))
    import_images(data)
    litter(data)
    notify("READY=1")
    log("k3s agent is up and running")
    keep_beating(node_name(config), [url], context, user, secret)


# --- commands


def run_kubectl(argv: list[str]) -> None:
    data = current_data_dir()
    if not (ETC / "k3s.yaml").exists():
        sys.exit("The connection to the server localhost:8080 was refused - did you specify the right host or port?")
    secret = split_token((data / "server/token").read_text().strip())[2]
    context = ssl.create_default_context(cafile=str(data / "server/tls/server-ca.crt"))
    argv = [word for word in argv if not word.startswith("--request-timeout")]
    try:
        found = json.loads(ask("https://127.0.0.1:6443", "/standin/kubectl", context, "server", secret, argv))
    except urllib.error.HTTPError as error:
        sys.exit(error.read().decode())
    except OSError as error:
        sys.exit(f"The connection to the server 127.0.0.1:6443 was refused: {error}")
    print(found["text"], file=sys.stderr if found["code"] else sys.stdout)
    sys.exit(found["code"])


def run_snapshot(argv: list[str]) -> None:
    data = current_data_dir()
    place = data / "server/db/snapshots"
    state = data / "server/db/etcd/state.json"
    if not state.exists():
        fatal("etcd datastore disabled")
    names = [argv[index + 1] for index, word in enumerate(argv) if word == "--name"]
    if not argv or argv[0] != "save":
        fatal(f"stand-in k3s: unsupported: etcd-snapshot {' '.join(argv)}")
    name = f"{names[0] if names else 'on-demand'}-{socket.gethostname()}-{int(time.time())}"
    write(place / name, state.read_text())
    log(f"Snapshot {name} saved.")


def fetch_part(base: str, context: ssl.SSLContext, headers: dict, path: str) -> bytes:
    """Return what a registry has below ``base``."""
    request = urllib.request.Request(f"{base}/{path}", headers=headers)
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        return answer.read()


def run_pull(image: str) -> None:
    """Pull an image from where registries.yaml sends it, over TLS, with its password, and check every digest."""
    host, _slash, rest = image.partition("/")
    repository, _colon, tag = rest.rpartition(":")
    found = registries()
    mirrors = found.get("mirrors") or {}
    entry = mirrors.get(host) or mirrors.get("*") or {}
    endpoints = entry.get("endpoint") or [f"https://{host}"]
    for endpoint in endpoints:
        place = endpoint.split("://", 1)[1].split("/")[0]
        settings = (found.get("configs") or {}).get(place) or {}
        tls, auth = settings.get("tls") or {}, settings.get("auth") or {}
        context = ssl.create_default_context(cafile=tls.get("ca_file"))
        headers = {
            "Accept": "application/vnd.docker.distribution.manifest.v2+json,application/vnd.oci.image.manifest.v1+json"
        }
        if auth:
            pair = base64.b64encode(f"{auth['username']}:{auth['password']}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"

        get = functools.partial(fetch_part, f"{endpoint}/v2/{repository}", context, headers)

        try:
            manifest = json.loads(get(f"manifests/{tag}"))
            for blob in (manifest["config"], *manifest["layers"]):
                content = get(f"blobs/{blob['digest']}")
                if f"sha256:{hashlib.sha256(content).hexdigest()}" != blob["digest"]:
                    sys.exit(f"{blob['digest']}: wrong digest")
        except OSError as error:
            sys.exit(f'failed to pull image "{image}" from {endpoint}: {error}')
    print(f"Image is up to date for {image}")


def main() -> None:
    argv = sys.argv[1:]
    program = Path(sys.argv[0]).name
    if program in ("kubectl", "ctr", "crictl"):
        argv = [program, *argv]
    if not argv or argv[0] in ("--version", "-v"):
        print(f"k3s version {VERSION} (standin)\ngo version none")
    elif argv[0] == "server":
        run_server(argv[1:])
    elif argv[0] == "agent":
        run_agent(argv[1:])
    elif argv[0] == "kubectl":
        run_kubectl(argv[1:])
    elif argv[0] == "etcd-snapshot":
        run_snapshot(argv[1:])
    elif argv[:2] == ["crictl", "pull"]:
        run_pull(argv[-1])
    elif argv[:3] == ["ctr", "images", "ls"]:
        print("\n".join(json.loads((current_data_dir() / "agent/standin-images.json").read_text())))
    else:
        sys.exit(f"stand-in k3s: unsupported: {' '.join(argv)}")


main()
