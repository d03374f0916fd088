"""The command line: bring a cluster up and down, build programs, load images."""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from localcluster import backends, binaries
from localcluster.console import Console
from localcluster.errors import ClusterError
from localcluster.layout import REPOSITORY, Layout

_DIRECTORY = REPOSITORY / ".cluster"
_EPILOG = """\
environment:
  CLUSTER               local, kind or current (the cluster of your kubeconfig); unset:
                        kind where a Docker engine and kind are there, local elsewhere
  RERANKER_CLUSTER_BIN  directory of the built binaries, to share them between clusters

The local cluster enforces no NetworkPolicy and does not reach the Internet: images
are loaded, not pulled. Exit code: 1 something failed, 2 the machine lacks something.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        return _run(options, Layout.at(options.dir), console)
    except ClusterError as error:
        console.say(f"error: {error}")
        return error.exit_code
    except OSError as error:
        console.say(f"error: {_describe(error)}")
        return 1
    except KeyboardInterrupt:
        console.say("interrupted; the same command goes on from here")
        return 130


def _run(options: argparse.Namespace, layout: Layout, console: Console) -> int:
    backend = backends.select(layout, options.name, console)
    if options.command == "env":
        print(_environment(layout))
        return 0
    if options.command == "status":
        return _print_status(backend, options.dir)
    with _cluster_lock(layout, console):
        if options.command == "up":
            backend.up()
        elif options.command == "binaries":
            backend.binaries()
        elif options.command == "test-servers":
            binaries.ensure(layout.bin, layout.logs, console, binaries.TEST_TOOLS)
        elif options.command == "keda":
            binaries.ensure(layout.bin, layout.logs, console, (binaries.KEDA,))
        elif options.command == "load-image":
            backend.load_images(options.image)
        else:
            backend.down(purge=options.purge)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster",
        description="A one-node Kubernetes for development and tests, without Docker.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=_DIRECTORY,
        help="where the cluster lives (default: .cluster in the repository)",
    )
    parser.add_argument("--name", help="the cluster's name (default: derived from the directory)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="bring the cluster up; also after a crash or a power loss")
    down = commands.add_parser("down", help="remove the cluster and all that it made")
    down.add_argument("--purge", action="store_true", help="remove built binaries and images too")
    commands.add_parser("status", help="show every component, and whether it is ready")
    commands.add_parser("binaries", help="build the cluster's programs, start nothing")
    commands.add_parser("test-servers", help="build the servers that tests start")
    commands.add_parser("keda", help="build KEDA, which its tests start; many minutes")
    load = commands.add_parser("load-image", help="make images available to pods")
    load.add_argument(
        "image", nargs="+", help="an archive (OCI or Docker), or a name in buildah's store"
    )
    commands.add_parser("env", help='print shell settings: eval "$(cluster env)"')
    return parser


def _print_status(backend: backends.Backend, directory: Path) -> int:
    components = backend.status()
    if not components:
        print("no cluster here: bring one up (make cluster)")
        return 1
    for component in components:
        ready = "ready" if component.ready else "NOT READY"
        pid = "-" if component.pid is None else str(component.pid)
        print(f"{component.name:<26}{pid:>9}  {ready:<10} {component.detail}".rstrip())
    where = "" if directory == _DIRECTORY else f" --dir {shlex.quote(str(directory))}"
    print(f'\nkubectl and helm for it: eval "$(hack/local-cluster/cluster{where} env)"')
    return 0 if all(component.ready for component in components) else 1


def _environment(layout: Layout) -> str:
    """Return shell lines that point kubectl and helm at the cluster."""
    lines = [
        f"export KUBECONFIG={shlex.quote(str(layout.kubeconfig))}",
        f'export PATH={shlex.quote(str(layout.bin))}:"$PATH"',
    ]
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        lines.append('export NO_PROXY="10.0.0.0/8${NO_PROXY:+,$NO_PROXY}"')
    return "\n".join(lines)


@contextlib.contextmanager
def _cluster_lock(layout: Layout, console: Console) -> Iterator[None]:
    """Let one command at a time change the cluster; leave no directory that holds nothing."""
    with contextlib.ExitStack() as stack:

        def locked() -> bool:
            layout.root.mkdir(parents=True, exist_ok=True)
            stream = layout.lock.open("a")
            stack.callback(stream.close)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have removed it on the way out.
                return os.fstat(stream.fileno()).st_ino == layout.lock.stat().st_ino
            except (BlockingIOError, FileNotFoundError):
                stream.close()
                return False

        console.wait_for("another cluster command to end", locked, timeout_seconds=1800)
        try:
            yield
        finally:
            if [path.name for path in layout.root.iterdir()] == [layout.lock.name]:
                layout.lock.unlink()
                layout.root.rmdir()


def _describe(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full ({error.filename or 'no file named'}): free some and try again"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{error.filename}: permission denied; run it as root (sudo)"
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")


if __name__ == "__main__":
    sys.exit(main())
