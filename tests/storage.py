"""A real S3 server on loopback: moto's, in a process of its own, and what its clients read from the environment."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

BUCKET = "squeeze"
KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """The environment that leads to it; it holds one empty bucket."""
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://{host}:{port}"
    try:
        _answers(server, host, port)
        client = boto3.client(
            "s3", endpoint_url=url, region_name=KEYS["AWS_REGION"],
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        yield KEYS | {"AWS_ENDPOINT_URL": url}
    finally:
        server.terminate()
        server.wait(10)


def _answers(server: subprocess.Popen[bytes], host: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as client:
            if client.connect_ex((host, port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("moto's server does not answer")
