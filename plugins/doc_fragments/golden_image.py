# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that make golden images have in common; module_utils/_images.py has the same for their arguments."""

from __future__ import annotations


class ModuleDocFragment:
    """The inputs of an image, and with C(golden_image.build) what it is made of."""

    DOCUMENTATION = r"""
options:
  input_paths:
    description: Files and directories whose contents decide whether the image must be built again.
    type: list
    elements: path
    default: []
  input_values:
    description: Further values that decide it.
    type: list
    elements: str
    default: []
  inputs:
    description: Hash of the inputs, as the module returned it before the build. Needed to publish.
    type: str
attributes:
  check_mode:
    support: full
    description: Says whether the image would be made.
  diff_mode:
    support: none
    description: An image is made whole or not at all.
  idempotent:
    support: full
    description: An image with the hash of the inputs is not made again.
"""

    BUILD = r"""
options:
  build:
    description:
      - Name of the build, as the module returned it, and of the cluster or container that the image is made of.
      - Needed to publish.
    type: str
  hours:
    description: How long a build may last before it counts as forgotten.
    type: float
    default: 3
"""
