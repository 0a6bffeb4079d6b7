"""Stands in for Google Cloud Storage, on a free port of loopback, for tests: moto's S3 behind a check of Google's tokens.

Google's XML interface was made after S3's, and nothing that can be installed by name speaks all of it that a client
needs. So this shows that our keys, prefixes, ranges and errors are right, and our tokens signed; not that Google takes
them.

Prints one line of JSON: address, the file of a service account, that of a stranger. Ends with its standard input.
Arguments: the buckets that are there.
"""

import base64
import json
import sys
import threading
import time
import urllib.parse

import boto3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

# Without one moto takes a request for a stranger's.
OF_S3 = "AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EMAIL = "copies@objects.example"


def account(key):
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # The last but one is no part of such a file, and a client may not follow it.
    return json.dumps({
        "type": "service_account", "private_key_id": "1", "private_key": pem.decode(), "client_email": EMAIL,
        "gcs_base_url": "http://127.0.0.1:1", "disable_oauth": False,
    })


def part(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def is_ours(header):
    """Whether it is a token that the account signed for itself. Source: RFC 7519, and Google's AIP-4111."""
    kind, _, token = header.partition(" ")
    pieces = token.split(".")
    if kind != "Bearer" or len(pieces) != 3:
        return False
    signed = ".".join(pieces[:2]).encode()
    try:
        KEY.public_key().verify(part(pieces[2]), signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    head, claims = json.loads(part(pieces[0])), json.loads(part(pieces[1]))
    fresh = claims["iat"] - 60 < time.time() < claims["exp"] <= claims["iat"] + 3600
    return head["alg"] == "RS256" and claims["iss"] == claims["sub"] == EMAIL and claims["scope"] == SCOPE and fresh


class Checked:
    def __init__(self, app):
        self.app, self.open = app, True

    def __call__(self, environ, start):
        if not self.open and not is_ours(environ.pop("HTTP_AUTHORIZATION", "")):
            body = b"<Error><Code>AuthenticationRequired</Code></Error>"
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("401 Unauthorized", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if not self.open:
            environ["HTTP_AUTHORIZATION"] = OF_S3
        # A client encodes more of a path than moto takes apart; what it means is the same.
        for name in ["RAW_URI", "REQUEST_URI"]:
            path, mark, query = environ[name].partition("?")
            environ[name] = urllib.parse.quote(urllib.parse.unquote(path)) + mark + query
        return self.app(environ, start)


class Numbered:
    """Numbers the contents of objects, and writes one only over those that a client says.

    Source: Google Cloud Storage, its XML interface, "x-goog-generation" and "x-goog-if-generation-match".
    """

    def __init__(self, app):
        self.app, self.lock, self.numbers = app, threading.Lock(), {}
        self.next = time.time_ns() // 1000

    def __call__(self, environ, start):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.pass_on(environ, start)
        # Nobody else writes between the look and the put.
        with self.lock:
            expected = environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH")
            if expected is not None and int(expected) != self.numbers.get(environ["PATH_INFO"], 0):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                body = b"<Error><Code>PreconditionFailed</Code></Error>"
                kind = ("Content-Type", "application/xml")
                start("412 Precondition Failed", [kind, ("Content-Length", str(len(body)))])
                return [body]
            return self.pass_on(environ, start)

    def pass_on(self, environ, start):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        words = urllib.parse.parse_qs(environ["QUERY_STRING"])
        is_new = "uploadId" in words if method == "POST" else method == "PUT" and "partNumber" not in words

        def numbered(status, headers, *rest):
            if status.startswith("2") and is_new:
                self.numbers[path] = self.next
                self.next += 1
            if status.startswith("2") and path in self.numbers:
                headers = [*headers, ("x-goog-generation", str(self.numbers[path]))]
            return start(status, headers, *rest)

        return self.app(environ, numbered)


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


checked = Checked(Numbered(DomainDispatcherApplication(create_backend_app)))
server = make_server("127.0.0.1", 0, checked, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
s3 = boto3.client(
    "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="nobody", aws_secret_access_key="nothing"
)
for bucket in sys.argv[1:]:
    s3.create_bucket(Bucket=bucket)
checked.open = False
stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
print(json.dumps([url, account(KEY), account(stranger)]), flush=True)
sys.stdin.read()
