"""What a worker process is made of: signals, exit codes, its heartbeat file, its lock, its parent."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import structlog

from orderflow.errors import SettingsError
from orderflow.measures import Distribution, Lag  # noqa: TC001 (msgspec reads the annotations)
from orderflow.settings import Settings, supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger(__name__)

#: All went well, or it was asked to stop.
EX_OK = 0
#: A person must change a setting or a file (sysexits.h): Supervisor does not start the program again.
EX_CONFIG = 78
#: Ended at once by a second signal.
EX_INTERRUPTED = 130

#: The workers, whose heartbeats others read.
CONSUMER, RELAY = "order-consumer", "outbox-relay"

State = Literal["starting", "running", "waiting", "draining"]

_PR_SET_PDEATHSIG = 1


def read_settings(program: str) -> Settings:
    """Read the settings; where one is wrong, say which, and exit with `EX_CONFIG`."""
    try:
        return Settings.from_env()
    except SettingsError as error:
        sys.stderr.write(f"{program}: {error}\n")
        sys.exit(EX_CONFIG)


class StopFlag:
    """Set by the first SIGTERM or SIGINT; the second one ends the process at once.

    A signal's handler runs between any two steps of the main thread, so it takes no lock and logs nothing: both could
    be in use by what it interrupts. It sets a flag, and wakes who waits through a pipe.
    """

    def __init__(self) -> None:
        self._set = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def __del__(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)

    def install(self) -> StopFlag:
        """Take the signals. Call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, _: int, __: object) -> None:
        if self._set:
            os._exit(EX_INTERRUPTED)
        self.set()

    def set(self) -> None:
        """Ask the process to stop."""
        self._set = True
        os.write(self._wake_write, b"!")

    def __bool__(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> bool:
        """Sleep, or wake when asked to stop: True then."""
        if not self._set:
            select.select([self._wake_read], [], [], seconds)
        return self._set


class Heartbeat:
    """The file ``var/run/<program>.json``: state, what is waited for, and what the worker counts and measures.

    The main loop beats, so that a loop that stands still is seen; it beats while it waits, too.
    """

    def __init__(self, settings: Settings, program: str) -> None:
        self.path = settings.run_dir / f"{program}.json"
        self.counters: dict[str, int] = {}
        self.lags: dict[int, Lag] = {}
        self.distributions: dict[str, Distribution] = {}
        self._program = program
        self._started_at = time.time()
        self._settings = settings
        self._last: tuple[float, State, str | None] = (0.0, "starting", None)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def beat(self, state: State, waits_for: str | None = None) -> None:
        """Write the file when its interval has passed, or when something but a counter changed."""
        if self._is_due(state, waits_for):
            self._write(self._own(state, waits_for))

    def stand_by(self, waits_for: str) -> None:
        """Tell what is waited for, unless another process beats: its counters would jump to and fro."""
        last = fresh_heartbeat(self._settings, self._program)
        if last is None or last.pid == os.getpid():
            self.stand_in(waits_for)

    def stand_in(self, waits_for: str) -> None:
        """Beat as ``waiting`` in the stead of the one that worked last: what it has counted stays.

        What waited then waits on; whether anything else does nobody knows.
        """
        if not self._is_due("waiting", waits_for):
            return
        last = read_heartbeat(self._settings, self._program) or self._own("waiting", waits_for)
        waiting = {partition: lag for partition, lag in last.lags.items() if lag.records}
        said: dict[str, Any] = {"state": "waiting", "waits_for": waits_for, "lags": waiting}
        self._write(msgspec.structs.replace(last, pid=os.getpid(), at=time.time(), **said))

    def _is_due(self, state: State, waits_for: str | None) -> bool:
        now = time.monotonic()
        at, *before = self._last
        if before == [state, waits_for] and now - at < self._settings.heartbeat_interval_s:
            return False
        self._last = (now, state, waits_for)
        return True

    def _own(self, state: State, waits_for: str | None) -> Beat:
        said = (state, waits_for, self.counters, self._started_at, self.lags, self.distributions)
        return Beat(self._program, os.getpid(), time.time(), *said)

    def _write(self, entry: Beat) -> None:
        draft = self.path.with_suffix(f".{os.getpid()}.new")
        try:
            draft.write_bytes(msgspec.json.encode(entry))
            draft.replace(self.path)
        except OSError as error:
            log.warning("heartbeat.failed", path=str(self.path), error=str(error))


class Beat(msgspec.Struct, frozen=True):
    """What a heartbeat file says; times are in seconds since 1970, lags are by partition."""

    program: str
    pid: int
    at: float
    state: State
    waits_for: str | None
    counters: dict[str, int]
    started_at: float = 0.0
    lags: dict[int, Lag] = {}
    distributions: dict[str, Distribution] = {}

    def age_s(self) -> float:
        """Tell how long ago it was written."""
        return time.time() - self.at


def read_heartbeat(settings: Settings, program: str) -> Beat | None:
    """Read a program's heartbeat; None when there is none that can be read."""
    try:
        return msgspec.json.decode((settings.run_dir / f"{program}.json").read_bytes(), type=Beat)
    except (OSError, msgspec.MsgspecError):
        return None


def fresh_heartbeat(settings: Settings, program: str) -> Beat | None:
    """Read a program's heartbeat; None when it does not beat any more, or never did."""
    beat = read_heartbeat(settings, program)
    return None if beat is None or beat.age_s() > settings.heartbeat_stale_s else beat


@contextmanager
def exclusive_lock(path: Path, stop: StopFlag, waiting: Callable[[int | None], None]) -> Iterator[bool]:
    """Hold a lock file. While another process holds it, call ``waiting`` with its pid twice a second.

    Yields False when asked to stop before the lock was free. The kernel frees it when the process dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        while not (held := try_lock(file.fileno())) and not stop:
            file.seek(0)
            holder = file.read().strip()
            waiting(int(holder) if holder.isdigit() else None)
            stop.wait(0.5)
        if held:
            with suppress(OSError):  # The pid is for people; a full disk keeps nobody from working.
                os.truncate(file.fileno(), 0)
                os.write(file.fileno(), f"{os.getpid()}\n".encode())
        yield held


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder, until it is closed; False where another process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def exists(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel signal this process when its parent (a pid) dies, however it dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(EX_OK)  # The parent died before the call: nobody will send the signal.


def stop_with_supervisor() -> None:
    """Stop when Supervisor is killed: a second one would start a second of each program beside these."""
    if supervised():
        die_with_parent(os.getppid(), signal.SIGTERM)


def bind_thread(cpu: int) -> bool:
    """Bind this thread, and those it begins, to one CPU, where none of them interrupts another.

    It is the ``cpu``-th of those that this thread may use. False: something of it is not permitted.
    """
    try:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[cpu % len(allowed)]})
        # A thread that is woken would take the CPU from the one that holds Python's lock, only to wait for the lock.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True
