# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.providers import machines_of
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput


def test_a_provider_that_makes_no_elastic_nodes_is_an_error():
    with pytest.raises(InvalidInput, match="makes no elastic nodes"):
        machines_of({"provider": "aws"})
