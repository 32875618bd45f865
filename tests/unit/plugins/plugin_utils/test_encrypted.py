# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest
from ansible.parsing.vault import EncryptedString
from ansible_collections.turnkey.hpc.plugins.plugin_utils._encrypted import hide_encrypted

SECRET = EncryptedString(ciphertext="$ANSIBLE_VAULT;1.1;AES256\n00\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (SECRET, "{{ encrypted }}"),
        ([1, {"key": SECRET}], [1, {"key": "{{ encrypted }}"}]),
        ("plain", "plain"),
        (None, None),
    ],
)
def test_what_is_encrypted_is_neither_decrypted_nor_shown(value, expected):
    assert hide_encrypted(value) == expected
