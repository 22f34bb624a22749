#!/usr/bin/env bash
# boto3 1.44.5: "there is no such object", broken off on the way, raises urllib3's exception, and is not tried again.
#
# Behaviour: when the answer to `get_object` is an error (404), botocore reads its body outside of what translates and
#   repeats. If the connection breaks within that body, `ProtocolError` of urllib3 comes through, which is no
#   `BotoCoreError` and no `ClientError`, after one request. The same break within an object's body raises
#   `ResponseStreamingError`; within a list, `ConnectionClosedError` after all attempts.
# Likely guess: whatever the network does comes as an exception of botocore, after as many attempts as were configured.
# What follows: `except (BotoCoreError, ClientError)` lets it through. Catch urllib3's HTTPError as well, and repeat.
# Seen: 404: urllib3.exceptions.ProtocolError after 1 request; list: ConnectionClosedError after 3.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check boto3==1.44.5
env/bin/python - <<'PY'
import socket
import struct
import threading

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, ResponseStreamingError
from urllib3.exceptions import ProtocolError

requests = 0
head = b""


def serve(server):
    """Answers with a head and a part of the body, and breaks off as a crash does."""
    global requests
    while True:
        connection, _ = server.accept()
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        requests += 1
        connection.sendall(head)
        threading.Event().wait(0.2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(server,), daemon=True).start()
client = boto3.client(
    "s3", endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}", region_name="us-east-1",
    aws_access_key_id="a", aws_secret_access_key="b",
    config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "total_max_attempts": 3}),
)
assert boto3.__version__ == "1.44.5"
rest = b"\r\nContent-Type: application/xml\r\nETag: \"a\"\r\nContent-Length: 1000\r\n\r\n" + b"<" * 500


def fails(call):
    global requests
    requests = 0
    try:
        call()
    except Exception as error:
        print(f"{type(error).__module__}.{type(error).__name__} after {requests} request(s)")
        return error, requests
    raise AssertionError("nothing was raised")


head = b"HTTP/1.1 404 Not Found" + rest
error, sent = fails(lambda: client.get_object(Bucket="studies", Key="a"))
assert isinstance(error, ProtocolError) and not isinstance(error, (BotoCoreError, ClientError)) and sent == 1
head = b"HTTP/1.1 200 OK" + rest
error, _ = fails(lambda: client.get_object(Bucket="studies", Key="a")["Body"].read())
assert isinstance(error, ResponseStreamingError)
error, sent = fails(lambda: client.list_objects_v2(Bucket="studies"))
assert isinstance(error, ConnectionClosedError) and sent == 3
PY
echo "as described"
