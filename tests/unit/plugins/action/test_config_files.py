# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import json
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.turnkey.hpc.plugins.action.config_files import ActionModule


class Recorded(ActionModule):
    """The plugin without a host: what the module would get is kept."""

    def _execute_module(self, module_name, module_args, **more):
        self.sent = (module_name, module_args)
        return {"changed": False}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.j2").write_text(
        "{% for n in names %}\n{{ n }}\n{% endfor %}\n{% include 'b.j2' %}\n\nend\n"
    )
    (tmp_path / "templates" / "b.j2").write_text("to {{ template_destpath }}\n")
    (tmp_path / "templates" / "broken.j2").write_text("{{ nowhere }}\n")

    def call(arguments):
        loader = DataLoader()
        task = SimpleNamespace(
            args=arguments,
            async_val=0,
            check_mode=False,
            diff=False,
            action="turnkey.hpc.config_files",
            get_search_path=lambda: [str(tmp_path)],
        )
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        plugin = Recorded(task, connection, SimpleNamespace(), loader, Templar(loader=loader), None)
        plugin.run(task_vars={"names": ["x", "y"], "ansible_search_path": [str(tmp_path)]})
        name, sent = plugin.sent
        assert name == "turnkey.hpc.config_files"
        texts = json.loads(base64.b64decode(sent["_texts"])) if "_texts" in sent else None
        return sent, texts

    return call


def test_a_template_is_rendered_with_its_includes_and_its_destination(run):
    _sent, texts = run({"files": [{"path": "/etc/a", "template": "a.j2"}]})
    assert texts == [{"content": "x\ny\nto /etc/a\nend\n"}]


def test_texts_travel_in_the_hidden_value_only(run):
    sent, texts = run({"files": [{"path": "/etc/a", "content": "secret"}, {"path": "/etc/b", "block": "b"}]})
    assert texts == [{"content": "secret"}, {"block": "b"}]
    assert sent["files"] == [{"path": "/etc/a"}, {"path": "/etc/b"}]


def test_numbers_count_as_texts(run):
    assert run({"files": [{"path": "/etc/a", "content": 5}]})[1] == [{"content": "5"}]


def test_a_file_that_should_go_is_not_rendered(run):
    sent, texts = run({"files": [{"path": "/etc/a", "template": "broken.j2", "state": "absent"}]})
    assert texts is None
    assert sent["files"][0]["state"] == "absent"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([{"path": "/etc/a", "template": "none.j2"}], "none.j2 for /etc/a"),
        ([{"path": "/etc/a", "template": "broken.j2"}], r"(?s)broken.j2 for /etc/a.*nowhere"),
        ([{"path": "/etc/a", "template": "a.j2", "content": "x"}], "exactly one of"),
        ([{"path": "/etc/a", "content": {"k": 1}}], "must be a text"),
        ([{"content": "x"}], "have a path"),
        ("text", "list of dictionaries"),
    ],
)
def test_what_can_t_be_rendered_is_an_error_that_names_it(run, files, message):
    with pytest.raises(AnsibleActionFail, match=message):
        run({"files": files})
