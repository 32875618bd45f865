# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of k3s: what the role sets, what a site may add, and what is wrong with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.nodes import check_taints
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.versions import parse_version

__all__ = ["build_files"]

# As `k3s agent --help` and `k3s server --help` list them.
AGENT_KEYS = """
containerd-config-template data-dir debug default-runtime disable-apiserver-lb
disable-default-registry-endpoint docker enable-pprof flannel-cni-conf flannel-conf flannel-iface
image-credential-provider-bin-dir image-credential-provider-config image-service-endpoint kube-proxy-arg
kubelet-arg lb-server-port log node-external-dns node-external-ip node-internal-dns node-ip node-label
node-name node-taint nonroot-devices pause-image prefer-bundled-bin private-registry protect-kernel-defaults
resolv-conf rootless selinux server snapshotter system-default-registry token token-file v vmodule vpn-auth
vpn-auth-file with-node-id
"""
SERVER_KEYS = """
advertise-address advertise-port agent-token agent-token-file bind-address cluster-cidr cluster-dns
cluster-domain cluster-init cluster-reset cluster-reset-restore-path datastore-cafile datastore-certfile
datastore-endpoint datastore-keyfile default-local-storage-path disable disable-agent disable-apiserver
disable-cloud-controller disable-controller-manager disable-etcd disable-helm-controller disable-kube-proxy
disable-network-policy disable-scheduler egress-selector-mode embedded-registry etcd-arg
etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-s3-access-key etcd-s3-bucket
etcd-s3-bucket-lookup-type etcd-s3-config-secret etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-folder
etcd-s3-insecure etcd-s3-proxy etcd-s3-region etcd-s3-retention etcd-s3-secret-key etcd-s3-session-token
etcd-s3-skip-ssl-verify etcd-s3-timeout etcd-snapshot-compress etcd-snapshot-dir etcd-snapshot-name
etcd-snapshot-reconcile-interval etcd-snapshot-retention etcd-snapshot-schedule-cron flannel-backend
flannel-external-ip flannel-ipv6-masq helm-job-image https-listen-port kine-tls kube-apiserver-arg
kube-cloud-controller-manager-arg kube-controller-manager-arg kube-scheduler-arg kubelet-certificate-authority
multi-cluster-cidr secrets-encryption secrets-encryption-provider service-cidr service-node-port-range
servicelb-namespace supervisor-metrics tls-san tls-san-security write-kubeconfig write-kubeconfig-group
write-kubeconfig-mode
"""
COMMON = frozenset(AGENT_KEYS.split())
SERVER = COMMON | frozenset(SERVER_KEYS.split())
OWNED = {
    "agent-token": "k3s_agent_token",
    "agent-token-file": "k3s_agent_token",
    "cluster-init": "k3s_etcd",
    "cluster-reset": "the playbook k3s_restore",
    "cluster-reset-restore-path": "the playbook k3s_restore",
    "data-dir": "k3s_work_dir",
    "https-listen-port": "nothing: the port is 6443",
    "node-label": "k3s_node_labels",
    "node-name": "the name in the inventory",
    "node-taint": "k3s_node_taints",
    "private-registry": "k3s_registries",
    "server": "the inventory",
    "tls-san": "k3s_tls_sans",
    "token": "k3s_token",
    "token-file": "k3s_token",
}
REGISTRY_KEYS = {"mirrors": {"endpoint", "rewrite"}, "configs": {"auth", "tls"}}
AUTH_KEYS = {"username", "password", "auth", "identity_token"}
TLS_KEYS = {"ca_file", "cert_file", "key_file"}
NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


def build_files(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is in config.yaml, config.yaml.d/10-join.yaml, 20-node.yaml and registries.yaml. Pure.

    ``given`` has the variables of the role. How a host joins, and what counts at its first registration only, have
    files of their own, since they must not restart a member when they change.
    """
    problems = _problems(given)
    if problems:
        raise InvalidInput(join_problems(problems))
    is_server = given["part"] == "server"
    config: dict[str, Any] = {
        "node-name": given["name"],
        "node-ip": given["address"],
        "data-dir": given["work_dir"],
    }
    if given["interface"]:
        config["flannel-iface"] = given["interface"]
    if given["registries"]:
        # Without it, what a mirror doesn't have is asked for on the internet.
        config["disable-default-registry-endpoint"] = True
    if given["default_runtime"]:
        config["default-runtime"] = given["default_runtime"]
    join: dict[str, Any] = {"server": given["join_url"], "token": given["join_token"]} if given["join_url"] else {}
    if is_server:
        sans = [*given["servers"], *given["tls_sans"], *([given["api_address"]] if given["api_address"] else [])]
        config.update(
            {
                "advertise-address": given["address"],
                "agent-token": given["agent_token"],
                "disable": list(given["disable"]),
                "flannel-backend": given["flannel_backend"],
                "secrets-encryption": bool(given["secrets_encryption"]),
                "tls-san": list(dict.fromkeys(sans)),
                "write-kubeconfig-mode": "0600",
            }
        )
        if given["etcd"]:
            config["etcd-snapshot-schedule-cron"] = given["snapshot_schedule"]
            config["etcd-snapshot-retention"] = int(given["snapshot_keep"])
        if not given["joined"]:
            # The server that founded the cluster. Its token can pin no CA, as it makes the CA.
            config["token"] = given["token"]
            if given["etcd"]:
                config["cluster-init"] = True
    elif join:
        config.update(join)
        join = {}
    config.update(given["extra_config"])
    config = {key: value for key, value in config.items() if value is not None}
    labels = [f"{key}={value}" for key, value in sorted(given["labels"].items()) if value is not None]
    taints = [taint for taint in given["taints"] if not taint.endswith("-")]
    node = {key: value for key, value in (("node-label", labels), ("node-taint", taints)) if value}
    return {"config": config, "join": join, "node": node, "registries": dict(given["registries"])}


def _problems(given: Mapping[str, Any]) -> list[str]:
    is_server = given["part"] == "server"
    problems = []
    if not NODE_NAME.fullmatch(given["name"]):
        problems.append(
            f"The host {given['name']!r} can't be a node of Kubernetes. "
            "Remedy: names have a-z, 0-9, '-' and '.', 63 at most."
        )
    if not given["servers"]:
        problems.append("There are agents and no server. Remedy: name one or more servers in the inventory.")
    if len(given["servers"]) > 1 and len(given["servers"]) % 2 == 0:
        problems.append(
            f"There are {len(given['servers'])} servers: {', '.join(given['servers'])}. "
            "Remedy: add or remove one; etcd needs an odd number, as an even one outlives no more losses than one less."
        )
    if len(given["servers"]) > 1 and not given["etcd"]:
        problems.append("k3s_etcd is false with several servers. Remedy: they share their data by etcd, leave it true.")
    if len(given["token"]) < 16 or re.search(r"\s|^K10", given["token"]):
        problems.append("k3s_token is no secret of 16 characters without spaces. Remedy: leave it out, one is made.")
    if given["token"] and given["token"] == given["agent_token"]:
        problems.append("k3s_agent_token is k3s_token. Remedy: leave it out; agents must not hold the servers' secret.")
    try:
        parse_version(given["version"])
    except InvalidInput as exc:
        problems.append(f"k3s_version: {exc}")
    problems += _unknown_keys(given["extra_config"], SERVER if is_server else COMMON)
    problems += check_taints(given["taints"])
    problems += _registry_problems(given["registries"])
    return problems


def _unknown_keys(extra: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    problems = []
    for key in extra:
        if key in OWNED:
            problems.append(f"k3s_extra_config has {key}. Remedy: it is set by {OWNED[key]}.")
        elif key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else "see `k3s server --help`."
            problems.append(f"k3s_extra_config has {key}, which k3s doesn't know here. Remedy: {hint}")
    return problems


def _registry_problems(registries: Mapping[str, Any]) -> list[str]:
    problems = []
    for part, value in registries.items():
        if part not in REGISTRY_KEYS or not isinstance(value, Mapping):
            problems.append(f"k3s_registries has {part!r}. Remedy: its keys are mirrors and configs, dictionaries.")
            continue
        for host, entry in value.items():
            unknown = sorted(set(entry) - REGISTRY_KEYS[part])
            if unknown:
                wanted = ", ".join(sorted(REGISTRY_KEYS[part]))
                problems.append(
                    f"k3s_registries.{part}[{host}] has {', '.join(unknown)}. Remedy: its keys are " + wanted
                )
            problems += _endpoint_problems(host, entry) if part == "mirrors" else _access_problems(host, entry)
    return problems


def _endpoint_problems(host: str, entry: Mapping[str, Any]) -> list[str]:
    return [
        f"k3s_registries.mirrors[{host}] has the endpoint {url!r}. Remedy: begin it with https://."
        for url in entry.get("endpoint") or []
        if not str(url).startswith("https://")
    ]


def _access_problems(host: str, entry: Mapping[str, Any]) -> list[str]:
    problems = []
    for part, known in (("auth", AUTH_KEYS), ("tls", TLS_KEYS)):
        unknown = sorted(set(entry.get(part) or {}) - known)
        if unknown:
            # Certificates are always checked, so insecure_skip_verify is not among them.
            problems.append(
                f"k3s_registries.configs[{host}].{part} has {', '.join(unknown)}. "
                f"Remedy: its keys are {', '.join(sorted(known))}."
            )
    return problems
