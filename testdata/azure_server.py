"""A service that speaks Azure's blobs, on a free port of loopback, for tests: Azurite, with its checks of signatures on.

Prints one line of JSON: address, account, its key, a signature that may read, write and list. Ends with its standard
input. Arguments: the program, then the containers that are there.
"""

import base64
import datetime
import email.utils
import hashlib
import hmac
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

VERSION = "2023-11-03"
ACCOUNT = "copies"
KEY = secrets.token_bytes(32)
program, containers = sys.argv[1], sys.argv[2:]


def signed(text):
    return base64.b64encode(hmac.new(KEY, text.encode(), hashlib.sha256).digest()).decode()


server = subprocess.Popen(
    ["node", program, "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry"],
    env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{base64.b64encode(KEY).decode()}"},
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
)
for line in server.stdout:
    if found := re.search(r"listens on (http://\S+)", line):
        break
else:
    sys.exit("Azurite ended before it listened")
url = found[1]
# It writes down every request.
threading.Thread(target=server.stdout.read, daemon=True).start()

# Source: Azure Storage, "Authorize with Shared Key".
for container in containers:
    date = email.utils.formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{VERSION}\n"
    text = "PUT" + "\n" * 12 + headers + f"/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    request = urllib.request.Request(f"{url}/{ACCOUNT}/{container}?restype=container", method="PUT")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", VERSION)
    request.add_header("Authorization", f"SharedKey {ACCOUNT}:{signed(text)}")
    urllib.request.urlopen(request).close()

# Source: Azure Storage, "Create an account SAS".
end = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
fields = {"sp": "rwl", "ss": "b", "srt": "sco", "st": "", "se": end, "sip": "", "spr": "https,http", "sv": VERSION}
text = "\n".join([ACCOUNT, *fields.values(), "", ""])
pairs = {name: value for name, value in fields.items() if value} | {"sig": signed(text)}
print(json.dumps([url, ACCOUNT, base64.b64encode(KEY).decode(), urllib.parse.urlencode(pairs)]), flush=True)
sys.stdin.read()
server.kill()
