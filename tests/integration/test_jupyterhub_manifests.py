# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role hands to k3s, rendered on the control node. No k3s has run it."""

from __future__ import annotations

import base64
import json


def test_values_and_secrets_are_kept_apart_and_stay_the_same(render_jupyterhub):
    given = {"hub": {"config": {"GenericOAuthenticator": {"client_secret": "s3cret-of-the-site"}}}}
    secrets, chart = render_jupyterhub(jupyterhub_chart_secrets=given, jupyterhub_registry="10.20.0.10:5000")
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
    assert chart["spec"]["failurePolicy"] == "abort"
    visible = json.loads(chart["spec"]["valuesContent"])
    assert visible["hub"]["image"]["name"] == "10.20.0.10:5000/jupyterhub/k8s-hub"
    assert "dummy" not in shown.lower()
    assert render_jupyterhub(jupyterhub_chart_secrets=given, jupyterhub_registry="10.20.0.10:5000") == (secrets, chart)


def test_the_site_has_the_last_word_on_values_and_ports(render_jupyterhub):
    _secrets, chart = render_jupyterhub(
        jupyterhub_https_port=30443, jupyterhub_http_port=30080, jupyterhub_chart_values={"cull": {"timeout": 7}}
    )
    values = json.loads(chart["spec"]["valuesContent"])
    assert values["proxy"]["service"] == {"type": "NodePort", "nodePorts": {"http": 30080, "https": 30443}}
    assert values["cull"] == {"enabled": True, "timeout": 7}


def test_with_a_bundle_the_chart_comes_from_there(render_jupyterhub, tmp_path):
    (tmp_path / "bundle/charts").mkdir(parents=True)
    (tmp_path / "bundle/charts/hub-1.0.tgz").write_bytes(b"the chart of the bundle")
    _secrets, chart = render_jupyterhub(
        cluster_bundle=str(tmp_path / "bundle"), jupyterhub_chart="https://charts.example.org/hub-1.0.tgz"
    )
    assert base64.b64decode(chart["spec"]["chartContent"]) == b"the chart of the bundle"
