"""Run the cart service: ``python -m cart_service``."""

from __future__ import annotations

from cart_service.app import PROGRAM, make_app
from orderflow.process import read_settings
from orderflow.wsgi.serve import serve


def main() -> None:
    """Serve until asked to stop."""
    settings = read_settings(PROGRAM)
    serve(settings, PROGRAM, make_app, port=settings.cart_port, threads=settings.cart_threads, cpu=settings.cart_cpu)


if __name__ == "__main__":
    main()
