# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.acceptance import CHECKS, NAME, Acceptance, manifests

NODES = {"head": "10.0.0.10", "n1": "10.0.0.11"}


class Cluster:
    """Answers as kubectl does; ``broken`` names what doesn't work."""

    def __init__(self, broken=""):
        self.broken, self.asked = broken, []

    def __call__(self, arguments, stdin):
        self.asked.append(list(arguments))
        words = " ".join(arguments)
        if "apply" in words:
            return (1, "", "unsupported") if self.broken == "objects" else (0, json.loads(stdin)["kind"], "")
        if words == "get nodes -o json":
            return 0, json.dumps({"items": [self.node(name) for name in NODES]}), ""
        if "get pods" in words:
            return 0, json.dumps({"items": [self.pod(name) for name in NODES]}), ""
        if "get events" in words:
            return 0, 'Failed to pull image "busybox": certificate signed by unknown authority', ""
        if "wget" in words:
            return self.answer(words)
        if "jsonpath" in words:
            return 0, "Pending" if self.broken == "volume" else "Succeeded", ""
        return 0, "kept" if "logs" in words else "", ""

    def node(self, name):
        ready = not (self.broken == "nodes" and name == "n1")
        return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}

    def pod(self, node):
        ready = not (self.broken == "pods" and node == "n1")
        status = {"conditions": [{"type": "Ready", "status": str(ready)}], "podIP": f"10.42.{len(node)}.1"}
        digest = "sha256:other" if self.broken == "digests" and node == "n1" else "sha256:one"
        status["containerStatuses"] = [{"imageID": f"registry/busybox@{digest}"}]
        return {"metadata": {"name": f"web-{node}"}, "spec": {"nodeName": node}, "status": status}

    def answer(self, words):
        if "svc" in words:
            return (1, "", "bad address") if self.broken == "names" else (0, "head", "")
        if self.broken == "pod_network":
            return 1, "", "download timed out"
        return 0, "n1" if "10.42.2.1" in words else "head", ""


def prove(broken=""):
    cluster = Cluster(broken)

    def fetch(url, host):
        if broken == "ingress":
            raise OSError("connection refused")
        return "n1" if (url, host) == ("http://10.0.0.10/", NAME) else "404"

    found = Acceptance(cluster, fetch, NODES, 4, wait=lambda _seconds: None).run("docker.io/library/busybox:1.36")
    return cluster, {entry["name"]: entry for entry in found}


def test_a_cluster_in_which_all_works_passes_and_the_namespace_goes_again():
    cluster, found = prove()
    assert tuple(found) == CHECKS
    assert all(entry["ok"] for entry in found.values()), found
    assert cluster.asked[-1][:3] == ["delete", "namespace", NAME]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("nodes", "not ready, or no voter: n1"),
        ("pod_network", "download timed out"),
        ("names", "bad address"),
        ("volume", "is Pending"),
        ("ingress", "connection refused"),
    ],
)
def test_what_does_not_work_is_the_only_thing_that_fails_and_says_why(broken, told):
    cluster, found = prove(broken)
    assert [name for name, entry in found.items() if not entry["ok"]] == [broken]
    assert told in found[broken]["detail"]["failure"]
    assert cluster.asked[-1][0] == "delete"


def test_without_a_pod_on_a_node_nothing_passes_that_wants_pods():
    cluster, found = prove("pods")
    assert [name for name, entry in found.items() if not entry["ok"]] == ["pods", "pod_network", "names"]
    assert "no ready pod on n1: Failed to pull image" in found["pods"]["detail"]["failure"]
    assert found["names"]["detail"] == {"failure": "not tried: no ready pod on n1"}
    assert not any("wget" in arguments for arguments in cluster.asked)


def test_nodes_that_pulled_different_images_are_told():
    _cluster, found = prove("digests")
    assert found["pods"]["detail"]["failure"] == "the nodes pulled different images: sha256:one, sha256:other"


def test_what_a_run_that_was_cut_off_has_left_goes_before_anything_is_made():
    cluster, _found = prove()
    verbs = [arguments[0] for arguments in cluster.asked if arguments[0] in ("delete", "apply")]
    assert verbs == ["delete", "apply", "delete"]


def test_what_could_not_be_tried_does_not_count_as_passed():
    _cluster, found = prove("objects")
    assert [name for name, entry in found.items() if entry["ok"]] == ["nodes"]
    assert found["ingress"]["detail"] == {"failure": "not tried"}


def test_all_that_is_made_is_in_the_namespace_that_is_removed():
    made = manifests("i")
    assert made[0]["kind"] == "Namespace"
    assert {item["metadata"]["namespace"] for item in made[1:]} == {NAME}
