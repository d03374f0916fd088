"""What all clients of HTTP have in common: bounds on every answer, and proxies that are none."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from engine_builder.cli import main
from engine_builder.oci.auth import RegistryAuth
from engine_builder.transfer import Place, new_client, read_json

from .remote import Quiet, serving

PLACE = Place("about", "the server", "log in", "spell it")
#: Far above what a client takes and what lies in between: pipes of the system.
MUCH = 48 << 20


class Endless(Quiet):
    """Bodies without end where nobody asked for one."""

    bomb: bytes
    sent: dict[str, int]

    def do_GET(self) -> None:  # noqa: N802
        """Redirects, refusals, and tokens."""
        if self.path == "/":
            return self.send(200, b"{}")
        if self.path == "/bomb":
            return self.send(302, self.bomb, Location="/", Content_Encoding="gzip")
        path = self.path.partition("?")[0]
        self.send_response({"/away": 302, "/token": 200}.get(path, 401))
        self.send_header("Location", "/")
        realm = f"http://{self.headers['Host']}/token"
        self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="x"')
        self.end_headers()
        self.sent[path] = 0
        try:
            while self.sent[path] < MUCH:
                self.sent[path] += self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True
        return None


def test_bodies_that_nobody_asked_for_are_not_read_to_their_end() -> None:
    handler = type("Bound", (Endless,), {"bomb": gzip.compress(bytes(MUCH)), "sent": {}})
    auth = RegistryAuth(None, "repository:x:pull", plain_http=True)
    with serving(handler) as url, new_client(auth, tls_only=False) as client:
        tracemalloc.start()
        try:
            for path in ("/away", "/bomb"):
                assert read_json(client, f"{url}{path}", PLACE, 1000) == {}
            client.get(f"{url}/closed")
            assert tracemalloc.get_traced_memory()[1] < MUCH // 2
        finally:
            tracemalloc.stop()
    assert set(handler.sent) == {"/away", "/closed", "/token"}
    assert max(handler.sent.values()) < MUCH


@pytest.mark.parametrize("value", ["http://user:s3cr/et@proxy:3128", "ftp://user:s3cr@proxy"])
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "source", ["oci://registry.example/x:1", "hf://acme/x", "https://files.example/a.tar"]
)
def test_a_proxy_that_is_none_is_named_without_its_password(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    command = ["pull", source, "--store", str(tmp_path)]
    if not source.startswith("oci"):
        command = ["resolve", "--source", source, "--revision", f"sha256:{'0' * 64}"]
    assert main(command) == 2
    output = "".join(capsys.readouterr())
    assert f"error: {name}: is no address of a proxy; give" in output
    assert "s3cr" not in output
    assert "Traceback" not in output
