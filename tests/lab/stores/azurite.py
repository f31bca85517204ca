"""Azure Blob Storage beside medusa, by Microsoft's library."""

import base64
import json
import sys

from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import BlobServiceClient

import helper

access = json.loads(sys.argv[1])
account = access["endpoint"].split("//")[1].split(".")[0]
service = BlobServiceClient(
    access["endpoint"], AzureNamedKeyCredential(account, access["key"]), connection_verify=access["ca"]
)


def create_bucket(bucket):
    service.create_container(bucket)


def objects(bucket):
    return {found.name: found.size for found in service.get_container_client(bucket).list_blobs()}


def head(bucket, key):
    found = service.get_blob_client(bucket, key).get_blob_properties()
    content = dict(found.content_settings)
    return {
        "size": found.size,
        "etag": found.etag,
        "last_modified": found.last_modified,
        "blob_tier": found.blob_tier,
        "blob_type": found.blob_type,
        "metadata": found.metadata,
        "content_type": content["content_type"],
        "content_md5": bytes(content["content_md5"]) if content["content_md5"] else None,
    }


def uncommitted(bucket, key):
    """Blocks that were sent and never committed."""
    _, blocks = service.get_blob_client(bucket, key).get_block_list("all")
    return [block.id for block in blocks]


def put(bucket, key, content):
    service.get_blob_client(bucket, key).upload_blob(base64.b64decode(content), overwrite=True)


def get(bucket, key):
    return service.get_blob_client(bucket, key).download_blob().readall()


def delete(bucket, key):
    service.get_blob_client(bucket, key).delete_blob()


helper.serve(globals())
