# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._jupyterhub import hub_config_check as check

OURS = {
    "JupyterHub": {
        "authenticator_class": type("ClusterAuthenticator", (), {}),
        "spawner_class": type("SlurmNotebook", (), {}),
        "hub_bind_url": "http://10.0.0.1:8081",
        "tornado_settings": {
            "headers": {"Strict-Transport-Security": "max-age=1"},
            "cookie_options": {"secure": True},
        },
    }
}


def test_the_roles_own_configuration_is_found_good():
    assert check.problems(OURS, OURS) == []


@pytest.mark.parametrize(
    ("section", "name", "value", "complaint"),
    [
        ("JupyterHub", "authenticator_class", "dummy", "takes any password"),
        ("JupyterHub", "authenticator_class", "jupyterhub.auth.DummyAuthenticator", "takes any password"),
        ("JupyterHub", "authenticator_class", type("DummyAuthenticator", (), {}), "takes any password"),
        ("JupyterHub", "spawner_class", "simple", "as one account"),
        ("JupyterHub", "hub_bind_url", "http://0.0.0.0:8081", "hub_bind_url is the role's"),
        ("JupyterHub", "cookie_secret", "x", "others may read"),
        ("JupyterHub", "tornado_settings", {}, "Strict-Transport-Security"),
        ("JupyterHub", "tornado_settings", {"disable_check_xsrf": True}, "XSRF"),
        ("JupyterHub", "tornado_settings", {"headers": {"Access-Control-Allow-Origin": "*"}}, "every web site"),
        ("JupyterHub", "tornado_settings", {"cookie_options": {}}, "without TLS"),
        ("JupyterHub", "allow_named_servers", True, "one user may take everything"),
        ("PAMAuthenticator", "check_account", False, "locked and expired"),
        ("Spawner", "args", ["--allow-root"], "opens notebooks"),
        ("Spawner", "args", ["--ServerApp.token="], "opens notebooks"),
    ],
)
def test_a_setting_that_would_break_security_is_named(section, name, value, complaint):
    config = copy.deepcopy(OURS)
    config.setdefault(section, {})[name] = value
    assert any(complaint in line for line in check.problems(config, OURS))


def test_other_authenticators_are_the_sites_business():
    config = copy.deepcopy(OURS)
    config["JupyterHub"]["authenticator_class"] = "ldapauthenticator.LDAPAuthenticator"
    assert check.problems(config, OURS) == []


def test_a_misspelt_setting_gets_a_suggestion():
    found = check.unknown({"JupyterHub": {"admin_acess": True}}, {"JupyterHub": {"admin_access"}})
    assert found == ["JupyterHub.admin_acess is no setting. Did you mean admin_access?"]
