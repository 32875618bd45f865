# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.syntax import (
    is_plugin_config,
    syntax_of,
    toml_lines,
)

pytest.importorskip("tomllib", reason="files are read on the control node, whose Python has it")


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        ("", "ini"),
        ("# nothing\n", "ini"),
        ("node1\n", "ini"),
        ("node1:22 a=1\n", "ini"),
        ("[web]\nnode1\n", "ini"),
        ("[all:vars]\na=1\n", "ini"),
        ("[web]\nnode1\n[web.eu]\nh2\n", "ini"),
        ("---\n", "yaml"),
        ("all:\n  hosts:\n", "yaml"),
        ("'all': {}\n", "yaml"),
        ('{"all": {}}', "yaml"),
        ("all\n  hosts:\n    a:\n    b:\n", "yaml"),
        ("[web.hosts]\nh1 = {\n", "toml"),
    ],
)
def test_the_content_tells_the_syntax(text: str, syntax: str) -> None:
    assert syntax_of(text) == syntax


def test_valid_toml_in_the_shape_of_an_inventory_is_toml() -> None:
    assert syntax_of("[web.hosts]\nh1 = {}\n") == "toml"
    assert syntax_of("web.hosts.h1 = {}\n") == "toml"
    assert syntax_of("[web]\n[db]\n[db.other]\n") == "ini"


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("plugin: a.b.c\n", True),
        ("# x\n---\nplugin: a.b.c\n", True),
        ('{"plugin": "a"}', True),
        ('plugin = "a"\n', True),
        ("[all:vars]\nplugin=a\n", False),
        ("all:\n  vars:\n    plugin: a\n", False),
        ("plugins: x\n", False),
    ],
)
def test_configurations_of_plugins_are_known(text: str, config: bool) -> None:
    assert is_plugin_config(text) is config


def test_keys_of_toml_have_their_lines() -> None:
    text = '# x\n[web.hosts]\nh1 = { a = 1 }\n"h.2".b = 2\n'
    text += '[web]\nc = """\n[no]\nx = 1\n"""\nd = [\n 1,\n]\n[ "q".vars ]\ne=1\n'
    lines = toml_lines(text)
    assert lines["web", "hosts", "h1"] == 3
    assert lines["web", "hosts", "h.2", "b"] == 4
    assert (lines["web", "c"], lines["web", "d"]) == (6, 10)
    assert lines["q", "vars", "e"] == 14
    assert ("no",) not in lines
