# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role hands to k3s, rendered on the control node. No k3s has run it.

TURNKEY_JUPYTERHUB_CHART=DIRECTORY (Zero to JupyterHub, unpacked) holds the values against the chart's
schema. Where there is a `helm`, it lints and renders the chart with them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
CHART = os.environ.get("TURNKEY_JUPYTERHUB_CHART", "")
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
def render(tmp_path):
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


def test_values_and_secrets_are_kept_apart_and_stay_the_same(render):
    given = {"hub": {"config": {"GenericOAuthenticator": {"client_secret": "s3cret-of-the-site"}}}}
    secrets, chart = render(jupyterhub_chart_secrets=given, jupyterhub_registry="10.20.0.10:5000")
    namespace, values, certificate = secrets
    hidden = json.loads(values["stringData"]["values.yaml"])
    assert namespace["kind"] == "Namespace"
    assert certificate["data"] == {"tls.crt": "Q1JU", "tls.key": "S0VZ"}
    assert hidden["hub"]["config"] == given["hub"]["config"]
    shown = json.dumps(chart)
    for secret in (hidden["proxy"]["secretToken"], hidden["hub"]["cookieSecret"], "s3cret-of-the-site"):
        assert len(secret) > 10
        assert secret not in shown
    assert chart["spec"]["valuesSecrets"] == [{"name": values["metadata"]["name"], "keys": ["values.yaml"]}]
    assert base64.b64decode(chart["spec"]["chartContent"]) == b"a chart"
    visible = json.loads(chart["spec"]["valuesContent"])
    assert visible["hub"]["image"]["name"] == "10.20.0.10:5000/jupyterhub/k8s-hub"
    assert "dummy" not in shown.lower()
    assert render(jupyterhub_chart_secrets=given, jupyterhub_registry="10.20.0.10:5000") == (secrets, chart)


def test_the_site_has_the_last_word_on_values_and_ports(render):
    _secrets, chart = render(
        jupyterhub_https_port=30443, jupyterhub_http_port=30080, jupyterhub_chart_values={"cull": {"timeout": 7}}
    )
    values = json.loads(chart["spec"]["valuesContent"])
    assert values["proxy"]["service"] == {"type": "NodePort", "nodePorts": {"http": 30080, "https": 30443}}
    assert values["cull"] == {"enabled": True, "timeout": 7}


def test_with_a_bundle_the_chart_comes_from_there(render, tmp_path):
    (tmp_path / "bundle/charts").mkdir(parents=True)
    (tmp_path / "bundle/charts/hub-1.0.tgz").write_bytes(b"the chart of the bundle")
    _secrets, chart = render(
        cluster_bundle=str(tmp_path / "bundle"), jupyterhub_chart="https://charts.example.org/hub-1.0.tgz"
    )
    assert base64.b64decode(chart["spec"]["chartContent"]) == b"the chart of the bundle"


@pytest.mark.skipif(not CHART, reason="no chart was given")
def test_the_chart_takes_the_values(render, tmp_path):
    secrets, chart = render(jupyterhub_registry="10.20.0.10:5000")
    files = []
    everything = yaml.safe_load(Path(CHART, "values.yaml").read_text())
    for number, text in enumerate((chart["spec"]["valuesContent"], secrets[1]["stringData"]["values.yaml"])):
        merge(everything, json.loads(text))
        (tmp_path / f"{number}.yaml").write_text(text)
        files += ["--values", str(tmp_path / f"{number}.yaml")]
    schema = yaml.safe_load(Path(CHART, "values.schema.yaml").read_text())
    assert not [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(everything)]
    if shutil.which("helm"):
        subprocess.run(["helm", "lint", CHART, *files], check=True)
        subprocess.run(["helm", "template", "hub", CHART, *files, "--kube-version", "1.33"], check=True)


def merge(base, more):
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
