# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import sys

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._program import program


def test_the_program_runs_without_the_collection_and_without_ansible(tmp_path):
    path = tmp_path / "node-power"
    path.write_text(program("_elastic.main"), encoding="utf-8")
    shown = subprocess.run([sys.executable, "-I", "-S", path], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith("usage: node-power VERB")


def test_the_program_has_what_it_imports_and_nothing_of_ansible():
    text = program("_elastic.main")
    for provider in ("aws", "alicloud", "docker_elastic", "libvirt_elastic"):
        assert f"module_utils._providers.{provider}': " in text
    assert "import AnsibleModule" not in text


def test_the_same_modules_give_the_same_program():
    assert program("_elastic.main") == program("_elastic.main")


def test_a_module_that_is_not_there_is_an_error():
    with pytest.raises(HpcError, match=r"no module _elastic\.mian"):
        program("_elastic.mian")
