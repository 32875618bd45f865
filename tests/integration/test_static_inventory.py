# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""turnkey.hpc.static beside Ansible's own plugins: the same inventories, and no broken line goes through."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible import constants as C
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory.ini import InventoryModule as IniModule
from ansible.plugins.inventory.toml import InventoryModule as TomlModule
from ansible.plugins.inventory.yaml import InventoryModule as YamlModule
from ansible.template import is_trusted_as_template
from ansible.utils.display import Display
from ansible_collections.turnkey.hpc.plugins.inventory.static import InventoryModule as StaticModule
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.syntax import syntax_of
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import CANONICAL_GROUPS

FUZZ_SEED = 20_240_601
FUZZ_FILES = 10_000

# What doesn't survive in a text file, or is too long for one. The others are in a file of their own.
ODD = [
    ("ini", "no newline at the end", "[compute]\nnode1"),
    ("ini", "windows line ends", "[compute]\r\nnode1 a=1\r\nnode2\r\n"),
    ("ini", "tabs and blanks", "\t[web]\t\n  h1\ta=1\t b=2  \n   \n\th2\n[web:vars]\n  x  =\t1\n"),
    ("ini", "form feed and other separators", "[web]\nh1\x0bh2\n[db]\x0c\nh3\n"),
    ("ini", "long lines", "[web]\nh " + " ".join(f"v{i}={i}" for i in range(300)) + "\n"),
    (
        "ini",
        "many hosts",
        "[compute]\n" + "".join(f"n{i} ansible_host=10.0.0.{i % 250}\n" for i in range(700)),
    ),
]


def read_corpus() -> list[tuple[str, str, str]]:
    """Return the syntax, name and content of each inventory."""
    parts = (Path(__file__).parent / "inventories/corpus.txt").read_text(encoding="utf-8").split("\n=== ")[1:]
    cases = [(*part.partition("\n")[0].split(" ", 1), part.partition("\n")[2] + "\n") for part in parts]
    return [*cases, *ODD]


CORPUS = read_corpus()


class _Plugin:
    """What the plugin loader would do for a plugin: these tests choose the plugin, not the configuration."""

    _load_name = _original_path = ansible_name = "tested"
    check = False

    def set_options(self, *_args: Any, **_named: Any) -> None:
        pass

    def get_option(self, name: str) -> Any:
        return {"check": self.check, "yaml_extensions": [".yml"]}[name]


class Static(_Plugin, StaticModule):
    pass


class Ini(_Plugin, IniModule):
    pass


class Yaml(_Plugin, YamlModule):
    pass


class Toml(_Plugin, TomlModule):
    pass


STOCK = {"ini": Ini, "yml": Yaml, "yaml": Yaml, "toml": Toml}


@pytest.fixture(autouse=True)
def _failures_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "INVENTORY_ANY_UNPARSED_IS_FAILED", True)


def typed(value: Any) -> Any:
    """Return ``value`` with the types of everything in it, and whether text may be a template."""
    if isinstance(value, dict):
        return "dict", [(typed(key), typed(inner)) for key, inner in value.items()]
    if isinstance(value, (list, tuple, set)):
        kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind))
        return kind.__name__, [typed(item) for item in value]
    if isinstance(value, str):
        return "str", str(value), is_trusted_as_template(value)
    if "Encrypted" in type(value).__name__:
        return "vault", value._ciphertext
    kind = next(kind for kind in type(value).__mro__ if not kind.__module__.startswith("ansible"))
    return kind.__name__, repr(kind(value)) if kind in (int, float) else str(value)


def variables_of(entity: Any, path: Path) -> Any:
    variables = dict(entity.vars)
    if str(variables.get("inventory_file")) == str(path):
        variables["inventory_file"] = "same"
    return typed(dict(sorted(variables.items(), key=lambda item: str(item[0]))))


def load(path: Path, plugin: type[_Plugin], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return all that is in the inventory."""
    monkeypatch.setattr(InventoryManager, "_fetch_inventory_plugins", lambda _self: [plugin()])
    manager = InventoryManager(loader=DataLoader(), sources=[str(path)])
    unused = {
        name
        for name, group in manager.groups.items()
        if name in CANONICAL_GROUPS and not (group.hosts or group.child_groups or group.vars)
    }
    return {
        "hosts": {name: variables_of(host, path) for name, host in manager.hosts.items()},
        "order of hosts": list(manager.hosts),
        "groups of hosts": {name: sorted(group.name for group in host.groups) for name, host in manager.hosts.items()},
        "groups": {
            name: (
                [host.name for host in group.hosts],
                [host.name for host in group.get_hosts()] if name not in ("all",) else len(group.get_hosts()),
                sorted(child.name for child in group.child_groups if child.name not in unused),
                variables_of(group, path),
                group.priority,
                group.depth,
            )
            for name, group in manager.groups.items()
            if name not in unused
        },
        "address": {name: host.address for name, host in manager.hosts.items()},
        "localhost": getattr(manager._inventory.localhost, "name", None),
    }


@pytest.mark.parametrize(("syntax", "name", "text"), CORPUS, ids=[f"{syntax}-{name}" for syntax, name, _text in CORPUS])
def test_a_file_that_ansible_reads_gives_the_same_here(
    syntax: str, name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = tmp_path / f"hosts.{syntax}"
    stock.write_bytes(text.encode())
    expected = load(stock, STOCK[syntax], monkeypatch)
    # The suffix means nothing: the same content is the same inventory under any name.
    for suffix in (f".{syntax}", ".toml", ".ini", ""):
        path = tmp_path / f"hosts{suffix}"
        path.write_bytes(text.encode())
        assert load(path, Static, monkeypatch) == expected


OLD_LAYOUT = """\
# What the old layout looked like.
[driver]
head ansible_ssh_host=10.0.0.1 ansible_ssh_port=22 ansible_ssh_user=me my_iface=eth0 has_gpu=False

[worker]
w1 ansible_ssh_host=10.0.0.2 my_iface=eth0 has_gpu=True
w2 ansible_ssh_host=10.0.0.3 my_iface=eth1 ansible_ssh_private_key_file="~/.ssh/my key"

[registry]
head

[all:vars]
convect_workdir=/opt/c
convect_token=hidden
jhub_config_path=/etc/jhub.py
install_docker=true
install_nvidia_driver=false
docker_repo=registry.example.org
http_port=80
https_port=443
"""
SPECIAL = "[]{}:=#;,'\"\\ \t\n\x00\x0b-.0123ab\u00e9\u2028/&*!|>%@`$~\ufeff"
# What Ansible takes for names of hosts or variables, and is a slip of the author; and what no machine can hold.
STRICTER = r"is no host name|has no hosts|is no variable|has no name|more than 100000|zero byte"


def mutate(text: str, chance: random.Random) -> str:
    """Return ``text`` with one to four things changed as hands and broken editors do."""
    for _time in range(chance.randint(1, 4)):
        lines = text.split("\n")
        line, place = chance.randrange(len(lines)), chance.randrange(len(text) + 1)
        other = chance.randrange(len(lines))
        kind = chance.randrange(9)
        if kind == 0:
            text = text[:place] + chance.choice(SPECIAL) + text[place:]
        elif kind == 1:
            text = text[:place] + text[place + chance.randint(1, 5) :]
        elif kind == 2:
            text = text[:place] + chance.choice(SPECIAL) + text[place + 1 :]
        elif kind == 3:
            text = "\n".join(lines[:line] + lines[line + 1 :])
        elif kind == 4:
            text = "\n".join([*lines[:line], lines[other], *lines[line:]])
        elif kind == 5:
            lines[line], lines[other] = lines[other], lines[line]
            text = "\n".join(lines)
        elif kind == 6:
            text = text[:place]
        elif kind == 7:
            lines[line] = " " * chance.randrange(5) + lines[line].strip()
            text = "\n".join(lines)
        else:
            start = chance.randrange(len(text) + 1)
            text = text[:place] + text[start : start + chance.randint(1, 20)] + text[place:]
    return text


def plain_content(inventory: InventoryData) -> Any:
    return (
        {name: host.vars for name, host in inventory.hosts.items()},
        {
            name: ([host.name for host in group.hosts], sorted(child.name for child in group.child_groups), group.vars)
            for name, group in inventory.groups.items()
            if name not in CANONICAL_GROUPS or group.hosts or group.vars or group.child_groups
        },
    )


def refusal(plugin: Any, inventory: InventoryData, loader: DataLoader, path: Path) -> str:
    """Return why Ansible's own plugin doesn't read the file, or nothing."""
    try:
        plugin.parse(inventory, loader, str(path))
    except Exception as error:  # noqa: BLE001 - as Ansible does
        return repr(error)
    return ""


def test_no_broken_line_goes_through_and_each_error_has_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Display, "display", lambda *_args, **_named: None)
    chance = random.Random(FUZZ_SEED)
    seeds = [text for _syntax, name, text in CORPUS if len(text) < 2000 and name != "vaulted text"] + [OLD_LAYOUT] * 20
    loader = DataLoader()
    path = tmp_path / "inv.toml"
    began, counts = time.process_time(), dict.fromkeys(["read", "refused", "left to others", "stricter"], 0)
    for number in range(FUZZ_FILES):
        text = mutate(chance.choice(seeds), chance)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        ours, expected = InventoryData(), InventoryData()
        ours.current_source = expected.current_source = str(path)
        plugin = Static()
        if not plugin.verify_file(str(path)):
            counts["left to others"] += 1
            continue
        told = ""
        took = time.process_time()
        try:
            plugin.parse(ours, loader, str(path))
        except AnsibleParserError as error:
            told = error._help_text
            assert all(re.fullmatch(r"inv\.toml:[1-9][0-9]*: .*\. Remedy: .+\.", line) for line in told.split("\n")), (
                f"file {number}: {text!r}: {told}"
            )
        assert time.process_time() - took < 5, f"file {number} took too long: {text!r}"
        syntax = syntax_of(text.removeprefix("\ufeff"))
        if told:
            counts["refused"] += 1
        elif "\ufeff" in text[:1] or re.search(r"\[[0-9a-zA-Z,]+[-,\]]", text) or len(ours.hosts) > 5000:
            counts["read"] += 1  # a mark of Windows, or a range in Slurm's style: Ansible can't read it
            continue
        refused = refusal(STOCK[syntax](), expected, loader, path)
        if refused:
            assert told, f"file {number}: Ansible refuses it ({refused}): {text!r}"
        elif told:
            counts["stricter"] += 1
            assert re.search(STRICTER, told), f"file {number}: Ansible reads it: {text!r}: {told}"
        else:
            counts["read"] += 1
            if syntax != "ini" or not re.search(r"^\[(driver|worker|master)", text, re.MULTILINE):
                assert plain_content(ours) == plain_content(expected), f"file {number}: {text!r}"
    print(f"{counts} in {time.process_time() - began:.1f} s")
    assert counts["read"] > FUZZ_FILES / 10
    assert counts["refused"] > FUZZ_FILES / 10
    assert time.process_time() - began < 60


def ansible(program: str, *arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs with this plugin, as the configuration of a site would."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "TURNKEY_"))}
    environment |= {
        "ANSIBLE_HOME": str(cwd / ".ansible"),
        "ANSIBLE_INVENTORY_ENABLED": "turnkey.hpc.docker,turnkey.hpc.static,ansible.builtin.host_list",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "ansible", program, *arguments],
        cwd=cwd,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


PING = """\
[controller]
head ansible_connection=local ansible_python_interpreter={python}
[all:vars]
cluster_name=lab
cluster_network=10.20.0.0/24
"""


@pytest.mark.parametrize(
    "text",
    [
        PING,
        '[controller.hosts]\nhead = {{ ansible_connection = "local", ansible_python_interpreter = "{python}" }}\n',
        "controller:\n  hosts:\n    head: {{ansible_connection: local, ansible_python_interpreter: {python}}}\n",
    ],
    ids=["INI", "TOML", "YAML"],
)
def test_hosts_of_inv_toml_answer_in_any_syntax(text: str, tmp_path: Path) -> None:
    (tmp_path / "inv.toml").write_text(text.format(python=sys.executable))
    assert '"ping": "pong"' in ansible("adhoc", "all", "-i", "inv.toml", "-m", "ping", cwd=tmp_path).stdout


def test_a_range_in_the_style_of_slurm_gives_its_hosts(tmp_path: Path) -> None:
    (tmp_path / "inv.toml").write_text("[compute]\nnode[08-11] ansible_user=me\nrack-[a-b]n[1,3-4]:2222\n")
    listed = json.loads(ansible("inventory", "-i", "inv.toml", "--list", cwd=tmp_path).stdout)
    assert listed["compute"]["hosts"] == [
        *("node08", "node09", "node10", "node11"),
        *("rack-an1", "rack-an3", "rack-an4", "rack-bn1", "rack-bn3", "rack-bn4"),
    ]
    assert listed["_meta"]["hostvars"]["rack-bn3"]["ansible_port"] == 2222


def test_all_canonical_groups_are_defined(tmp_path: Path) -> None:
    (tmp_path / "inv.toml").write_text("head\n")
    shown = ansible("adhoc", ",".join(CANONICAL_GROUPS), "-i", "inv.toml", "--list-hosts", cwd=tmp_path)
    assert "Could not match" not in shown.stderr


def test_the_old_layout_becomes_ours_and_notes_name_the_new_variables(tmp_path: Path) -> None:
    (tmp_path / "inv.toml").write_text(OLD_LAYOUT)
    done = ansible("inventory", "-i", "inv.toml", "--list", cwd=tmp_path)
    listed = json.loads(done.stdout)
    assert listed["controller"]["hosts"] == listed["nfs_server"]["hosts"] == listed["k3s_server"]["hosts"] == ["head"]
    assert listed["compute"]["hosts"] == listed["k3s_agent"]["hosts"] == ["w1", "w2"]
    first = listed["_meta"]["hostvars"]["w1"]
    assert (first["cluster_interface"], first["gpu_present"], first["jupyterhub_http_port"]) == ("eth0", True, 80)
    assert not {"my_iface", "has_gpu", "http_port"} & set(first)
    line = OLD_LAYOUT.splitlines().index("http_port=80") + 1
    assert f"note: inv.toml:{line}: `http_port` is now `jupyterhub_http_port`" in done.stderr


def test_all_problems_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    (tmp_path / "inv.toml").write_text(
        "[controller]\nhead ansible_host = 10.20.0.1\n[compute]\nnode[01:3]\nn4 x\n"
        "[all:vars]\nclutser_name=lab\ncluster_network\n[tops:children]\ncomputer\n"
    )
    done = ansible("inventory", "-i", "inv.toml", "--list", cwd=tmp_path, check=False)
    assert done.returncode != 0
    told = re.findall(r"^inv\.toml:(\d+): .*Remedy: (.+)$", done.stderr, re.MULTILINE)
    assert [int(line) for line, _remedy in told] == [2, 4, 5, 7, 8, 10], done.stderr
    assert "did you mean `cluster_name`?" in told[3][1]
    assert "Traceback" not in done.stderr


def test_an_encrypted_value_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "inv.toml").write_text(
        "all:\n  hosts:\n    head:\n  vars:\n    cluster_name: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      3031\n"
    )
    assert "head" in ansible("adhoc", "all", "-i", "inv.toml", "--list-hosts", cwd=tmp_path).stdout


def test_group_vars_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("cluster_name: lab\n")
    (tmp_path / "inv.toml").write_text("[controller]\nhead\n")
    listed = json.loads(ansible("inventory", "-i", "inv.toml", "--list", cwd=tmp_path).stdout)
    assert listed["_meta"]["hostvars"]["head"]["cluster_name"] == "lab"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lab.docker.yml", "plugin: turnkey.hpc.docker\n"),
        ("aws.yml", "# ours\n---\nplugin: amazon.aws.aws_ec2\nregions: [eu-central-1]\n"),
        ("x.json", '{"plugin": "a.b.c"}\n'),
        ("x.toml", 'plugin = "a.b.c"\n'),
        ("hosts", "#!/bin/sh\necho {}\n"),
        ("hosts.bin", "\x7fELF\x02\x01"),
    ],
)
def test_files_of_other_plugins_are_left_to_them(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    assert not Static().verify_file(str(path))


def test_directories_and_lists_of_hosts_are_left_to_others(tmp_path: Path) -> None:
    assert not Static().verify_file(str(tmp_path))
    assert not Static().verify_file("a,b,")


def test_a_text_file_is_read_whatever_its_mode_and_name(tmp_path: Path) -> None:
    path = tmp_path / "inv.toml"
    path.write_text("[compute]\nnode1 plugin=1\n[compute:vars]\nplugin=x\n")
    path.chmod(0o777)
    assert Static().verify_file(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "[compute]\nn[1:99999999]\n",
        "[compute]\nn[1-999]x[1-999]\n",
        "[all:vars]\nsite_x={}".format("(" * 5000 + ")" * 5000) + "\nb\n",
        "a:\n" + "".join(" " * depth + f"children:\n{' ' * (depth + 1)}g{depth}:\n" for depth in range(2, 900, 2)),
        "g0: &g0 {}\n"
        + "".join(f"g{i}: &g{i} {{children: {{a{i}: *g{i - 1}, b{i}: *g{i - 1}}}}}\n" for i in range(1, 40)),
    ],
    ids=["a long range", "two ranges", "a deep literal", "deep groups", "a tower of aliases"],
)
def test_what_would_eat_the_memory_is_refused_in_time(text: str, tmp_path: Path) -> None:
    path = tmp_path / "inv.toml"
    path.write_text(text)
    plugin = Static()
    plugin.check = True
    began = time.process_time()
    with pytest.raises(AnsibleParserError):
        plugin.parse(InventoryData(), DataLoader(), str(path))
    assert time.process_time() - began < 10
