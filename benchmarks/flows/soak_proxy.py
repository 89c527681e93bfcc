"""A network that can be cut: forwards one port to another, in threads of this process."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Forwards connections to a local port until it is cut, and again when it is mended.

    Args:
        port: Where it listens.
        target: Port that connections are passed on to.
    """

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self._is_cut = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset all connections, and every new one."""
        with self._lock:
            self._is_cut = True
            for one in self._open:
                _reset(one)
            self._open.clear()

    def mend(self) -> None:
        """Let connections pass again."""
        with self._lock:
            self._is_cut = False

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with self._lock:
                server = None if self._is_cut else _connect(self._target)
                if server is None:
                    _reset(client)
                    continue
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with self._lock:
            for one in (source, sink):
                _reset(one)
                self._open.discard(one)


def _connect(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=None)
    except OSError:
        return None


def _reset(one: socket.socket) -> None:
    """End a connection without a farewell, as a cut line does; wakes who reads from it."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.shutdown(socket.SHUT_RDWR)
    one.close()
