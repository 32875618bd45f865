# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._cluster_checks import CHECKS
from ansible_collections.turnkey.hpc.plugins.modules import cluster_checks

OPTIONS = yaml.safe_load(cluster_checks.DOCUMENTATION)["options"]


@pytest.mark.parametrize("key", ["choices", "default"])
def test_every_registered_check_is_documented_and_runs_by_default(key):
    assert OPTIONS["checks"][key] == list(CHECKS)


def test_every_check_says_what_it_proves():
    text = " ".join(OPTIONS["checks"]["description"])
    assert all(f"V({name})" in text for name in CHECKS)


def test_the_role_offers_every_registered_check():
    role = Path(__file__).parents[4] / "roles" / "verify" / "meta" / "argument_specs.yml"
    option = yaml.safe_load(role.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]["verify_checks"]
    assert option["choices"] == list(CHECKS)
