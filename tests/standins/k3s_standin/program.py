# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the program k3s: the behaviour that the role has to deal with, and no Kubernetes.

It is as strict as k3s where the role could be wrong: unknown configuration keys end it, a token that doesn't fit is
refused, the CA is pinned, a node of the same name with another password is refused, agents wait for a server that is
down without an end, servers count their voters, objects are checked field by field, and a call that it doesn't know
fails. It leaves on the host what k3s leaves: processes that outlive the service, mounts, links, firewall rules.

Pods are processes in a network namespace and a chroot (pods.py says what is real there). Nothing of Kubernetes runs, so
what was tried with it shows that the product asks for the right things, and not that Kubernetes grants them.
"""

from __future__ import annotations

import base64
import contextlib
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

from k3s_standin import objects
from k3s_standin.basics import ETC, Refused, fatal, log, parse_documents, parse_yaml, registries, sh, write
from k3s_standin.pods import Kubelet, has_link, kubelet_token, run_pull, shim_of

VERSION = "v1.34.2+k3s1"  # replaced by tests that need another
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
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
LISTS = {"tls-san", "disable", "node-label", "node-taint"}


# --- configuration


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
    """Leave processes that outlive the service, a mount, links, a network namespace and rules, as k3s's own pods do."""
    shim = str(shim_of(data))
    running = any(
        os.path.realpath(link) == shim and b"standin-system" in (link.parent / "cmdline").read_bytes()
        for link in Path("/proc").glob("[0-9]*/exe")
        if os.access(link, os.R_OK)
    )
    if not running:
        argv = [shim, "-c", "sleep infinity & wait", "standin-system"]
        subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL)
    mounts = Path("/proc/self/mounts").read_text()
    for place in ("/run/k3s/containerd/standin/rootfs", "/var/lib/kubelet/pods/standin/volumes/token"):
        if f" {place} " not in mounts:
            Path(place).mkdir(parents=True, exist_ok=True)
            sh("mount", "-t", "tmpfs", "-o", "size=64k", "standin", place)
    if not has_link("cni0"):
        sh("ip", "link", "add", "cni0", "type", "bridge")
    if not has_link("vethstandin"):
        sh("ip", "link", "add", "vethstandin", "type", "veth", "peer", "name", "vethpeer")
        sh("ip", "link", "set", "vethstandin", "master", "cni0")
    if not Path("/run/netns/cni-standin").exists():
        sh("ip", "netns", "add", "cni-standin")
    Path("/var/lib/cni/networks/cbr0").mkdir(parents=True, exist_ok=True)
    Path("/run/flannel").mkdir(exist_ok=True)
    write(Path("/run/flannel/subnet.env"), "FLANNEL_NETWORK=10.42.0.0/16\n", 0o644)
    (data / "storage").mkdir(parents=True, exist_ok=True)
    if shutil.which("iptables-restore"):
        rules = "*filter\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\n-A KUBE-FORWARD -j ACCEPT\nCOMMIT\n"
        saved = subprocess.check_output(["iptables-save"], text=True)
        if "KUBE-FORWARD" not in saved:
            subprocess.run(["iptables-restore", "--noflush"], input=rules, text=True, check=True)


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
        self.pods: dict[str, dict] = {}
        self.quorum = not etcd
        self.secret, self.context = "", ssl.create_default_context()
        self.state: dict = {"rev": 0, "members": {}, "nodes": {}, "passwords": {}, "objects": {}}
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
                if not member["voter"] and name in up and time.time() - member["since"] > 1:
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

    def beat(self, name: str, pods: dict) -> None:
        self.beats[name] = time.time()
        self.pods[name] = pods

    def statuses(self) -> dict:
        """Return how the pods are, as their nodes told last."""
        return {uid: status for pods in self.pods.values() for uid, status in pods.items()}

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
    used = {node["spec"]["podCIDR"] for node in state["nodes"].values()}
    free = (cidr for cidr in (f"10.42.{number}.0/24" for number in range(256)) if cidr not in used)
    state["nodes"][name] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": pairs},
        "spec": {"taints": [objects.taint_of(str(taint)) for taint in taints], "podCIDR": next(free)},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": version},
        },
    }


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
        self.store.beat(name, {})
        return self.reply(200, "certificate")

    def beat(self, message: dict) -> None:
        store, name = self.store, message["name"]
        if name not in store.state["nodes"]:
            return self.reply(404, "the node was deleted")
        store.beat(name, message["pods"])
        if not message.get("passed_on"):
            for member in store.others().values():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    store.call(member["url"], "POST", "/standin/beat", {**message, "passed_on": True}, timeout=1)
        servers = [member["url"] for member in store.state["members"].values()]
        orders = objects.orders_for(store.state, store.statuses(), name)
        return self.reply(200, json.dumps({"servers": servers, "orders": orders}))

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
            asked = json.loads(body)
            try:
                code, text = Kubectl(store, kubelet_token(self.agent_secret), asked["stdin"]).answer(asked["argv"])
            except Refused as error:
                code, text = 1, str(error)
            return self.reply(200, json.dumps({"code": code, "text": text}))
        return self.reply(404, "404 page not found")


def same(config: dict) -> dict:
    """What has to be the same on every server."""
    keys = ("agent-token", "cluster-cidr", "service-cidr", "cluster-dns", "flannel-backend", "secrets-encryption")
    return {key: config.get(key) for key in keys}


# What each verb may be told: options that stand alone, those that take a value, how many words come behind the verb.
VERBS = {
    "get": ((), ("-n", "-l", "-o", "--raw", "--field-selector"), (0, 2)),
    "apply": ((), ("-f",), (0, 0)),
    "exec": ((), ("-n",), (1, 99)),
    "logs": ((), ("-n",), (1, 1)),
    "delete": (("--ignore-not-found", "--wait"), ("-n", "--wait", "--timeout"), (2, 2)),
    "label": (("--overwrite",), (), (3, 99)),
    "taint": (("--overwrite",), (), (3, 99)),
    "cordon": ((), (), (1, 1)),
    "uncordon": ((), (), (1, 1)),
    "drain": (("--ignore-daemonsets", "--delete-emptydir-data"), ("--timeout",), (1, 1)),
}


def read_command(argv: list[str]) -> tuple[str, list[str], dict]:
    """Return verb, words and options of a command line of kubectl; refuse what isn't known."""
    argv, options, words, verb = list(argv), {}, [], ""
    unsupported = Refused(f"stand-in k3s: unsupported: kubectl {' '.join(argv)}")
    if argv[:1] == ["-n"]:  # it may be in front
        options["-n"], argv = argv[1], argv[2:]
    verb = argv.pop(0) if argv else ""
    if verb not in VERBS:
        raise unsupported
    flags, valued, (least, most) = VERBS[verb]
    while argv:
        word = argv.pop(0)
        name, equals, value = word.partition("=")
        if word == "--" and verb == "exec":
            words += argv
            break
        if word.startswith("-") and word != "-":
            if equals and name in valued:
                options[name] = value
            elif word in flags:
                options[word] = "true"
            elif word in valued and argv:
                options[word] = argv.pop(0)
            else:
                raise unsupported
        else:
            words.append(word)
    if not least <= len(words) <= most:
        raise unsupported
    return verb, words, options


class Kubectl:
    """Does what kubectl is asked for, in a cluster that has its quorum."""

    def __init__(self, store: Store, token: str, stdin: str) -> None:
        self.store, self.token, self.stdin = store, token, stdin

    def answer(self, argv: list[str]) -> tuple[int, str]:
        verb, words, options = read_command(argv)
        if verb == "get":
            return 0, self.get(words, options)
        if verb == "apply":
            return 0, self.apply(options)
        if verb in ("exec", "logs"):
            return self.inside(options.get("-n", "default"), words[0], words[1:])
        if verb == "delete" and words[0] == "namespace":
            return self.delete_namespace(words[1], options)
        return 0, self.change_node(verb, words, options)

    def get(self, words: list[str], options: dict) -> str:
        store = self.store
        namespace, form = options.get("-n", "default"), options.get("-o", "")
        if options == {"--raw": "/readyz"} and not words:
            return "ok"
        if words == ["nodes"] and form == "json":
            return json.dumps({"apiVersion": "v1", "kind": "List", "items": store.nodes()})
        if words == ["events"] and (options.get("--field-selector"), form) == (
            "type=Warning",
            "custom-columns=:.message",
        ):
            return "\n".join(objects.events_of(store.state, store.statuses(), namespace))
        kind = objects.kind_called(words[0]) if words else ""
        if kind == "Pod":
            found = objects.pod_objects(store.state, store.statuses(), namespace, options.get("-l", ""))
        elif kind:
            found = [
                {**entry["object"], **({"status": entry["status"]} if "status" in entry else {})}
                for entry in objects.objects_of(store.state, kind, namespace if objects.KINDS[kind][2] else "")
            ]
        else:
            raise Refused("stand-in k3s: unsupported: kubectl get without a kind")
        if len(words) == 2:
            found = [item for item in found if item["metadata"]["name"] == words[1]]
            if not found:
                raise Refused(f'Error from server (NotFound): {objects.KINDS[kind][1]} "{words[1]}" not found')
        if form == "json":
            return json.dumps(found[0] if len(words) == 2 else {"apiVersion": "v1", "kind": "List", "items": found})
        if form == "jsonpath={.status.phase}" and len(words) == 2:
            return found[0]["status"].get("phase", "")
        raise Refused(f"stand-in k3s: unsupported: kubectl get {' '.join(words)} -o {form}")

    def apply(self, options: dict) -> str:
        if options.get("-f") != "-":
            raise Refused("stand-in k3s: unsupported: kubectl apply without -f -")
        given = json.loads(self.stdin)
        items = given["items"] if given.get("kind") == "List" else [given]
        for item in items:  # all are checked before one is taken, which kubectl doesn't promise
            objects.check(item)
        said: list[str] = []
        self.store.commit(lambda state: said.extend(objects.apply(state, item) for item in items))
        return "\n".join(said)

    def inside(self, namespace: str, name: str, argv: list[str]) -> tuple[int, str]:
        """Ask the node of a pod."""
        pods = objects.wanted_pods(self.store.state)
        pod = next((one for one in pods if (one["namespace"], one["name"]) == (namespace, name)), None)
        if pod is None or pod["node"] not in self.store.state["nodes"]:
            raise Refused(f'Error from server (NotFound): pods "{name}" not found')
        address = self.store.state["nodes"][pod["node"]]["status"]["addresses"][0]["address"]
        body = json.dumps({"namespace": namespace, "name": name, "argv": argv}).encode()
        request = urllib.request.Request(f"http://{address}:10250/", data=body)
        request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=70) as answer:
                found = json.loads(answer.read())
        except OSError as error:
            raise Refused(f"Error from server: error dialing backend: {address}:10250: {error}") from error
        return found["code"], found["out"] if found["code"] == 0 else found["out"] + found["err"]

    def delete_namespace(self, name: str, options: dict) -> tuple[int, str]:
        store = self.store
        if objects.key_of("Namespace", "", name) not in store.state["objects"]:
            if "--ignore-not-found" in options:
                return 0, ""
            raise Refused(f'Error from server (NotFound): namespaces "{name}" not found')
        uids = {pod["uid"] for pod in objects.wanted_pods(store.state) if pod["namespace"] == name}
        store.commit(lambda state: objects.delete_namespace(state, name))
        end = time.monotonic() + float(options.get("--timeout", "60s").rstrip("s"))
        while options.get("--wait", "true") == "true" and uids & set(store.statuses()):
            if time.monotonic() > end:
                raise Refused("error: timed out waiting for the condition")
            time.sleep(0.2)  # poll interval
        return 0, f'namespace "{name}" deleted'

    def change_node(self, verb: str, words: list[str], options: dict) -> str:
        store = self.store
        named = verb in ("label", "taint", "delete")
        name = words[1] if named else words[0]
        if named and words[0] not in ("node", "nodes"):
            raise Refused(f"stand-in k3s: unsupported: kubectl {verb} {' '.join(words)}")
        if name not in store.state["nodes"]:
            raise Refused(f'Error from server (NotFound): nodes "{name}" not found')
        here = [pod for pod in objects.wanted_pods(store.state) if pod["node"] == name]
        if verb == "drain":
            self.refuse_drain(here, options)

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
            for item in words[2:] if verb in ("label", "taint") else []:
                change_label_or_taint(verb, node, item, "--overwrite" in options)

        store.commit(change)
        return f"node/{name} {verb}ed"

    def refuse_drain(self, pods: list[dict], options: dict) -> None:
        if any(pod["daemon"] for pod in pods) and "--ignore-daemonsets" not in options:
            raise Refused("error: cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)")
        statuses = self.store.statuses()
        alone = [
            f"{pod['namespace']}/{pod['name']}"
            for pod in pods
            if not pod["daemon"] and statuses.get(pod["uid"], {}).get("phase") not in ("Succeeded", "Failed")
        ]
        if alone:
            raise Refused(
                "error: cannot delete Pods that declare no controller (use --force to override): " + ", ".join(alone)
            )


def change_label_or_taint(verb: str, node: dict, item: str, overwrite: bool) -> None:
    labels, taints = node["metadata"]["labels"], node["spec"]["taints"]
    if item.endswith("-") and verb == "label":
        labels.pop(item[:-1], None)
    elif verb == "label":
        key, _equals, value = item.partition("=")
        if labels.get(key, value) != value and not overwrite:
            raise Refused(f"error: '{key}' already has a value ({labels[key]}), and --overwrite is false")
        labels[key] = value
    else:
        new = objects.taint_of(item.removesuffix("-"))
        taints[:] = [old for old in taints if (old["key"], old["effect"]) != (new["key"], new["effect"])]
        taints += [] if item.endswith("-") else [new]


# --- manifests that lie in a server's directory


class Deployer:
    """Applies what lies in server/manifests. A file that goes takes nothing away, as with k3s."""

    def __init__(self, store: Store, place: Path) -> None:
        self.store, self.place = store, place
        self.seen: dict[str, str] = {}

    def look(self) -> None:
        for path in sorted(self.place.glob("*.yaml")) if self.place.is_dir() else []:
            try:
                content = path.read_text()
            except FileNotFoundError:
                continue
            digest = hashlib.sha256(content.encode()).hexdigest()
            skipped = path.with_name(path.name + ".skip").exists()
            if path.name.startswith(".") or skipped or self.seen.get(path.name) == digest:
                continue
            self.seen[path.name] = digest
            try:
                if not objects.NAME.fullmatch(path.stem):
                    raise Refused(f"{path.stem} is no name of an object")
                items = parse_documents(content)
                for item in items:
                    objects.check(item)
                self.store.commit(lambda state, items=items: [objects.apply(state, item) for item in items])
                log(f"applied {path.name}: {len(items)} objects")
            except (Refused, ValueError) as error:
                log(f"Failed to process config: failed to process {path}: {error}", "error")
            except Unavailable:
                del self.seen[path.name]


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
    url: str,
    path: str,
    context: ssl.SSLContext,
    user: str,
    secret: str,
    body: object = None,
    seconds: float = 10,
    **headers: str,
) -> bytes:
    request = urllib.request.Request(
        url + path, data=None if body is None else json.dumps(body).encode(), headers=headers
    )
    request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode())
    with urllib.request.urlopen(request, context=context, timeout=seconds) as answer:
        return answer.read()


def patient(
    url: str, path: str, context: ssl.SSLContext, user: str, secret: str, body: object = None, **headers: str
) -> bytes:
    """Ask until there is an answer; what is refused is fatal."""
    while True:
        try:
            return ask(url, path, context, user, secret, body, 10, **headers)
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
    (server / "manifests").mkdir(exist_ok=True, mode=0o700)
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
        sh("openssl", "req", "-x509", *NEW_KEY, "-days", "3650", "-subj", subject,
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
    deployer = Deployer(store, server / "manifests")
    threading.Thread(target=keep_looking, args=(store, deployer), daemon=True).start()
    kubelet = Kubelet(data, name, config, agent_secret)
    kubelet.start()
    keep_beating(kubelet, [local], store.context, "server", secret)


def keep_looking(store: Store, deployer: Deployer) -> None:
    while True:
        store.look_around()
        if store.quorum:
            deployer.look()
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
    sh("openssl", "req", *NEW_KEY, "-subj", "/CN=k3s", "-keyout", str(tls / "serving.key"),
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


def keep_beating(kubelet: Kubelet, urls: list[str], context: ssl.SSLContext, user: str, secret: str) -> None:
    """Say every second that the node is there and how its pods are, to any server that answers, and take its orders."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    known = list(urls)
    while True:
        for url in known:
            try:
                message = {"name": kubelet.name, "pods": dict(kubelet.statuses)}
                found = json.loads(ask(url, "/standin/beat", context, user, secret, message))
                known = list(dict.fromkeys([*urls, *found["servers"]])) if user == "node" else urls
                kubelet.orders = found["orders"]
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
    kubelet = Kubelet(data, node_name(config), config, secret)
    kubelet.start()
    keep_beating(kubelet, [url], context, user, secret)


# --- commands


def run_kubectl(argv: list[str]) -> None:
    data = current_data_dir()
    if not (ETC / "k3s.yaml").exists():
        sys.exit("The connection to the server localhost:8080 was refused - did you specify the right host or port?")
    secret = split_token((data / "server/token").read_text().strip())[2]
    context = ssl.create_default_context(cafile=str(data / "server/tls/server-ca.crt"))
    argv = [word for word in argv if not word.startswith("--request-timeout")]
    asked = {"argv": argv, "stdin": sys.stdin.read() if "-" in argv else ""}
    try:
        answer = ask("https://127.0.0.1:6443", "/standin/kubectl", context, "server", secret, asked, 200)
    except urllib.error.HTTPError as error:
        sys.exit(error.read().decode())
    except OSError as error:
        sys.exit(f"The connection to the server 127.0.0.1:6443 was refused: {error}")
    found = json.loads(answer)
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


def main() -> None:
    argv = sys.argv[1:]
    program = Path(sys.argv[0]).name
    if program in ("kubectl", "ctr", "crictl"):
        argv = [program, *argv]
    if not argv:
        sys.exit("stand-in k3s: say what to do")
    if argv[0] == "server":
        run_server(argv[1:])
    elif argv[0] == "agent":
        run_agent(argv[1:])
    elif argv[0] == "kubectl":
        run_kubectl(argv[1:])
    elif argv[0] == "etcd-snapshot":
        run_snapshot(argv[1:])
    elif argv[:2] == ["crictl", "pull"]:
        try:
            print(f"Image is up to date for {run_pull(argv[-1])}")
        except Refused as error:
            sys.exit(str(error))
    elif argv[:3] == ["ctr", "images", "ls"]:
        print("\n".join(json.loads((current_data_dir() / "agent/standin-images.json").read_text())))
    else:
        sys.exit(f"stand-in k3s: unsupported: {' '.join(argv)}")
