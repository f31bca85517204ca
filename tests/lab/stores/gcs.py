"""Google Cloud Storage beside medusa, by its JSON API."""

import base64
import json
import sys
from urllib.parse import quote

import requests

import helper

access = json.loads(sys.argv[1])
session = requests.Session()
session.trust_env = False


def call(method, path, **more):
    answer = session.request(method, access["endpoint"] + path, **more)
    answer.raise_for_status()
    return answer


def path(bucket, key):
    return f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}"


def create_bucket(bucket):
    call("POST", "/storage/v1/b", params={"project": "lab"}, json={"name": bucket})


def objects(bucket):
    found, token = {}, None
    while True:
        page = call("GET", f"/storage/v1/b/{bucket}/o", params={"pageToken": token} if token else {}).json()
        found.update((item["name"], int(item["size"])) for item in page.get("items", []))
        token = page.get("nextPageToken")
        if not token:
            return found


def head(bucket, key):
    return call("GET", path(bucket, key)).json()


def put(bucket, key, content):
    parameters = {"uploadType": "media", "name": key}
    call("POST", f"/upload/storage/v1/b/{bucket}/o", params=parameters, data=base64.b64decode(content))


def get(bucket, key):
    return call("GET", path(bucket, key), params={"alt": "media"}).content


def delete(bucket, key):
    call("DELETE", path(bucket, key))


helper.serve(globals())
