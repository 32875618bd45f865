# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import MANIFEST, parse


def test_the_bill_has_everything_that_others_made_by_name_version_and_digest(sealed):
    manifest = parse((sealed[0] / MANIFEST).read_text(), "manifest.json")
    bill = json.loads((sealed[0] / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    wanted = {file.path: file for file in manifest.files if not file.kind.endswith("index") and file.kind != "sbom"}
    assert {one["bom-ref"] for one in bill["components"]} == set(wanted)
    for component in bill["components"]:
        assert component["hashes"] == [{"alg": "SHA-256", "content": wanted[component["bom-ref"]].sha256}]
        assert component["type"] == ("container" if component["bom-ref"].startswith("images/") else "library")
        who = wanted[component["bom-ref"]].needed_by
        assert [one["value"] for one in component.get("properties", [])] == ([" ".join(who)] if who else [])
    packages = {one["bom-ref"]: one["purl"] for one in bill["components"]}
    deb = next(path for path in packages if path.startswith("apt/"))
    assert packages[deb] == "pkg:deb/debian/deb@1?arch=amd64&distro=debian-12"
