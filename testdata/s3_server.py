"""A service that speaks S3, on a free port of loopback, for tests: moto, with its checks of signatures on.

Prints one line of JSON: address, key, secret key. Ends with its standard input. Arguments: a port (0 = any free
one), then the buckets that are there.
"""

import json
import logging
import sys

import boto3
from moto.core.responses import ActionAuthenticatorMixin
from moto.server import ThreadedMotoServer
from moto.settings import INITIAL_NO_AUTH_ACTION_COUNT

logging.getLogger("werkzeug").setLevel(logging.ERROR)
port, buckets = int(sys.argv[1]), sys.argv[2:]
server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://127.0.0.1:{port}"


def client(service, key, secret):
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )


# A user who may do anything with objects. Until then nobody's signature is checked.
iam = client("iam", "nobody", "nothing")
iam.create_user(UserName="test")
key = iam.create_access_key(UserName="test")["AccessKey"]
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="test", PolicyName="objects", PolicyDocument=json.dumps(policy))
for bucket in buckets:
    client("s3", "nobody", "nothing").create_bucket(Bucket=bucket)
ActionAuthenticatorMixin.request_count = INITIAL_NO_AUTH_ACTION_COUNT
print(json.dumps([url, key["AccessKeyId"], key["SecretAccessKey"]]), flush=True)
sys.stdin.read()
