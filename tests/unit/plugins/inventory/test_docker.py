# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleParserError
from ansible_collections.turnkey.hpc.plugins.inventory.docker import InventoryModule


def test_an_engine_that_does_not_answer_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody/there.sock")
    with pytest.raises(AnsibleParserError, match=r"unix:///nobody/there\.sock"):
        InventoryModule().fetch("demo")


@pytest.mark.parametrize(("name", "accepted"), [("a.docker.yml", True), ("a.cloud.yml", False)])
def test_only_its_own_files_are_read(tmp_path, name, accepted):
    (tmp_path / name).touch()
    assert InventoryModule().verify_file(str(tmp_path / name)) is accepted
