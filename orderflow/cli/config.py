"""``orderflow config``: all settings with their values."""

from __future__ import annotations

from orderflow.cli.terminal import JsonOption, StackOption, settings_of, show_json, show_table
from orderflow.settings import Settings


def config(*, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Show all settings with their values; secrets are masked.

    For example:
    $ orderflow config
    $ orderflow config --stack /var/tmp/second --json
    """
    defaults = Settings().public()
    shown = {
        name: {"value": value, "default": value == defaults[name]}
        for name, value in settings_of(stack).public().items()
    }

    if as_json:
        show_json(shown)
    else:
        rows = [(name, one["value"], "default" if one["default"] else "set") for name, one in shown.items()]
        show_table(("setting", "value", ""), rows)
