# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chart of Zero to JupyterHub takes what the role hands to k3s, and makes of it what it should, says the real helm.

``make test-jupyterhub-chart CHART=...`` names the chart, a directory or an archive; docs/jupyterhub.md says more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
import yaml

REGISTRY = "10.20.0.10:5000"
SITE_CONFIG = "c = get_config()\nc.JupyterHub.template_vars = {'announcement': 'Maintenance on Friday'}\n"


@pytest.fixture
def chart(tmp_path):
    """Return the chart as a directory that has the schema in helm's form. Only releases come with it."""
    given, place = Path(os.environ["TURNKEY_JUPYTERHUB_CHART"]), tmp_path / "chart"
    if given.is_dir():
        shutil.copytree(given, place / "jupyterhub")
    else:
        shutil.unpack_archive(given, place, filter="data")
    schema = place / "jupyterhub/values.schema.json"
    if not schema.exists():
        schema.write_text(json.dumps(yaml.safe_load(schema.with_suffix(".yaml").read_text())))
    return schema.parent


@pytest.fixture
def helm(chart, tmp_path, render_jupyterhub):
    """Return what runs a subcommand of helm on the chart with the role's values and secrets."""
    (tmp_path / "site.py").write_text(SITE_CONFIG)

    def run(command, *arguments, **variables):
        variables = {"jupyterhub_config_file": str(tmp_path / "site.py"), **variables}
        secrets, manifest = render_jupyterhub(jupyterhub_registry=REGISTRY, **variables)
        texts = manifest["spec"]["valuesContent"], secrets[1]["stringData"]["values.yaml"]
        files = []
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.yaml").write_text(text)
            files.append(f"--values={tmp_path}/{number}.yaml")
        argv = ["helm", *command.split(), str(chart), *files, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=False), json.loads(texts[1])

    return run


def test_the_chart_takes_the_values_and_refuses_what_it_does_not_know(helm):
    done, _secrets = helm("lint --strict")
    assert done.returncode == 0, done.stdout + done.stderr
    done, _secrets = helm("lint", jupyterhub_chart_values={"singleusr": {}})
    assert done.returncode == 1
    assert "'singleusr' not allowed" in done.stderr + done.stdout


def test_the_chart_makes_what_the_role_promises_and_nothing_that_needs_more_images(helm):
    done, hidden = helm("template hub", "--kube-version=1.33")
    assert done.returncode == 0, done.stderr
    things = [thing for thing in yaml.safe_load_all(done.stdout) if thing]
    named = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}
    pods = [
        thing["spec"]["template"]["spec"] for thing in things if thing["kind"] in ("Deployment", "DaemonSet", "Job")
    ]
    images = [
        one["image"].rsplit(":", 1)[0] for pod in pods for one in pod["containers"] + pod.get("initContainers", [])
    ]
    assert sorted(images) == [f"{REGISTRY}/jupyterhub/configurable-http-proxy", f"{REGISTRY}/jupyterhub/k8s-hub"]
    secret = {name: b64decode(value).decode() for name, value in named["Secret", "hub"]["data"].items()}
    settings = yaml.safe_load(secret["values.yaml"])["hub"]
    assert settings["config"]["JupyterHub"]["authenticator_class"] == "nativeauthenticator.NativeAuthenticator"
    assert settings["config"]["Authenticator"]["allowed_users"] == ["alice"]
    assert settings["extraConfig"] == {"site": SITE_CONFIG}
    assert secret["hub.config.JupyterHub.cookie_secret"] == hidden["hub"]["cookieSecret"]
    assert secret["hub.config.ConfigurableHTTPProxy.auth_token"] == hidden["proxy"]["secretToken"]
    service = named["Service", "proxy-public"]["spec"]
    assert service["type"] == "LoadBalancer"
    assert {port["port"] for port in service["ports"]} == {80, 443}
    proxy = json.dumps(named["Deployment", "proxy"])
    assert "jupyterhub-tls" in proxy
    assert "--redirect-port" in proxy
    shown = json.dumps([thing for thing in things if thing["kind"] != "Secret"])
    assert hidden["hub"]["cookieSecret"] not in shown
    assert hidden["proxy"]["secretToken"] not in shown
