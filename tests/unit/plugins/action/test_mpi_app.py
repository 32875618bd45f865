# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import io
import tarfile
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.turnkey.hpc.plugins.action import mpi_app


class Action(mpi_app.ActionModule):
    """The plugin with a host that remembers what it was asked."""

    def __init__(self, check_mode=False, **arguments):
        task = SimpleNamespace(async_val=0, check_mode=check_mode, action="mpi_app", args=arguments)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        super().__init__(task, connection, SimpleNamespace(), None, SimpleNamespace(), SimpleNamespace())
        self.modules = []

    def _execute_module(self, **arguments):
        self.modules.append(arguments["module_args"])
        return {"changed": True, "exit_code": 0}


@pytest.fixture
def source(tmp_path):
    place = tmp_path / "waves"
    place.mkdir()
    (place / "waves.c").write_text("int main;")
    (place / "mpi.yml").write_text("from: waves.c\nto: waves\nhosts: 2\n")
    return str(place)


def test_the_tree_goes_to_the_head_in_the_arguments_of_the_module(source):
    action = Action(src=source, user="alice")
    assert action.run()["exit_code"] == 0
    (arguments,) = action.modules
    assert (arguments["name"], arguments["user"]) == ("waves", "alice")
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(arguments["_archive"]))) as tar:
        assert tar.getnames() == ["mpi.yml", "waves.c"]


def test_check_mode_says_what_would_be_built_and_asks_no_host(source):
    action = Action(check_mode=True, src=source, options={"hosts": 4, "ranks_per_host": 2})
    result = action.run()
    assert action.modules == []
    assert (result["changed"], result["app"], result["ranks"]) == (True, "waves", 8)
    assert result["build"] == ["mpicc -O2 -o waves waves.c -lm"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "missing required arguments: src"),
        ({"src": "/nonexistent"}, "is no directory"),
        ({"options": {"host": 1}}, "did you mean 'hosts'"),
        ({"options": "hosts=1"}, "no dictionary"),
    ],
)
def test_what_is_wrong_is_said_before_anything_goes_over(source, arguments, complaint):
    action = Action(**({"src": source, **arguments} if arguments.get("options") else arguments))
    with pytest.raises(AnsibleActionFail, match=complaint):
        action.run()
    assert action.modules == []
