"""Serving on granian: one process for each service, which dies with its parent.

Why granian, and why one: docs/adr/0005-granian-one-process.md.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import structlog
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from orderflow import logs, process
from orderflow.wsgi.draining import begin_draining

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

#: A client that has not sent its request's head by then is cut off.
HEADER_TIMEOUT_MS = 10_000

#: granian's loggers go through ours.
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"_granian": {}}}


class _Server(MPServer):
    """Lets callers know that it is stopping before it does.

    granian closes idle connections without a word, and with them the requests that are just being sent on them. So for
    a moment every answer first says ``Connection: close``.
    """

    notice_s = 0.0

    def signal_handler_interrupt(self, *_: Any, **__: Any) -> None:
        begin_draining()
        signal.signal(signal.SIGALRM, super().signal_handler_interrupt)
        signal.setitimer(signal.ITIMER_REAL, self.notice_s)


def _on_one_cpu(app: Callable[..., Any], cpu: int) -> Callable[..., Any]:
    """Bind each thread that runs the application when it does so first.

    Threads that share Python's lock cannot use two CPUs and pay for trying. granian's own thread, which reads and
    writes the sockets, does not take the lock and stays free.
    """
    thread = threading.local()

    def bound(environ: dict[str, Any], start_response: Any) -> Any:
        if not hasattr(thread, "bound"):
            thread.bound = process.bind_thread(cpu)
        return app(environ, start_response)

    return bound


def serve(
    settings: Settings, program: str, make_app: Callable[[Settings], Any], *, port: int, threads: int, cpu: int
) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first, within the drain timeout.

    ``make_app`` is called in the worker process: what it builds is never shared with the main one.
    """
    main_pid = os.getpid()
    process.stop_with_supervisor()
    logs.set_up(settings, program)

    def load(*_: object, **__: object) -> Any:
        process.die_with_parent(main_pid)
        app = make_app(settings)
        return app if cpu < 0 else _on_one_cpu(app, cpu)

    server = _Server(
        program,
        address=settings.http_host,
        port=port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=threads,
        # Beyond this many requests at work or waiting, granian reads no further ones.
        backpressure=settings.http_backpressure,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        websockets=False,
        log_dictconfig=LOGGING,
        log_level=LogLevels.error,  # It warns of many threads; a slow client holds one, so there are many.
        log_access=False,
        workers_kill_timeout=round(settings.http_drain_timeout_s),
        process_name=None,
    )
    server.notice_s = settings.http_stop_notice_s
    log.info("process.started", address=f"http://{settings.http_host}:{port}")
    server.serve(target_loader=load, wrap_loader=False)
    log.info("process.stopped")
