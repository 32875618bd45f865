# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import re
import shlex
import subprocess

NAME = "nodes-2"


def test_the_commands_of_a_new_sites_readme_work_word_for_word(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "MOLECULE_"))}

    def run(command, where):
        done = subprocess.run(
            shlex.split(command),
            cwd=where,
            env={**environment, "PWD": str(where), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    new = f"ansible-playbook turnkey.hpc.new -e dir={NAME}"
    run(f"{new} -e source=docker -e network=10.97.2.0/24 -e bastion_port=2302", tmp_path)
    site = tmp_path / NAME
    commands = dict.fromkeys(re.findall(r"^\$ (.*?)(?: {2,}#.*)?$", (site / "README.md").read_text(), re.MULTILINE))
    destroy = f"ansible-playbook -i inv.toml destroy.yml -e destroy_confirm={NAME}"
    literal = [
        "ansible-playbook -i inv.toml provision.yml",
        "ansible all -i inv.toml -m ping",
        "ansible-playbook -i inv.toml site.yml",
        "ansible-playbook -i inv.toml turnkey.hpc.verify",
        "ansible-playbook -i inv.toml reset.yml",
        destroy,
    ]
    assert set(literal) <= set(commands), commands
    try:
        outputs = {command: run(command, site) for command in literal}
    except AssertionError:
        run(destroy, site)
        raise
    assert outputs["ansible all -i inv.toml -m ping"].count("pong") == 2
    assert not [line for output in outputs.values() for line in output.splitlines() if "[WARNING]" in line]
    secrets = subprocess.run(["git", "init", "-q"], cwd=site, check=True) and run("git status --short -uall", site)
    assert ".secrets" not in secrets
    assert "inv.toml" in secrets
