"""The command ``orderflow``: one module a subcommand."""
