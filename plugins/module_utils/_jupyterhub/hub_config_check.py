# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the hub's configuration one that can be used, and does it keep what keeps people's notebooks apart?

Role jupyterhub installs this file, which imports nothing of the collection. It runs with the hub's Python.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["main", "problems", "unknown"]

# Who would get in, or out, with it.
FORBIDDEN_AUTHENTICATORS = {
    "dummy": "takes any password",
    "jupyterhub.auth.DummyAuthenticator": "takes any password",
    "jupyterhub.authenticators.dummy.DummyAuthenticator": "takes any password",
    "null": "lets services in and no people",
}
FORBIDDEN_SPAWNERS = ("simple", "jupyterhub.spawner.SimpleLocalProcessSpawner")


def problems(config: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return what would break security, or this host, in ``config``; ``ours`` is without the site's own file."""
    found = []

    def value(section: str, name: str) -> Any:
        return config.get(section, {}).get(name)

    authenticator = value("JupyterHub", "authenticator_class")
    name = (
        authenticator if isinstance(authenticator, str) else f"{authenticator.__module__}.{authenticator.__qualname__}"
    )
    if name in FORBIDDEN_AUTHENTICATORS or name.endswith("DummyAuthenticator"):
        why = FORBIDDEN_AUTHENTICATORS.get(name, "takes any password")
        found.append(f"JupyterHub.authenticator_class is {name!r}, which {why}. Remedy: leave it out, or name another.")
    spawner = value("JupyterHub", "spawner_class")
    name = spawner if isinstance(spawner, str) else f"{spawner.__module__}.{spawner.__qualname__}"
    if name in FORBIDDEN_SPAWNERS or name.endswith("SimpleLocalProcessSpawner"):
        found.append(
            f"JupyterHub.spawner_class is {name!r}, which runs all notebooks as one account. Remedy: leave it out."
        )
    # What the units, the certificate and the firewall rule of the role rest on.
    for section, name in (
        ("JupyterHub", "hub_bind_url"),
        ("JupyterHub", "hub_connect_url"),
        ("JupyterHub", "db_url"),
        ("JupyterHub", "cookie_secret_file"),
        ("JupyterHub", "bind_url"),
        ("ConfigurableHTTPProxy", "should_start"),
        ("ConfigurableHTTPProxy", "api_url"),
        ("ConfigurableHTTPProxy", "auth_token"),
    ):
        before, after = ours.get(section, {}).get(name), value(section, name)
        if before != after:
            found.append(f"{section}.{name} is the role's. Remedy: leave it out; ports are variables of the role.")
    for name in ("cookie_secret", "proxy_auth_token"):
        if value("JupyterHub", name):
            found.append(f"JupyterHub.{name} is a secret in a file that others may read. Remedy: leave it out.")
    settings = value("JupyterHub", "tornado_settings") or {}
    if settings.get("disable_check_xsrf") or settings.get("xsrf_cookies") is False:
        found.append(
            "JupyterHub.tornado_settings switches off the check for forged requests (XSRF). Remedy: leave that out."
        )
    if settings.get("debug") or settings.get("serve_traceback"):
        found.append(
            "JupyterHub.tornado_settings shows tracebacks to all. Remedy: leave 'debug' and 'serve_traceback' out."
        )
    headers = settings.get("headers") or {}
    if str(headers.get("Access-Control-Allow-Origin", "")).strip() == "*":
        found.append("JupyterHub.tornado_settings lets every web site read answers (Access-Control-Allow-Origin: *).")
    if "Strict-Transport-Security" not in headers:
        found.append(
            "JupyterHub.tornado_settings has lost the header Strict-Transport-Security. "
            "Remedy: add to the headers, don't replace them."
        )
    if (settings.get("cookie_options") or {}).get("secure") is not True:
        found.append(
            "JupyterHub.tornado_settings sends cookies without TLS, too. Remedy: keep cookie_options['secure']."
        )
    if value("PAMAuthenticator", "check_account") is False:
        found.append("PAMAuthenticator.check_account is off: locked and expired accounts get in. Remedy: leave it out.")
    for section, entries in config.items():
        for option in ("args", "cmd"):
            words = entries.get(option) if isinstance(entries, Mapping) else None
            for word in words if isinstance(words, list) else []:
                text = str(word)
                if (
                    text.startswith("--allow-root")
                    or "allow_origin='*'" in text
                    or text.endswith(("allow_origin=*", ".token=", ".token=''"))
                ):
                    found.append(
                        f"{section}.{option} has {text!r}, which opens notebooks to others. Remedy: leave it out."
                    )
    if value("JupyterHub", "allow_named_servers") and not value("JupyterHub", "named_server_limit_per_user"):
        found.append(
            "JupyterHub.allow_named_servers without named_server_limit_per_user: one user may take everything."
        )
    return found


def unknown(config: Mapping[str, Any], names: Mapping[str, set[str]]) -> list[str]:
    """Return the settings that are none of their section. ``names`` has those of the sections that can be known."""
    found = []
    for section, known in names.items():
        for name in config.get(section, {}):
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                found.append(f"{section}.{name} is no setting." + (f" Did you mean {close[0]}?" if close else ""))
    return found


def main(argv: list[str]) -> int:
    """Load the configuration with the site's file, and print what is wrong."""
    from jupyterhub.app import JupyterHub
    from jupyterhub.auth import Authenticator
    from jupyterhub.spawner import Spawner
    from traitlets.config.loader import PyFileConfigLoader

    own, site = argv
    os.environ["TURNKEY_SITE_CONFIG"] = ""
    ours = PyFileConfigLoader(own).load_config()
    os.environ["TURNKEY_SITE_CONFIG"] = site
    try:
        both = PyFileConfigLoader(own).load_config()
        names = {one.__name__: set(one.class_trait_names(config=True)) for one in (JupyterHub, Authenticator, Spawner)}
        found = unknown(both, names) + problems(both, ours)
        # Wrong types show when the values are taken.
        JupyterHub(config=both)
    except BaseException as error:  # noqa: BLE001
        found = [f"It does not work: {type(error).__name__}: {error}"]
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
