# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of more than one file need."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
# make test-jupyterhub-chart sets it.
collect_ignore = [] if os.environ.get("TURNKEY_JUPYTERHUB_CHART") else ["test_jupyterhub_chart.py"]
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [settings.json]
  tasks:
    - ansible.builtin.import_role:
        {name: turnkey.hpc.jupyterhub, tasks_from: preflight.yml, rolespec_validate: false, public: true}
    - ansible.builtin.template:
        {src: "{{ templates }}/{{ item }}.j2", dest: "{{ playbook_dir }}/{{ item }}", mode: "0600"}
      loop: [k3s-secrets.yaml, k3s-chart.yaml]
"""


@pytest.fixture
def render_jupyterhub(tmp_path):
    """Return what renders the manifests with some variables: the secrets' documents, and the chart's."""

    def make(**variables):
        (tmp_path / "chart.tgz").write_bytes(b"a chart")
        settings = {
            "cluster_name": "lab",
            "cluster_network": "10.20.0.0/24",
            "cluster_address": "10.20.0.10",
            "cluster_scheduler": "none",
            "cluster_secrets_dir": str(tmp_path / "secrets"),
            "cluster_users": [{"name": "alice", "uid": 2001}],
            "jupyterhub_mode": "k3s",
            "jupyterhub_chart": str(tmp_path / "chart.tgz"),
            "templates": str(TOP / "roles/jupyterhub/templates"),
            "__jupyterhub_pem": ["Q1JU", "S0VZ"],
            **variables,
        }
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        (tmp_path / "play.yml").write_text(PLAYBOOK)
        command = ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")]
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        secrets = list(yaml.safe_load_all((tmp_path / "k3s-secrets.yaml").read_text()))
        return secrets, yaml.safe_load((tmp_path / "k3s-chart.yaml").read_text())

    return make
