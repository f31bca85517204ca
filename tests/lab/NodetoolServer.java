package org.apache.cassandra.tools;

import java.io.*;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Cassandra's nodetool for many callers: a new Java for each call is what costs most of a short backup. See nodetool_client.py,
 * which says what is asked and answered. It ends with its standard input.
 */
public class NodetoolServer {
    public static void main(String[] arguments) throws IOException {
        ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        server.bind(UnixDomainSocketAddress.of(Path.of(arguments[0])));
        Thread accepting = new Thread(() -> {
            while (true) {
                try {
                    SocketChannel caller = server.accept();
                    new Thread(() -> answer(caller)).start();
                } catch (IOException error) {
                    error.printStackTrace();
                    System.exit(1);
                }
            }
        });
        accepting.setDaemon(true);
        accepting.start();
        while (System.in.read() >= 0) {
        }
        Files.deleteIfExists(Path.of(arguments[0]));
        System.exit(0);
    }

    private static void answer(SocketChannel caller) {
        try (caller) {
            ByteArrayOutputStream asked = new ByteArrayOutputStream();
            Channels.newInputStream(caller).transferTo(asked);
            if (asked.size() == 0) {
                // Only looked whether somebody answers.
                return;
            }
            String[] words = asked.toString(StandardCharsets.UTF_8).split("\0");
            ByteArrayOutputStream out = new ByteArrayOutputStream(), err = new ByteArrayOutputStream();
            int code = new NodeTool(new NodeProbeFactory(), new Output(new PrintStream(out, true), new PrintStream(err, true))).execute(words);
            ByteArrayOutputStream answer = new ByteArrayOutputStream();
            DataOutputStream fields = new DataOutputStream(answer);
            fields.writeInt(code);
            fields.writeInt(out.size());
            out.writeTo(fields);
            err.writeTo(fields);
            ByteBuffer rest = ByteBuffer.wrap(answer.toByteArray());
            while (rest.hasRemaining()) {
                caller.write(rest);
            }
        } catch (IOException | RuntimeException error) {
            // Its caller is gone, or hears of it by the missing answer.
            error.printStackTrace();
        }
    }
}
