"""The cluster's long-running processes: start, recognise, stop.

A process id alone proves nothing after a crash or a reboot: the number may
belong to somebody else by then. So a record carries the boot and the start
time too, and signals go through a pidfd, which cannot be recycled between the
check and the kill.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster import files
from localcluster.errors import ClusterError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOG_LIMIT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class ProcessIdentity:
    """One process for good: no later process ever equals it."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True)
class ProcessRecord:
    """What ``run/<name>.json`` says: which process it is, and what it was started from."""

    identity: ProcessIdentity
    spec: str


def parse_start_ticks(stat: str) -> int | None:
    """Return the start time (clock ticks since boot) in a /proc/PID/stat line.

    None for a process that has ended and waits to be collected. The command
    name in parentheses may hold spaces and parentheses itself.
    """
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZXx":
        return None
    return int(fields[19])


def identify(pid: int, proc: Path = Path("/proc")) -> ProcessIdentity | None:
    """Return the identity of the live process that has this id now."""
    try:
        ticks = parse_start_ticks((proc / str(pid) / "stat").read_text(errors="replace"))
        return None if ticks is None else ProcessIdentity(pid, ticks, boot_id())
    except (OSError, ValueError):
        return None


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return _BOOT_ID.read_text().strip()


def write_record(path: Path, record: ProcessRecord) -> None:
    """Store a record atomically."""
    files.write_json(path, {**asdict(record.identity), "spec": record.spec}, mode=0o600)


def read_record(path: Path) -> ProcessRecord | None:
    """Return the record in ``path``; None when it is absent or damaged."""
    value = files.read_json(path)
    try:
        identity = ProcessIdentity(
            int(value["pid"]), int(value["start_ticks"]), str(value["boot_id"])
        )
        return ProcessRecord(identity, str(value["spec"]))
    except (KeyError, TypeError, ValueError):
        return None


def live_record(path: Path) -> ProcessRecord | None:
    """Return the record in ``path`` if the process it names still runs."""
    record = read_record(path)
    if record is None or identify(record.identity.pid) != record.identity:
        return None
    return record


def spawn(
    argv: Sequence[str],
    *,
    record: Path,
    spec: str,
    log: Path,
    env: Mapping[str, str],
    before_exec: Callable[[], None],
) -> int:
    """Start a process that outlives this one, and return its pid.

    The child writes its own record before it becomes the program, so that no
    moment exists at which it runs unrecorded.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".1.log"))

    def prepare() -> None:
        os.umask(0o022)
        # Pods inherit it from containerd: a shell's 1024 files are too few for servers.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        before_exec()
        identity = identify(os.getpid())
        if identity is None:
            raise OSError("a new process does not find itself in /proc")
        write_record(record, ProcessRecord(identity, spec))

    try:
        with log.open("ab") as output:
            # Nothing waits for it: it belongs to init once this command ends.
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd="/",
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - this program has one thread
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"{argv[0]} could not be started: {error}") from error
    return process.pid


def stop(record: ProcessRecord, *, grace_seconds: float = 10.0) -> None:
    """End a recorded process: SIGTERM, then SIGKILL. Never touches a successor of its pid."""
    try:
        descriptor = os.pidfd_open(record.identity.pid)
    except ProcessLookupError:
        return
    try:
        if identify(record.identity.pid) != record.identity:
            return
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if _has_ended(descriptor, seconds):
                return
    finally:
        os.close(descriptor)
    raise ClusterError(f"process {record.identity.pid} does not end, not even by SIGKILL")


def _has_ended(descriptor: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
