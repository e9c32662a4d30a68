"""A TCP proxy in front of a server that makes the network bad: slow, cut in the middle of a request or
of an answer, refused, or silent. As a program it does one thing from the start; tests in Python hold
one in their own process and change its mind:

    with FaultProxy(port) as proxy:
        proxy.black_hole()     # accepts, takes everything, passes nothing on
        proxy.pass_on()
"""

import argparse
import contextlib
import random
import socket
import threading
import time

CHUNK = 64 * 1024


class Connection:
    """Two threads, one a direction. `budget`: so many pieces until it is cut, inside a piece."""

    def __init__(self, proxy, client):
        self.proxy = proxy
        self.client = client
        self.server = None
        self.budget = proxy.budget()
        self.lock = threading.Lock()
        self.open = True
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            self.proxy.wait_passing()
            self.server = socket.create_connection(("127.0.0.1", self.proxy.to_port))
            self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.pump, args=(self.server, self.client), daemon=True).start()
            self.pump(self.client, self.server)
        self.cut()

    def spend(self, data):
        """What of it passes; None: all, and go on. Only whole reads of a stream are free, so that large
        values have a chance."""
        with self.lock:
            if self.budget is None or len(data) == CHUNK:
                return None
            self.budget -= 1
            return data[:random.randrange(len(data))] if self.budget <= 0 else None

    def pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self.proxy.wait_passing()
                if self.proxy.delay:
                    time.sleep(self.proxy.delay)
                part = self.spend(data)
                sink.sendall(data if part is None else part)
                if part is not None:
                    self.proxy.cuts += 1
                    break
        self.cut()

    def cut(self):
        with self.lock:
            if not self.open:
                return
            self.open = False
        self.proxy.forget(self)
        for each in (self.client, self.server):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()


class FaultProxy:
    def __init__(self, to_port, port=0, delay=0.0, cut_every=None):
        self.to_port = to_port
        self.delay = delay  # seconds, a piece
        self.cut_every = cut_every  # pieces of a connection, (at least, at most)
        self.cuts = 0
        self.lock = threading.Lock()
        self.connections = set()
        self.passing = threading.Event()
        self.passing.set()
        self.port = port
        self.listener = None
        self.accept()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def budget(self):
        return random.randint(*self.cut_every) if self.cut_every else None

    def wait_passing(self):
        self.passing.wait()

    def listen(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = Connection(self, client)
                with self.lock:
                    self.connections.add(connection)

    def forget(self, connection):
        with self.lock:
            self.connections.discard(connection)

    # --- what it can be told ---

    def accept(self):
        """After refuse(): takes connections again, on the same port."""
        if self.listener is not None:
            return
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.listen, args=(self.listener,), daemon=True).start()

    def refuse(self):
        """Nobody listens any more; what is connected is cut."""
        if self.listener is not None:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        self.cut()

    def black_hole(self):
        self.passing.clear()

    def pass_on(self):
        self.passing.set()

    def cut(self):
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            connection.cut()

    def close(self):
        self.refuse()
        self.passing.set()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--cut-every", type=int, nargs=2, help="pieces of a connection, at least and at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    FaultProxy(options.to, options.port, options.delay_ms / 1000, options.cut_every)
    threading.Event().wait()


if __name__ == "__main__":
    main()
