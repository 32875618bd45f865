#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_clusters_info
short_description: Lists the clusters of a cloud account
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Lists the clusters that M(turnkey.hpc.cluster_machines) made in one region of a cloud, by their tags.
  - A cluster of which no machine is left, but a network, is listed too, since what belongs to it may cost money.
  - Credentials come from where the cloud's own tools look for them (environment, profile, role of the instance).
requirements:
  - boto3 (Python package), for O(provider=aws)
  - alibabacloud_ecs20140526 and alibabacloud_vpc20160428 (Python packages), for O(provider=alicloud)
options:
  provider:
    description: The cloud.
    type: str
    required: true
    choices: [alicloud, aws]
  region:
    description: Region, as the cloud calls it.
    type: str
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  idempotent:
    description: Changes nothing, however often it runs.
    support: full
"""

EXAMPLES = r"""
- name: See which clusters there are
  turnkey.hpc.cloud_clusters_info:
    provider: alicloud
    region: cn-hangzhou
  register: found
"""

RETURN = r"""
clusters:
  description: The clusters, sorted by name.
  returned: success
  type: list
  elements: dict
  sample:
    - name: lab
      machines: 5
      running: 5
      bastion: 203.0.113.20
summary:
  description: A line for people for each cluster.
  returned: success
  type: list
  elements: str
  sample: ["lab   5 machines, 5 running, head at 203.0.113.20"]
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud import CloudProvider, Row
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import CLOUD_PROVIDERS, connect_cloud


def run(params: Mapping[str, Any], provider: CloudProvider | None = None) -> dict[str, Any]:
    """Return what there is. ``provider`` is None to have it connected here."""
    provider = provider or connect_cloud(params["provider"], {"region": params["region"]})
    clusters = [_cluster(name, rows) for name, rows in sorted(provider.clusters().items())]
    return {"clusters": clusters, "summary": _summary(clusters, f"{params['provider']} {params['region']}")}


def _cluster(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "name": name,
        "machines": len(rows),
        "running": sum(row.state == "running" for row in rows),
        "bastion": next((row.public_address for row in rows if row.bastion), ""),
    }


def _summary(clusters: Sequence[Mapping[str, Any]], place: str) -> list[str]:
    if not clusters:
        return [f"No clusters in {place}."]
    width = max(len(cluster["name"]) for cluster in clusters)
    return [
        f"{cluster['name']:<{width}}  {cluster['machines']} machines, {cluster['running']} running"
        + (f", head at {cluster['bastion']}" if cluster["bastion"] else "")
        for cluster in clusters
    ]


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        {
            "provider": {"type": "str", "required": True, "choices": list(CLOUD_PROVIDERS)},
            "region": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    with errors_end(module):
        result = run(module.params)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
