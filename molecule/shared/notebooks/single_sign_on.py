# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""People log in at an identity provider, here one that does not exist."""

c = get_config()  # noqa: F821 # pylint: disable=undefined-variable
c.JupyterHub.authenticator_class = "generic-oauth"
c.GenericOAuthenticator.client_id = "notebooks"
c.GenericOAuthenticator.client_secret = "made up"
c.GenericOAuthenticator.authorize_url = "https://login.example.org/authorize"
c.GenericOAuthenticator.token_url = "https://login.example.org/token"
c.GenericOAuthenticator.userdata_url = "https://login.example.org/user"
