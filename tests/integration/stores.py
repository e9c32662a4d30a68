"""Databases that a world's agents share, one class each: started on a free port with data that is thrown
away, stopped, killed, frozen. What a class must have stands in Database."""

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse

from world import AGENT, ROOT, Process, ask, free_port, until

sys.path.insert(0, str(ROOT / "tests" / "support"))
from fault_proxy import FaultProxy  # noqa: E402

os.environ["PATH"] += ":/usr/sbin"  # Debian's servers are not in everybody's PATH

SECRET = "s3cr@t:/?#w rd"  # no log may hold it, nor its encoding


class Database:
    program = None  # what must be installed

    def __init__(self, world):
        self.world = world
        self.port = free_port()
        self.directory = world.directory / "database"
        self.directory.mkdir()
        self.process = None
        self.proxy = None
        self.start()

    def argv(self):
        raise NotImplementedError

    def url_at(self, port):
        """STORE_URL, with SECRET in it."""
        raise NotImplementedError

    def get(self, key):
        """The bytes under a key, or None."""
        raise NotImplementedError

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def start(self):
        """Also after kill(): with the data it had."""
        self.process = Process(self.world.directory, "database", self.argv())
        self.world.processes.append(self.process)
        until("the database to answer", self.answers)

    def kill(self):
        self.process.close()

    def freeze(self):
        self.process.signal(signal.SIGSTOP)

    def thaw(self):
        self.process.signal(signal.SIGCONT)

    @property
    def url(self):
        return self.url_at(self.port)

    def behind_proxy(self):
        """From now on; the proxy."""
        self.proxy = FaultProxy(self.port)
        self.world.store_url = self.url_at(self.proxy.port)
        return self.proxy

    def document(self, key):
        value = self.get(key)
        return None if value is None else json.loads(value)

    def close(self):
        if self.process.lives:
            self.thaw()
        if self.proxy:
            self.proxy.close()


class Redis(Database):
    program = "redis-server"

    def argv(self):
        return [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
                "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--requirepass", SECRET]

    def url_at(self, port):
        return f"redis://:{urllib.parse.quote(SECRET, safe='')}@127.0.0.1:{port}?timeout_ms=1000"

    def get(self, key):
        words = [b"AUTH", SECRET.encode(), b"GET", f"comfy:task:{key}".encode()]
        with socket.create_connection(("127.0.0.1", self.port)) as connection, connection.makefile("rb") as stream:
            for pair in (words[:2], words[2:]):
                connection.sendall(b"*2\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in pair))
            assert stream.readline() == b"+OK\r\n"
            length = int(stream.readline()[1:])
            return stream.read(length) if length >= 0 else None


class Mysql(Database):
    program = "mariadbd"
    here = ["--no-defaults", "--innodb-log-file-size=16M", "--skip-name-resolve",
            *(["--user=root"] if os.getuid() == 0 else [])]

    @staticmethod
    @functools.cache
    def empty():
        """A directory of a server that was never started. Making one takes seconds, copying it does not."""
        made = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, made)
        # "rpm" touches no file of the system's.
        subprocess.run(["mariadb-install-db", *Mysql.here, "--rpm", f"--datadir={made}/data", f"--tmpdir={made}",
                        "--skip-test-db", "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        return f"{made}/data"

    def argv(self):
        data = self.directory / "data"
        init = self.directory / "init.sql"
        if not data.exists():
            shutil.copytree(self.empty(), data)
            init.write_text("CREATE DATABASE IF NOT EXISTS comfy;\n"
                            f"CREATE USER IF NOT EXISTS comfy@'%' IDENTIFIED BY '{SECRET}';\n"
                            "GRANT ALL ON comfy.* TO comfy@'%';\n")
        # A server that starts removes each temporary table in its tmpdir, the neighbours' as well.
        return [self.program, *self.here, f"--datadir={data}", f"--tmpdir={self.directory}", f"--init-file={init}",
                f"--port={self.port}", "--socket=socket", "--bind-address=127.0.0.1",
                "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M"]

    def url_at(self, port):
        return f"mysql://comfy:{urllib.parse.quote(SECRET, safe='')}@127.0.0.1:{port}/comfy?create=1"

    def get(self, key):
        said = subprocess.run(["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{self.port}", "-ucomfy", "-N",
                               "comfy", "-e", f"SELECT HEX(body) FROM comfy_task WHERE doc_key='{key}'"],
                              env={**os.environ, "MYSQL_PWD": SECRET}, check=True, capture_output=True, text=True)
        return bytes.fromhex(said.stdout) or None


class Tablestore(Database):
    program = "python3"  # a stand-in of our own
    key = "LTAI5tExampleKeyId000001"

    def argv(self):
        return [sys.executable, str(ROOT / "tests" / "support" / "tablestore.py"), "--port", str(self.port),
                "--data", str(self.directory / "rows"), "--id", self.key, "--secret", self.secret, "--page", "10"]

    # A secret of this service has no blanks.
    secret = SECRET.replace(" ", "+")

    def url_at(self, port):
        return (f"ots://{self.key}:{urllib.parse.quote(self.secret, safe='')}@127.0.0.1:{port}/tasks"
                "?instance=inst&scheme=http&create=1")

    def get(self, key):
        reply = ask(self.port, "POST", "/~row", f"tasks {key}")
        return reply.body if reply.status == 200 else None


DATABASES = {"redis": Redis, "mysql": Mysql, "ots": Tablestore}


def built_in():
    """The stores that the program was built with."""
    said = subprocess.run([AGENT, "--version"], check=True, capture_output=True, text=True).stdout
    return said.partition("stores: ")[2].rstrip(")\n").split()


def missing(name):
    """Why there are no tests with it, or None."""
    if name not in built_in():
        return f"the program was built without {name}"
    if shutil.which(DATABASES[name].program) is None:
        return f"{DATABASES[name].program} is not installed"
    return None
