"""The parts of the local cluster that decide something without touching the machine."""

from __future__ import annotations

import io
import ipaddress
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack" / "local-cluster"))

from localcluster import archives, backends, binaries, cli, files, processes, recovery, state
from localcluster.addressing import INDEXES, Addresses, choose_index
from localcluster.health import ComponentHealth
from localcluster.layout import TOOL_DIR, Layout, valid_name

INDEX = st.integers(0, INDEXES - 1)


class TestAddressing:
    @given(INDEX, INDEX)
    def test_clusters_share_no_address(self, one: int, other: int) -> None:
        overlap = Addresses(one).block.overlaps(Addresses(other).block)
        assert overlap == (one == other)

    @given(INDEX)
    def test_a_cluster_keeps_pods_services_and_link_apart(self, index: int) -> None:
        addresses = Addresses(index)
        link = f"{addresses.node}/{addresses.link_prefix}"
        parts = [
            ipaddress.IPv4Network(text, strict=False)
            for text in (addresses.pods, addresses.services, link)
        ]
        assert all(part.subnet_of(addresses.block) for part in parts)
        assert not any(a.overlaps(b) for a in parts for b in parts if a is not b)
        assert ipaddress.ip_address(addresses.dns_service) in parts[1]
        assert ipaddress.ip_address(addresses.host) in parts[2]
        assert len(addresses.interface) <= 15  # the kernel's limit

    def test_the_preferred_index_is_taken_when_free(self) -> None:
        assert choose_index(7, ["192.0.2.0/24", "10.0.0.0/24"], ["eth0"]) == 7

    def test_indexes_in_use_are_skipped(self) -> None:
        used = [str(Addresses(7).block), f"{Addresses(8).host}/30", "0.0.0.0/0"]
        assert choose_index(7, used, [Addresses(9).interface]) == 10
        assert choose_index(INDEXES - 1, [str(Addresses(INDEXES - 1).block)], []) == 0

    def test_inside_a_route_that_covers_everything_the_more_specific_one_wins(self) -> None:
        assert choose_index(3, ["10.0.0.0/8"], []) == 3
        assert choose_index(3, ["10.0.0.0/8", str(Addresses(3).block)], []) == 4

    def test_none_is_left(self) -> None:
        assert choose_index(0, [], [Addresses(index).interface for index in range(INDEXES)]) is None


class TestProcessIdentity:
    def test_a_command_name_may_look_like_fields(self) -> None:
        stat = f"42 (a) R 1 (b c) S {' '.join(str(n) for n in range(4, 60))}"
        assert processes.parse_start_ticks(stat) == 22

    @pytest.mark.parametrize("gone", ["Z", "X"])
    def test_an_ended_process_is_not_alive(self, gone: str) -> None:
        stat = f"42 (sleep) {gone} {' '.join('0' for _ in range(50))}"
        assert processes.parse_start_ticks(stat) is None

    def test_a_recycled_pid_is_somebody_else_and_is_not_killed(self, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "60"]) as bystander:
            identity = processes.identify(bystander.pid)
            assert identity is not None
            earlier = processes.ProcessIdentity(
                identity.pid, identity.start_ticks - 1, identity.boot_id
            )
            record = processes.ProcessRecord(earlier, "spec")
            processes.write_record(tmp_path / "kubelet.json", record)
            assert processes.live_record(tmp_path / "kubelet.json") is None
            processes.stop(record)
            assert bystander.poll() is None
            processes.stop(processes.ProcessRecord(identity, "spec"))
            assert bystander.wait(timeout=10) != 0

    def test_a_damaged_record_is_none(self, tmp_path: Path) -> None:
        for text in ("", "{", "[]", '{"pid": "x"}', '{"pid": 1}'):
            (tmp_path / "etcd.json").write_text(text)
            assert processes.read_record(tmp_path / "etcd.json") is None


class TestState:
    def test_it_comes_back(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path, tmp_path / "bin")
        kept = state.State(state.LOCAL, "dev-1", 5)
        state.save(layout, kept)
        assert state.load(layout) == kept

    @pytest.mark.parametrize(
        "text",
        ["", "{", '{"backend": "local"}', '{"backend": "local", "name": "x", "index": 64}',
         '{"backend": "local", "name": "../x", "index": 1}', '{"backend": "vm", "name": "x"}'],
    )  # fmt: skip
    def test_a_damaged_file_is_no_state(self, tmp_path: Path, text: str) -> None:
        layout = Layout(tmp_path, tmp_path / "bin")
        layout.state.write_text(text)
        assert state.load(layout) is None


def test_the_status_says_how_a_shell_gets_at_the_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found: list[ComponentHealth] = []
    chosen = SimpleNamespace(status=lambda: found)
    monkeypatch.setattr(backends, "select", lambda *_: chosen)
    assert cli.main(["--dir", str(tmp_path / "a b"), "status"]) == 1
    assert "env" not in capsys.readouterr().out
    found.append(ComponentHealth("etcd", pid=7, ready=True))
    assert cli.main(["status"]) == 0
    assert 'eval "$(hack/local-cluster/cluster env)"' in capsys.readouterr().out
    assert cli.main(["--dir", str(tmp_path / "a b"), "status"]) == 0
    assert f"cluster --dir '{tmp_path}/a b' env)" in capsys.readouterr().out


def test_a_directory_gives_a_valid_name_and_an_id_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "Größe_1", "-" * 60, "x" * 200)]
    layouts = [Layout(path / ".cluster", path / "bin") for path in paths]
    assert all(valid_name(layout.default_name) for layout in layouts)
    assert len({layout.id for layout in layouts}) == len(layouts)


def test_writing_the_same_again_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert files.write(path, "one", mode=0o600)
    os.utime(path, ns=(1, 1))
    assert not files.write(path, "one", mode=0o600)
    assert path.stat().st_mtime_ns == 1
    assert files.write(path, "two", mode=0o600)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


class TestStamp:
    def test_every_tool_is_pinned_and_its_stamp_is_stable(self) -> None:
        assert all(tool.version.startswith("v") for tool in binaries.TOOLS)
        assert len({tool.stamp for tool in binaries.TOOLS}) == len(binaries.TOOLS)
        assert [tool.stamp for tool in binaries.TOOLS] == [t.stamp for t in binaries.TOOLS]
        assert "gitVersion=v1." in binaries.KUBERNETES.linker_flags

    def test_what_is_not_built_as_pinned_is_missing(self, tmp_path: Path) -> None:
        assert binaries.missing(tmp_path) == list(binaries.TOOLS)
        (tmp_path / "pause").touch()
        stamp = tmp_path / ".stamps" / "pause.json"
        files.write_json(stamp, {"stamp": "of an older version"})
        assert binaries.PAUSE in binaries.missing(tmp_path)
        files.write_json(stamp, {"stamp": binaries.PAUSE.stamp})
        assert binaries.PAUSE not in binaries.missing(tmp_path)
        (tmp_path / "pause").unlink()
        assert binaries.PAUSE in binaries.missing(tmp_path)


class TestRecovery:
    @pytest.mark.parametrize(
        "output",
        ["panic: invalid page type: 0: 10", "wal: crc mismatch", "snap: file unexpectedly short",
         'fatal "failed to open WAL" error "wal: file not found" unexpected EOF'],
    )  # fmt: skip
    def test_unreadable_data_is_recognised(self, output: str) -> None:
        assert recovery.looks_damaged(output)

    @pytest.mark.parametrize(
        "output",
        ["listen tcp 127.0.0.1:2380: bind: address already in use",
         "panic: write wal: no space left on device", "", "received signal; shutting down"],
    )  # fmt: skip
    def test_anything_else_never_costs_the_data(self, output: str) -> None:
        assert not recovery.looks_damaged(output)


class TestArchives:
    NAME = "localhost/test/program:v1"

    def _write(self, tmp_path: Path) -> Path:
        program = tmp_path / "program"
        program.write_bytes(b"\x7fELF" + os.urandom(8))
        archive = tmp_path / "image.tar"
        archives.write_program_image(
            archive, name=self.NAME, program=program, target="/bin/program", entrypoint=["/p"]
        )
        return archive

    def test_the_same_program_gives_the_same_bytes(self, tmp_path: Path) -> None:
        archive = self._write(tmp_path)
        first = archive.read_bytes()
        os.utime(tmp_path / "program", (0, 0))
        archives.write_program_image(
            archive,
            name=self.NAME,
            program=tmp_path / "program",
            target="/bin/program",
            entrypoint=["/p"],
        )
        assert archive.read_bytes() == first

    def test_a_copy_has_the_names_it_is_given(self, tmp_path: Path) -> None:
        copy = tmp_path / "copy.tar"
        with archives.open_layout(self._write(tmp_path)) as opened, copy.open("wb") as stream:
            (image,) = opened.images()
            assert image.name == self.NAME
            opened.copy(stream, {image.digest: "localhost/other:v2"}, present=set())
        with archives.open_layout(copy) as copied:
            assert copied.images() == [archives.ArchivedImage("localhost/other:v2", image.digest)]

    def test_large_blobs_that_are_present_do_not_travel(self, tmp_path: Path) -> None:
        layout = tmp_path / "layout"
        with tarfile.open(self._write(tmp_path)) as tar:
            tar.extractall(layout, filter="data")
        blob = layout / "blobs" / "sha256" / ("f" * 64)
        blob.write_bytes(b"\0" * 2 * 1024**2)
        with archives.open_layout(layout) as opened:
            (image,) = opened.images()
            names = {image.digest: self.NAME}
            everything, without = io.BytesIO(), io.BytesIO()
            copied = opened.copy(everything, names, present=set())
            saved = copied - opened.copy(without, names, present={blob.name})
        assert saved == 2 * 1024**2

    def test_a_damaged_manifest_is_noticed(self, tmp_path: Path) -> None:
        with archives.open_layout(self._write(tmp_path)) as opened:
            (image,) = opened.images()
            with opened.open(archives.blob_path(image.digest)) as stream:
                manifest = stream.read()
            sizes = archives.blob_sizes(manifest, image.digest)
            assert {opened.sizes[archives.blob_path(blob)] for blob in sizes} == set(sizes.values())
        with pytest.raises(ValueError, match=image.digest):
            archives.blob_sizes(b"", image.digest)


FAKES = {
    "docker": "echo 28.0",
    "kind": """
        echo "$@" >> "$FAKE_LOG"
        for word; do case "$word" in
            --name=*) name=${word#--name=} ;; --kubeconfig=*) kubeconfig=${word#*=} ;;
        esac; done
        case "$1 $2" in
            "get clusters") cat "$FAKE_LOG.clusters" 2>/dev/null ;;
            "create cluster") echo "$name" > "$FAKE_LOG.clusters"; echo k > "$kubeconfig" ;;
            "export kubeconfig") echo k > "$kubeconfig" ;;
            "delete cluster") rm "$FAKE_LOG.clusters" ;;
        esac
        exit 0
    """,
    "kubectl": """
        echo "$@" >> "$FAKE_LOG"
        [ "$2" = view ] && echo '{"kind": "Config"}'; [ "$2" = current-context ] && echo mine
        exit 0
    """,
}


class TestKindAndCurrentContext:
    """The command line itself, with stand-ins for docker, kind and kubectl on PATH."""

    def _cluster(self, tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run ``cluster`` for a directory of its own; return its exit code and its output."""
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        for name, body in FAKES.items():
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
        cluster = [
            sys.executable,
            str(TOOL_DIR / "cluster"),
            f"--dir={tmp_path / 'c'}",
            "--name=dev",
        ]
        done = subprocess.run(
            [*cluster, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": f"{programs}:/usr/bin:/bin",
                "FAKE_LOG": str(tmp_path / "log"),
                **variables,
            },
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    def test_kind_is_used_where_docker_and_kind_are_there(self, tmp_path: Path) -> None:
        image = tmp_path / "image.tar"
        image.touch()
        kubeconfig = tmp_path / "c" / "kubeconfig"
        for arguments in (["up"], ["up"], ["load-image", str(image)]):
            assert self._cluster(tmp_path, *arguments)[0] == 0
        assert kubeconfig.stat().st_mode & 0o777 == 0o600
        asked = (tmp_path / "log").read_text()
        assert asked.count("create cluster") == 1
        assert f"load image-archive {image} --name=dev" in asked
        code, output = self._cluster(tmp_path, "up", CLUSTER="local")
        assert code == 2
        assert "holds a kind cluster" in output
        assert self._cluster(tmp_path, "down")[0] == 0
        assert not kubeconfig.exists()

    def test_the_current_context_is_copied_and_otherwise_left_alone(self, tmp_path: Path) -> None:
        assert self._cluster(tmp_path, "up", CLUSTER="current")[0] == 0
        kubeconfig = tmp_path / "c" / "kubeconfig"
        assert kubeconfig.read_text().strip() == '{"kind": "Config"}'
        assert kubeconfig.stat().st_mode & 0o777 == 0o600
        code, output = self._cluster(tmp_path, "load-image", "localhost/x:v1")
        assert code == 2
        assert "push localhost/x:v1 to a registry" in output
        assert self._cluster(tmp_path, "down")[0] == 0
        assert not (tmp_path / "c").exists()
        assert "delete" not in (tmp_path / "log").read_text()

    def test_an_unknown_kind_of_cluster_is_refused(self, tmp_path: Path) -> None:
        code, output = self._cluster(tmp_path, "up", CLUSTER="vm")
        assert code == 2
        assert "CLUSTER=vm: use one of local, kind, current" in output
