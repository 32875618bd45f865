# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects that the stand-in's API takes: the kinds that the product uses, each checked field by field.

A field that is not listed here is refused, as a real API refuses one that it doesn't have. So is a reference to what is
not there. All functions work on the cluster's state, a dictionary, and do nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile

from k3s_standin.basics import Refused, parse_documents

TEXTS = {"*": str}
METADATA = {"name!": str, "namespace": str, "labels": TEXTS, "annotations": TEXTS}
CONTAINER = {
    "name!": str,
    "image!": str,
    "imagePullPolicy": str,
    "command!": [str],
    "env": [{"name!": str, "value": str, "valueFrom": {"fieldRef!": {"fieldPath!": str}}}],
    "ports": [{"containerPort!": int, "name": str, "protocol": str}],
    "readinessProbe": {"httpGet!": {"path": str, "port!": int}, "periodSeconds": int},
    "volumeMounts": [{"name!": str, "mountPath!": str}],
}
POD = {
    "containers!": [CONTAINER],
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
    "volumes": [{"name!": str, "persistentVolumeClaim!": {"claimName!": str}}],
}
BACKEND = {"service!": {"name!": str, "port!": {"number!": int}}}
PATHS = [{"path!": str, "pathType!": str, "backend!": BACKEND}]
TEMPLATE = {"metadata!": {"labels!": TEXTS, "annotations": TEXTS}, "spec!": POD}
CHART = {
    "targetNamespace": str,
    "createNamespace": bool,
    "chart": str,
    "chartContent": str,
    "valuesContent": str,
    "valuesSecrets": [{"name!": str, "keys": [str], "ignoreUpdates": bool}],
    "failurePolicy": str,
    "timeout": str,
    "takeOwnership": bool,
    "helmVersion": str,
    "jobImage": str,
    "backOffLimit": int,
}
CLAIM = {
    "accessModes!": [str],
    "resources!": {"requests!": {"storage!": str}},
    "storageClassName": str,
}
# kind: (its version of the API, its plural, whether it is in a namespace, its own fields)
KINDS = {
    "Namespace": ("v1", "namespaces", False, {}),
    "Secret": ("v1", "secrets", True, {"type": str, "data": TEXTS, "stringData": TEXTS}),
    "Service": ("v1", "services", True, {"spec!": {"selector!": TEXTS, "ports!": [{"port!": int}]}}),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims", True, {"spec!": CLAIM}),
    "Pod": ("v1", "pods", True, {"spec!": POD}),
    "DaemonSet": (
        "apps/v1",
        "daemonsets",
        True,
        {"spec!": {"selector!": {"matchLabels!": TEXTS}, "template!": TEMPLATE}},
    ),
    "Ingress": (
        "networking.k8s.io/v1",
        "ingresses",
        True,
        {"spec!": {"rules!": [{"host": str, "http!": {"paths!": PATHS}}]}},
    ),
    "HelmChart": ("helm.cattle.io/v1", "helmcharts", True, {"spec!": CHART}),
}
BUILT_IN = ("default", "kube-system", "kube-public", "kube-node-lease")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def problems_in(value: object, schema: object, place: str) -> list[str]:
    """Return what is wrong with a value, by the notation above: `!` marks what must be there, `*` any key."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{place}: must be an object"]
        fields = {name.rstrip("!"): inner for name, inner in schema.items()}
        found = [
            f"{place}.{name[:-1]}: Required value" for name in schema if name[-1] == "!" and name[:-1] not in value
        ]
        for name, inner in value.items():
            if name not in fields and "*" not in fields:
                found.append(f'strict decoding error: unknown field "{place}.{name}"')
            else:
                found += problems_in(inner, fields.get(name, fields.get("*")), f"{place}.{name}")
        return found
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{place}: must be a list"]
        return [
            problem for index, item in enumerate(value) for problem in problems_in(item, schema[0], f"{place}[{index}]")
        ]
    # The reader of YAML leaves numbers as texts; JSON has them as they are.
    number = schema is int and isinstance(value, str) and value.isdigit()
    good = isinstance(value, schema) and not (schema is int and isinstance(value, bool))  # type: ignore[arg-type]
    return [] if good or number else [f"{place}: {value!r} is no {schema.__name__}"]  # type: ignore[attr-defined]


def key_of(kind: str, namespace: str, name: str) -> str:
    return f"{kind}/{namespace}/{name}"


def objects_of(state: dict, kind: str, namespace: str = "") -> list[dict]:
    found = state.get("objects", {})
    return [found[key] for key in sorted(found) if key.startswith(f"{kind}/{namespace}" + ("/" if namespace else ""))]


def kind_called(word: str) -> str:
    """Return the kind that kubectl's user calls ``word``."""
    for kind, (_version, plural, _inside, _fields) in KINDS.items():
        if word.lower() in (kind.lower(), plural):
            return kind
    raise Refused(f'stand-in k3s: unsupported: the resource type "{word}"')


def check(item: object) -> None:
    """Refuse an object with anything that is not right, with all of it."""
    if not isinstance(item, dict) or item.get("kind") not in KINDS:
        raise Refused(f"stand-in k3s: unsupported: the kind {item.get('kind') if isinstance(item, dict) else item!r}")
    version, _plural, inside, fields = KINDS[item["kind"]]
    place = item["kind"]
    schema = {"apiVersion!": str, "kind!": str, "metadata!": METADATA, **fields}
    found = problems_in(item, schema, place)
    if not found:
        name = item["metadata"]["name"]
        if item["apiVersion"] != version:
            found.append(f'no matches for kind "{place}" in version "{item["apiVersion"]}"')
        if not NAME.fullmatch(name):
            found.append(f"{place}.metadata.name: Invalid value: {name!r}")
        if "namespace" in item["metadata"] and not inside:
            found.append(f"{place}: {name}: namespace forbidden")
    if not found and place == "DaemonSet":
        wanted = item["spec"]["selector"]["matchLabels"]
        if not wanted.items() <= item["spec"]["template"]["metadata"]["labels"].items():
            found.append("spec.template.metadata.labels: `selector` does not match template `labels`")
    if found:
        raise Refused("; ".join(found))


def taint_of(text: str) -> dict:
    rest, effect = text.rsplit(":", 1)
    key, mark, value = rest.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if mark else {})}


def tolerated(node: dict, spec: dict) -> bool:
    """Whether a pod may be put on a node, as far as taints go."""
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] == "PreferNoSchedule":
            continue
        for toleration in spec.get("tolerations") or []:
            key, operator = toleration.get("key"), toleration.get("operator", "Equal")
            if toleration.get("effect") not in (None, taint["effect"]):
                continue
            if (operator == "Exists" and key in (None, taint["key"])) or (
                operator == "Equal" and (key, toleration.get("value", "")) == (taint["key"], taint.get("value", ""))
            ):
                break
        else:
            return False
    return True


def apply(state: dict, item: dict) -> str:
    """Put an object into the state; return what kubectl says of it."""
    check(item)
    kind, metadata = item["kind"], item["metadata"]
    inside = KINDS[kind][2]
    namespace = metadata.setdefault("namespace", "default") if inside else ""
    everything = state.setdefault("objects", {})
    if inside and namespace not in BUILT_IN and key_of("Namespace", "", namespace) not in everything:
        raise Refused(f'Error from server (NotFound): namespaces "{namespace}" not found')
    key = key_of(kind, namespace, metadata["name"])
    old = everything.get(key)
    given = hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()
    if old and old["given"] == given and kind != "HelmChart":
        return f"{kind.lower()}/{metadata['name']} unchanged"
    if kind == "Secret":
        texts = item.pop("stringData", {})
        item.setdefault("data", {}).update(
            {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        )
        for name, text in item["data"].items():
            try:
                base64.b64decode(text, validate=True)
            except ValueError as error:
                raise Refused(f"Secret.data.{name}: illegal base64 data") from error
    uid = old["uid"] if old else hashlib.sha256(f"{key} {state['rev']}".encode()).hexdigest()[:10]
    new = {"given": given, "uid": uid, "object": item}
    if kind == "Service":
        used = {entry["ip"] for entry in objects_of(state, "Service") if "ip" in entry}
        free = (f"10.43.1.{number}" for number in range(1, 255))
        new["ip"] = old["ip"] if old else next(address for address in free if address not in used)
    if kind == "Pod":
        fits = [
            name
            for name, node in sorted(state["nodes"].items())
            if not node["spec"].get("unschedulable") and tolerated(node, item["spec"])
        ]
        new["node"] = old["node"] if old else (fits or [""])[-1]
    if kind == "HelmChart":
        new["status"] = install_chart(state, item)
    everything[key] = new
    return f"{kind.lower()}/{metadata['name']} {'configured' if old else 'created'}"


def install_chart(state: dict, item: dict) -> dict:
    """Do what the job of a HelmChart does before it would render anything, and return the object's status."""
    spec, name, own = item["spec"], item["metadata"]["name"], item["metadata"]["namespace"]
    found = []
    target = spec.get("targetNamespace", "default")
    known = (*BUILT_IN, *(entry["object"]["metadata"]["name"] for entry in objects_of(state, "Namespace")))
    if target not in known and not spec.get("createNamespace"):
        found.append(f'namespaces "{target}" not found')
    chart: dict = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(spec.get("chartContent") or "", validate=True))) as files:
            place = next(one for one in files.getnames() if re.fullmatch(r"[^/]+/Chart\.yaml", one))
            chart = parse_documents(files.extractfile(place).read().decode())[0]  # type: ignore[union-attr]
        if not {"name", "version"} <= set(chart):
            found.append("chart.metadata.name and version are required")
    except (StopIteration, tarfile.TarError, ValueError, Refused) as error:
        found.append(f"chartContent is no chart: {error}")
    values = []
    try:
        values += parse_documents(spec.get("valuesContent") or "{}")
    except Refused as error:
        found.append(f"valuesContent: {error}")
    for source in spec.get("valuesSecrets") or []:
        secret = state["objects"].get(key_of("Secret", own, source["name"]))
        data = secret["object"]["data"] if secret else {}
        lacking = [key for key in source.get("keys") or ["values.yaml"] if key not in data]
        if secret is None or lacking:
            found.append(f'secret "{own}/{source["name"]}" not found, or without {", ".join(lacking)}')
        else:
            values += [parse_documents(base64.b64decode(data[key]).decode())[0] for key in source.get("keys") or data]
    if any(not isinstance(one, dict) for one in values):
        found.append("values are no mapping")
    status = {"jobName": f"helm-install-{name}"}
    text = "; ".join(found)
    status["conditions"] = [{"type": "Failed", "status": "True" if found else "False", "message": text}]  # type: ignore[assignment]
    if not found:
        # So much of a release as tests may want to see, and no secret.
        keys = sorted({key for one in values for key in one})
        status["standin"] = {"chart": chart["name"], "version": str(chart["version"]), "values": keys}  # type: ignore[assignment]
    return status


def wanted_pods(state: dict) -> list[dict]:
    """Return the pods that there shall be, each with its node, which is empty if there is none for it."""
    result = []
    for entry in objects_of(state, "DaemonSet"):
        item = entry["object"]
        template = item["spec"]["template"]
        for node, details in sorted(state["nodes"].items()):
            if not tolerated(details, template["spec"]):
                continue
            uid = hashlib.sha256(f"{entry['uid']} {entry['given']} {node}".encode()).hexdigest()[:10]
            result.append(
                {
                    "uid": uid,
                    "name": f"{item['metadata']['name']}-{uid[:5]}",
                    "namespace": item["metadata"]["namespace"],
                    "labels": template["metadata"]["labels"],
                    "spec": template["spec"],
                    "node": node,
                    "daemon": True,
                }
            )
    for entry in objects_of(state, "Pod"):
        metadata = entry["object"]["metadata"]
        result.append(
            {
                "uid": entry["uid"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "labels": metadata.get("labels") or {},
                "spec": entry["object"]["spec"],
                "node": entry["node"],
                "daemon": False,
            }
        )
    for pod in result:
        for volume in pod["spec"].get("volumes") or []:
            claim = volume["persistentVolumeClaim"]["claimName"]
            found = state["objects"].get(key_of("PersistentVolumeClaim", pod["namespace"], claim))
            pod.setdefault("claims", {})[volume["name"]] = (
                f"pvc-{found['uid']}_{pod['namespace']}_{claim}" if found else ""
            )
    return result


def services_of(state: dict, statuses: dict) -> list[dict]:
    """Return the services with their addresses, and those of the ready pods behind them."""
    pods = wanted_pods(state)
    result = []
    for entry in objects_of(state, "Service"):
        item = entry["object"]
        metadata, spec = item["metadata"], item["spec"]
        ready = [
            statuses[pod["uid"]]["ip"]
            for pod in pods
            if pod["namespace"] == metadata["namespace"]
            and spec["selector"].items() <= pod["labels"].items()
            and statuses.get(pod["uid"], {}).get("ready")
        ]
        name = f"{metadata['name']}.{metadata['namespace']}.svc.cluster.local"
        ports = [int(port["port"]) for port in spec["ports"]]
        result.append({"name": name, "ip": entry["ip"], "ports": ports, "endpoints": ready})
    return result


def ingresses_of(state: dict) -> list[dict]:
    """Return where requests from outside go: a list of host, path, and the service with its port."""
    result = []
    for entry in objects_of(state, "Ingress"):
        namespace = entry["object"]["metadata"]["namespace"]
        for rule in entry["object"]["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                target = f"{service['name']}.{namespace}.svc.cluster.local"
                port = int(service["port"]["number"])
                result.append({"host": rule.get("host", ""), "path": path["path"], "service": target, "port": port})
    return result


def orders_for(state: dict, statuses: dict, node: str) -> dict:
    """Return what a node has to know and to do."""
    nodes = {
        name: {"cidr": other["spec"]["podCIDR"], "address": other["status"]["addresses"][0]["address"]}
        for name, other in state["nodes"].items()
    }
    return {
        "nodes": nodes,
        "pods": [pod for pod in wanted_pods(state) if pod["node"] == node],
        "services": services_of(state, statuses),
        "ingresses": ingresses_of(state),
        "released": state.get("released", []),
    }


def pod_objects(state: dict, statuses: dict, namespace: str, selector: str) -> list[dict]:
    """Return pods as the API has them."""
    wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
    result = []
    for pod in wanted_pods(state):
        if pod["namespace"] != namespace or not wanted.items() <= pod["labels"].items():
            continue
        now = statuses.get(pod["uid"], {})
        status = {
            "phase": now.get("phase", "Pending"),
            "conditions": [{"type": "Ready", "status": "True" if now.get("ready") else "False"}],
        }
        if now.get("ip"):
            status["podIP"] = now["ip"]
            image = pod["spec"]["containers"][0]["image"].rpartition(":")[0]
            status["containerStatuses"] = [{"imageID": f"{image}@{now['digest']}"}]
        result.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod["name"], "namespace": namespace, "labels": pod["labels"]},
                "spec": {**pod["spec"], **({"nodeName": pod["node"]} if pod["node"] else {})},
                "status": status,
            }
        )
    return result


def events_of(state: dict, statuses: dict, namespace: str) -> list[str]:
    """Return the messages of the warnings about the pods of a namespace."""
    result = []
    for pod in wanted_pods(state):
        if pod["namespace"] == namespace:
            if not pod["node"]:
                result.append(f"0/{len(state['nodes'])} nodes are available for {pod['name']}")
            elif statuses.get(pod["uid"], {}).get("message"):
                result.append(statuses[pod["uid"]]["message"])
    return result


def delete_namespace(state: dict, name: str) -> None:
    """Remove a namespace and all in it; note the volumes that go with it."""
    for key in [key for key in state.get("objects", {}) if key.split("/")[1] == name or key == f"Namespace//{name}"]:
        entry = state["objects"].pop(key)
        if key.startswith("PersistentVolumeClaim/"):
            volume = f"pvc-{entry['uid']}_{name}_{entry['object']['metadata']['name']}"
            state.setdefault("released", []).append(volume)
