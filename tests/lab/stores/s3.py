"""S3 beside medusa, by boto3."""

import base64
import json
import sys

import boto3
from botocore.config import Config

import helper

access = json.loads(sys.argv[1])


def client(service):
    return boto3.client(
        service,
        endpoint_url=access["endpoint"],
        aws_access_key_id=access["user"],
        aws_secret_access_key=access["password"],
        aws_session_token=access["token"],
        region_name="us-east-1",
        verify=access["ca"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


s3 = client("s3")


def create_bucket(bucket, versioned=False, lock=False):
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=lock)
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def default_retention(bucket, mode, days):
    rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
    s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )


def objects(bucket):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}


def versions(bucket):
    """All versions and delete markers, oldest last for each key."""
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
    return [
        {"key": found["Key"], "version": found["VersionId"], "latest": found["IsLatest"], "deleted": kind == "DeleteMarkers"}
        for page in pages
        for kind in ("Versions", "DeleteMarkers")
        for found in page.get(kind, [])
    ]


def head(bucket, key, **more):
    found = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **more)
    headers = found.pop("ResponseMetadata")["HTTPHeaders"]
    return {**found, "headers": headers}


def put(bucket, key, content, **more):
    s3.put_object(Bucket=bucket, Key=key, Body=base64.b64decode(content), **more)


def get(bucket, key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def delete(bucket, key):
    s3.delete_object(Bucket=bucket, Key=key)


def delete_version(bucket, key, version):
    s3.delete_object(Bucket=bucket, Key=key, VersionId=version)


def uploads(bucket):
    """Multipart uploads that were begun and neither completed nor aborted."""
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
    return [{"key": found["Key"], "id": found["UploadId"]} for page in pages for found in page.get("Uploads", [])]


def begin_upload(bucket, key):
    return s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]


def assume(policy):
    """Credentials for an hour, restricted by a policy."""
    answer = client("sts").assume_role(
        RoleArn="arn:minio:iam:::role/lab", RoleSessionName="lab", Policy=json.dumps(policy), DurationSeconds=3600
    )
    given = answer["Credentials"]
    return [given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]]


helper.serve(globals())
