"""peer_server.py SOCKET: cassandra-medusa for many callers. Most of the time of its short commands goes by while Python reads
it, so it is read once; each call is a process of its own that is forked from here.

Asked: a line of JSON with the arguments, the environment, the folder, and the files that take stdout and stderr. Answered: the
exit code. It ends with its standard input.
"""

import gc
import json
import os
import signal
import sys
import tempfile
import time
import traceback

# Before cassandra-medusa puts gevent's in their place.
from os import fork
from select import select
from socket import AF_UNIX, socket

import gevent
from medusa.medusacli import cli


def run(asked):
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    tempfile.tempdir = None
    os.chdir(asked["folder"])
    for number, name in enumerate(["/dev/null", asked["stdout"], asked["stderr"]]):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["medusa", *asked["arguments"]]
    try:
        cli()
    except SystemExit as exit:
        if exit.code is None or isinstance(exit.code, int):
            return exit.code or 0
        print(exit.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve(path):
    server = socket(AF_UNIX)
    server.bind(path)
    server.listen(100)
    gc.freeze()
    while True:
        ready, _, _ = select([server, sys.stdin], [], [])
        if sys.stdin in ready:
            os.unlink(path)
            return
        caller, _ = server.accept()
        if fork():
            caller.close()
            continue
        server.close()
        # A loop of events of its own: that of this process would share its wake-ups with all others.
        gevent.reinit()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked = b""
        while not asked.endswith(b"\n"):
            part = caller.recv(65536)
            if not part:
                os._exit(0)
            asked += part
        code = run(json.loads(asked))
        sys.stdout.flush()
        sys.stderr.flush()
        caller.sendall(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    # Nobody waits for the calls that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    serve(sys.argv[1])
