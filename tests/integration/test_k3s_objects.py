# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the product asks of Kubernetes, held against the fields that the stand-in knows. No Kubernetes runs here."""

from __future__ import annotations

import base64
import copy
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.acceptance import NAME, manifests

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "standins"))
from k3s_standin import objects
from k3s_standin.basics import Refused

IMAGE = "docker.io/library/busybox:1.36"
KINDS = ("Namespace", "DaemonSet", "Service", "PersistentVolumeClaim", "Pod", "Ingress")
DETAILS = {
    "spec": {"podCIDR": "10.42.0.0/24"},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
}


def cluster(taints=()):
    nodes = {name: copy.deepcopy(DETAILS) for name in ("head", "n1")}
    nodes["head"]["spec"]["taints"] = list(taints)
    return {"rev": 1, "nodes": nodes, "objects": {}}


def test_the_objects_of_the_acceptance_run_are_taken_and_become_a_pod_on_every_node():
    state = cluster([{"key": "only", "effect": "NoSchedule"}])
    for item in manifests(IMAGE):
        assert objects.apply(state, copy.deepcopy(item)).endswith(" created")
    pods = objects.wanted_pods(state)
    assert sorted((pod["daemon"], pod["node"]) for pod in pods) == [(False, "n1"), (True, "head"), (True, "n1")]
    (volume,) = next(pod for pod in pods if not pod["daemon"])["claims"].values()
    assert volume.endswith(f"_{NAME}_{NAME}")
    assert objects.apply(state, manifests(IMAGE)[1]).endswith(" unchanged")
    objects.delete_namespace(state, NAME)
    assert (state["objects"], state["released"]) == ({}, [volume])


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("DaemonSet", lambda item: item["spec"].update(selectors={}), 'unknown field "DaemonSet.spec.selectors"'),
        ("DaemonSet", lambda item: item.update(apiVersion="v1"), 'no matches for kind "DaemonSet" in version "v1"'),
        ("DaemonSet", lambda item: item["spec"]["selector"]["matchLabels"].update(app="x"), "does not match template"),
        ("Service", lambda item: item["spec"].pop("ports"), "Service.spec.ports: Required value"),
        ("Service", lambda item: item["spec"]["ports"][0].update(port="web"), "is no int"),
        ("Ingress", lambda item: item["metadata"].update(name="under_score"), "Invalid value: 'under_score'"),
        ("Pod", lambda item: item["metadata"].update(namespace="nowhere"), 'namespaces "nowhere" not found'),
        ("Namespace", lambda item: item["metadata"].update(namespace="default"), "namespace forbidden"),
    ],
)
def test_what_an_api_would_refuse_is_refused(kind, change, told):
    state = cluster()
    items = dict(zip(KINDS, json.loads(json.dumps(manifests(IMAGE)))))
    if kind != "Namespace":
        objects.apply(state, items["Namespace"])
    change(items[kind])
    with pytest.raises(Refused, match=told.replace("[", r"\[").replace("(", r"\(")):
        objects.apply(state, items[kind])


def chart(**spec):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo("hub/Chart.yaml")
        text = b"apiVersion: v2\nname: hub\nversion: 1.0.0\n"
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    given = {"chartContent": base64.b64encode(content.getvalue()).decode(), "valuesContent": '{"a": 1}', **spec}
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": "hub", "namespace": "kube-system"},
        "spec": given,
    }


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, ""),
        ({"targetNamespace": "hub"}, 'namespaces "hub" not found'),
        ({"targetNamespace": "hub", "createNamespace": True}, ""),
        ({"chartContent": "bm90IGEgY2hhcnQ="}, "chartContent is no chart"),
        ({"valuesContent": "a: [1"}, ""),
        ({"valuesContent": "{a"}, "valuesContent: yaml"),
        ({"valuesSecrets": [{"name": "none", "keys": ["values.yaml"]}]}, 'secret "kube-system/none" not found'),
    ],
)
def test_a_chart_fails_with_what_its_job_would_fail_with(spec, told):
    state = cluster()
    objects.apply(state, chart(**spec))
    (entry,) = objects.objects_of(state, "HelmChart")
    (condition,) = entry["status"]["conditions"]
    assert condition["status"] == ("True" if told else "False")
    assert told in condition["message"]
