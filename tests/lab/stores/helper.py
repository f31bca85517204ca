"""Answers calls on standard input, a line each: `[function, {argument: value}]`, with `{"ok": value}` or `{"error": text}`."""

import base64
import datetime
import json
import sys


def plain(value):
    """What JSON lacks, as text."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(bytes(value)).decode()
    return str(value)


def serve(functions):
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"ok": functions[name](**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=plain), flush=True)
