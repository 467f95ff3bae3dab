"""Run the cart service: ``python -m cart_service``."""

from __future__ import annotations

import sys

from cart_service.app import PROGRAM, make_app
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
    serve(settings, PROGRAM, make_app, port=settings.cart_port, threads=settings.cart_threads, cpu=settings.cart_cpu)
    return process.EX_OK


if __name__ == "__main__":
    sys.exit(main())
