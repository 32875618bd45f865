# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ast
from pathlib import Path

import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import registry
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud_spec import CLOUDS
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import CLOUD_PROVIDERS, PROVIDERS
from ansible_collections.turnkey.hpc.plugins.modules import cluster_machines


def test_the_module_offers_the_providers_that_there_are():
    options = yaml.safe_load(cluster_machines.DOCUMENTATION)["options"]
    assert tuple(options["provider"]["choices"]) == PROVIDERS
    assert set(CLOUD_PROVIDERS) <= set(CLOUDS)


def test_no_sdk_is_imported_before_something_connects():
    sdks = {
        "boto3",
        "botocore",
        "docker",
        "alibabacloud_ecs20140526",
        "alibabacloud_vpc20160428",
        "Tea",
        "libvirt",
        "pycdlib",
    }
    for path in Path(registry.__file__).parent.glob("*.py"):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Import):
                assert not sdks & {name.name.partition(".")[0] for name in statement.names}, path
            elif isinstance(statement, ast.ImportFrom) and not statement.level:
                assert str(statement.module).partition(".")[0] not in sdks, path
