"""Run the order service: ``python -m order_service``."""

from __future__ import annotations

from order_service.app import PROGRAM, make_app
from orderflow.process import read_settings
from orderflow.wsgi.serve import serve


def main() -> None:
    """Serve until asked to stop."""
    settings = read_settings(PROGRAM)
    serve(settings, PROGRAM, make_app, port=settings.order_port, threads=settings.order_threads, cpu=settings.order_cpu)


if __name__ == "__main__":
    main()
