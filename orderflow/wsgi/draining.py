"""Whether this service is stopping: told by the server's main process, read by its worker.

granian's worker takes SIGTERM itself, so the main process says it in a byte that both share.
"""

from __future__ import annotations

import ctypes
from multiprocessing import RawValue

_draining = RawValue(ctypes.c_bool, False)


def begin_draining() -> None:
    """Say that this service is stopping."""
    _draining.value = True


def is_draining() -> bool:
    """Tell whether it is."""
    return bool(_draining.value)
