# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves from a server that a k3s cluster works: pods on every node, their network, names, a volume, an ingress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.nodes import parse_nodes

__all__ = ["CHECKS", "Acceptance", "manifests"]

NAME = "turnkey-acceptance"
CLEAN_UP = ["delete", "namespace", NAME, "--ignore-not-found", "--wait=true", "--timeout=120s"]
# (arguments of kubectl, stdin) -> (return code, stdout, stderr)
Kubectl = Callable[[Sequence[str], Optional[str]], tuple[int, str, str]]
# (url, value of the header Host) -> body
Fetch = Callable[[str, str], str]

SERVE = 'mkdir -p /tmp/www && echo "$NODE" >/tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www'


def manifests(image: str) -> list[dict[str, Any]]:
    """Return the objects that are made for the checks, all in one namespace. Pure."""

    def thing(kind: str, version: str = "v1", name: str = NAME, **rest: Any) -> dict[str, Any]:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAME}, **rest}

    labels = {"app": NAME}
    node = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {"name": "web", "image": image, "imagePullPolicy": "Always"}
    web = {
        **container,
        "command": ["sh", "-c", SERVE],
        "env": [node],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 2},
    }
    everywhere = [{"operator": "Exists"}]
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": NAME}}
    writer = {
        **container,
        "command": ["sh", "-c", "echo kept >/data/file && sync && cat /data/file"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    backend = {"service": {"name": NAME, "port": {"number": 8080}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}},
        thing(
            "DaemonSet",
            "apps/v1",
            spec={
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [web], "tolerations": everywhere, "terminationGracePeriodSeconds": 1},
                },
            },
        ),
        thing("Service", spec={"selector": labels, "ports": [{"port": 8080}]}),
        thing(
            "PersistentVolumeClaim",
            spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
        ),
        thing(
            "Pod",
            name=f"{NAME}-writer",
            spec={
                "containers": [writer],
                "volumes": [volume],
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
            },
        ),
        thing("Ingress", "networking.k8s.io/v1", spec={"rules": [{"host": NAME, "http": {"paths": [path]}}]}),
    ]


class Acceptance:
    """The checks, in an order in which each needs only what was checked before."""

    def __init__(
        self,
        kubectl: Kubectl,
        fetch: Fetch,
        nodes: Mapping[str, str],
        seconds: float,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """``nodes`` are the nodes that there must be, with their addresses."""
        self.kubectl, self.fetch, self.names, self.seconds, self.wait = kubectl, fetch, nodes, seconds, wait

    def ask(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what kubectl says, or raise what it complains about."""
        code, out, err = self.kubectl(arguments, stdin)
        if code:
            raise HpcError(f"kubectl {' '.join(arguments)}: {(err or out).strip()[-400:]}")
        return out

    def until(self, look: Callable[[], str]) -> None:
        """Look again and again until nothing is wrong any more; at the deadline raise what still is."""
        for _round in range(max(1, int(self.seconds / 2))):
            problem = look()
            if not problem:
                return
            self.wait(2)
        raise HpcError(problem)

    def pods(self) -> dict[str, dict[str, str]]:
        """Return name and address of the ready pod of each node."""
        found = json.loads(self.ask("-n", NAME, "get", "pods", "-l", f"app={NAME}", "-o", "json"))
        result = {}
        for pod in found["items"]:
            conditions = {entry["type"]: entry["status"] for entry in pod["status"].get("conditions", [])}
            if conditions.get("Ready") == "True":
                images = [entry.get("imageID", "") for entry in pod["status"].get("containerStatuses", [])]
                result[pod["spec"]["nodeName"]] = {
                    "name": pod["metadata"]["name"],
                    "address": pod["status"]["podIP"],
                    "digest": "".join(images).rpartition("@")[2],
                }
        return result

    def all_pods(self) -> dict[str, dict[str, str]]:
        """Return the ready pods, one a node; raise the nodes that have none."""
        pods = self.pods()
        lacking = sorted(set(self.names) - set(pods))
        if lacking:
            raise HpcError(f"not tried: no ready pod on {', '.join(lacking)}")
        return pods

    def get(self, pod: str, url: str) -> str:
        """Return what a pod gets from a URL."""
        return self.ask("-n", NAME, "exec", pod, "--", "wget", "-q", "-T", "10", "-O", "-", url).strip()

    def check_nodes(self) -> dict[str, Any]:
        """Every node of the inventory is there and ready."""
        nodes = parse_nodes(self.ask("get", "nodes", "-o", "json"))
        lacking = sorted(name for name in self.names if name not in nodes or not nodes[name].well)
        if lacking:
            raise HpcError(f"not ready, or no voter: {', '.join(lacking)}")
        return {"versions": {name: nodes[name].version for name in sorted(self.names)}}

    def check_pods(self) -> dict[str, Any]:
        """Every node pulls the image from the registry and runs a pod of it."""
        self.until(lambda: "" if set(self.names) <= set(self.pods()) else self.why_not())
        pods = self.all_pods()
        digests = sorted({pod["digest"] for pod in pods.values()})
        if len(digests) > 1:
            raise HpcError(f"the nodes pulled different images: {', '.join(digests)}")
        return {"pods": {node: pod["name"] for node, pod in sorted(pods.items())}, "digest": digests[0]}

    def why_not(self) -> str:
        """Say which nodes have no ready pod, and what the cluster says about it."""
        lacking = sorted(set(self.names) - set(self.pods()))
        events = self.ask(
            "-n", NAME, "get", "events", "--field-selector", "type=Warning", "-o", "custom-columns=:.message"
        )
        return f"no ready pod on {', '.join(lacking)}: {events.strip()[-600:]}"

    def check_pod_network(self) -> dict[str, Any]:
        """A pod on each node reaches the pod on the next one."""
        pods = self.all_pods()
        ring = sorted(pods)
        for index, node in enumerate(ring):
            target = ring[(index + 1) % len(ring)]
            answer = self.get(pods[node]["name"], f"http://{pods[target]['address']}:8080/")
            if answer != target:
                raise HpcError(f"the pod on {node} asked the one on {target}, and got {answer!r}")
        return {"ways": len(ring)}

    def check_names(self) -> dict[str, Any]:
        """A pod on each node finds a service by its name."""
        for node, pod in sorted(self.all_pods().items()):
            answer = self.get(pod["name"], f"http://{NAME}.{NAME}.svc:8080/")
            if answer not in self.names:
                raise HpcError(f"the pod on {node} asked the service, and got {answer!r}")
        return {"service": NAME}

    def check_volume(self) -> dict[str, Any]:
        """A pod gets a volume, and writes into it."""
        writer = f"{NAME}-writer"

        def look() -> str:
            phase = self.ask("-n", NAME, "get", "pod", writer, "-o", "jsonpath={.status.phase}").strip()
            return "" if phase == "Succeeded" else f"the pod that writes into a volume is {phase or 'unknown'}"

        self.until(look)
        written = self.ask("-n", NAME, "logs", writer).strip()
        if written != "kept":
            raise HpcError(f"the volume gave back {written!r}")
        return {"claim": NAME}

    def check_ingress(self) -> dict[str, Any]:
        """A node hands on a request from outside."""
        address = next(iter(self.names.values()))

        def look() -> str:
            try:
                answer = self.fetch(f"http://{address}/", NAME).strip()
            except OSError as exc:
                return f"http://{address}/: {exc}"
            return "" if answer in self.names else f"http://{address}/ answered {answer[:200]!r}"

        self.until(look)
        return {"address": address}

    def run(self, image: str) -> list[dict[str, Any]]:
        """Do all checks and clean up; return an entry for each, in which what was not tried counts as failed."""
        report = [self.one("nodes", self.check_nodes)]
        made = self.one("objects", lambda: self.make(image))
        report.append(made)
        for name in CHECKS[2:]:
            if made["ok"]:
                report.append(self.one(name, getattr(self, f"check_{name}")))
            else:
                report.append({"name": name, "ok": False, "seconds": 0.0, "detail": {"failure": "not tried"}})
        self.kubectl(CLEAN_UP, None)
        return report

    def make(self, image: str) -> dict[str, Any]:
        """Make the objects for the checks."""
        # What a run that was cut off has left would be found to work without having been pulled.
        self.ask(*CLEAN_UP)
        items = {"apiVersion": "v1", "kind": "List", "items": manifests(image)}
        self.ask("apply", "-f", "-", stdin=json.dumps(items))
        return {"namespace": NAME, "image": image}

    @staticmethod
    def one(name: str, check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the entry of one check."""
        begin = time.monotonic()
        try:
            detail, ok = check(), True
        except (HpcError, ValueError, KeyError) as exc:
            detail, ok = {"failure": str(exc)}, False
        return {"name": name, "ok": ok, "seconds": round(time.monotonic() - begin, 1), "detail": detail}


CHECKS = ("nodes", "objects", "pods", "pod_network", "names", "volume", "ingress")
