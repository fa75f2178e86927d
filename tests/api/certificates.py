"""A certificate for this machine, good for a day."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def made_in(folder: Path) -> Path:
    """`cert.pem`, and `key.pem` beside it; -> the certificate."""
    assert shutil.which("openssl"), "openssl makes the certificate"
    names = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *subject]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"
