"""Certificates for servers on loopback."""

import subprocess
from pathlib import Path


def issue(folder: Path, name: str, san: str = "IP:127.0.0.1") -> None:
    """A new key and a certificate, for 127.0.0.1 or `san`, that it signs itself."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext"),
            *(f"subjectAltName={san}", "-keyout", folder / "tls.key"),
            *("-out", folder / "tls.crt"),
        ],
        check=True,
        capture_output=True,
    )
