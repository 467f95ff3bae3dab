"""Run the order service: ``python -m order_service``."""

from __future__ import annotations

import sys

from order_service.app import PROGRAM, make_app
from orderflow import process
from orderflow.errors import SettingsError
from orderflow.settings import Settings
from orderflow.wsgi.serve import serve


def main() -> int:
    """Serve until asked to stop."""
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return process.EX_CONFIG
    serve(settings, PROGRAM, make_app, port=settings.order_port, threads=settings.order_threads, cpu=-1)
    return process.EX_OK


if __name__ == "__main__":
    sys.exit(main())
