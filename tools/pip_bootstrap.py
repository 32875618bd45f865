# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand in for the get-pip script that ansible-test downloads, for places where that site can't be reached.

ansible-test runs it inside a new, empty virtual environment, with the packages to install as arguments besides pip's
own options. Python brings a pip in ensurepip; that one installs the wanted version from the package index.
"""

from __future__ import annotations

import os
import subprocess
import sys

SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def main(arguments: list[str]) -> int:
    """Install what the arguments name, without the options meant for the real get-pip."""
    packages = [argument for argument in arguments if not argument.startswith("-")]
    subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
    environment = dict(os.environ)
    # The pip of ensurepip trusts only its own bundle, which knows nothing of a site's proxy.
    if "PIP_CERT" not in environment and os.path.exists(SYSTEM_BUNDLE):  # noqa: PTH110  (ansible-test copies this file to any Python)
        environment["PIP_CERT"] = SYSTEM_BUNDLE
    return subprocess.call(
        [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *packages], env=environment
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
