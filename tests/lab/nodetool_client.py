"""nodetool_client.py SOCKET ARGUMENT…: asks NodetoolServer, and prints and ends as nodetool does.

Asked: the arguments, with a zero byte between them. Answered: the exit code and the length of stdout (4 bytes each, big end
first), stdout, stderr.
"""

import socket
import sys

server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
server.sendall("\0".join(sys.argv[2:]).encode())
server.shutdown(socket.SHUT_WR)
answer = b""
while part := server.recv(65536):
    answer += part
if len(answer) < 8:
    sys.exit("nodetool: no answer from NodetoolServer")
code, end = int.from_bytes(answer[:4], "big"), 8 + int.from_bytes(answer[4:8], "big")
sys.stdout.buffer.write(answer[8:end])
sys.stdout.flush()
sys.stderr.buffer.write(answer[end:])
sys.exit(code)
