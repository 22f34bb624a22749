#!/usr/bin/env bash
# boto3 1.44.5: a page of HTML with status 200 is a bucket without objects, and an object that has been written.
#
# Behaviour: where a proxy, or a page to log in, answers in the place of S3, `put_object` returns as if it had written,
#   and `list_objects_v2` returns an answer without `Contents`, which is how an empty bucket looks. Only the fields that
#   each answer of S3 has (`ETag`, `IsTruncated`) are missing; nothing is raised, and nothing is tried again.
# Likely guess: what is no answer of S3 raises, as a status other than 200 does, or a body that cannot be parsed.
# What follows: a program loses what it "has written" and takes an existing study for a new one. Check for those fields.
# Seen: both answers are empty but for ResponseMetadata (status 200).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check boto3==1.44.5
env/bin/python - <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.config import Config


class Page(BaseHTTPRequestHandler):
    """Whatever is asked: a page to log in."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        page = b"<html><body>Please log in</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_PUT = do_GET

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = boto3.client(
    "s3", endpoint_url=f"http://127.0.0.1:{server.server_port}", region_name="us-east-1",
    aws_access_key_id="a", aws_secret_access_key="b", config=Config(s3={"addressing_style": "path"}),
)
assert boto3.__version__ == "1.44.5"
written = client.put_object(Bucket="studies", Key="trial.json", Body=b"{}")
listed = client.list_objects_v2(Bucket="studies")
print("put_object:     ", {name: value for name, value in written.items() if name != "ResponseMetadata"})
print("list_objects_v2:", {name: value for name, value in listed.items() if name != "ResponseMetadata"})
assert "ETag" not in written
assert "Contents" not in listed and "IsTruncated" not in listed
PY
echo "as described"
