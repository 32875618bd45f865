# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import sys

import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud_spec import CLOUDS
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import CLOUD_PROVIDERS, PROVIDERS
from ansible_collections.turnkey.hpc.plugins.modules import cluster_machines

MODULE = "ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry"


def test_the_module_offers_the_providers_that_there_are():
    options = yaml.safe_load(cluster_machines.DOCUMENTATION)["options"]
    assert tuple(options["provider"]["choices"]) == PROVIDERS
    assert set(CLOUD_PROVIDERS) <= set(CLOUDS)


def test_no_sdk_is_imported_before_something_connects():
    names = "boto3 botocore docker alibabacloud_ecs20140526 Tea"
    code = f"import sys, {MODULE}; print([name for name in {names.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
