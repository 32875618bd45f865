# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the templates of ``turnkey.hpc.config_files`` on the control node; the module does the rest on the host."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

TEXTS = ("content", "block")


class ActionModule(ActionBase):
    """Turn templates into texts, and hand all texts over as one value that is not logged."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with the rendered texts."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        files = arguments.get("files") or []
        if not isinstance(files, list) or not all(isinstance(item, dict) and item.get("path") for item in files):
            raise AnsibleActionFail("'files' must be a list of dictionaries that have a path each.")
        items, texts = [], []
        for item in files:
            item = dict(item)
            text = {key: self._text(item["path"], key, item.pop(key)) for key in TEXTS if item.get(key) is not None}
            if item.get("template") is not None and item.get("state", "present") == "present":
                if text:
                    raise AnsibleActionFail(f"{item['path']} needs exactly one of template, content and block.")
                text["content"] = self._render(item["template"], item["path"], variables)
            items.append(item)
            texts.append(text)
        arguments["files"] = items
        if any(texts):
            arguments["_texts"] = base64.b64encode(json.dumps(texts).encode()).decode()
        result.update(
            self._execute_module(
                module_name="turnkey.hpc.config_files", module_args=arguments, task_vars=variables, wrap_async=False
            )
        )
        return result

    @staticmethod
    def _text(path: str, key: str, value: Any) -> str:
        """Return a text as it is; numbers count as texts, other things don't."""
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
        raise AnsibleActionFail(f"{key} of {path} must be a text, not {type(value).__name__}.")

    def _render(self, template: str, path: str, variables: dict[str, Any]) -> str:
        """Return the rendered ``template``."""
        try:
            source = self._find_needle("templates", template)
            text = trust_as_template(self._loader.get_text_file_contents(source))
            roots = [*variables.get("ansible_search_path", []), self._loader.get_basedir(), str(Path(source).parent)]
            templar = self._templar.copy_with_new_env(
                searchpath=[place for root in roots for place in (str(Path(root) / "templates"), str(root))],
                available_variables={**variables, "template_path": source, "template_destpath": path},
            )
            rendered = templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True})
        except AnsibleError as exc:
            raise AnsibleActionFail(f"Template {template} for {path} can't be rendered: {exc}") from exc
        return "" if rendered is None else str(rendered)
