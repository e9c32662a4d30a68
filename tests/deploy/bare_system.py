"""Debian 12 with nothing in it, to start things in: debootstrap's smallest system in a folder, made
once per build folder and unpacked for each test. Needs root; Debian is asked for where this
machine asks for it."""

import contextlib
import fcntl
import os
import pathlib
import shlex
import shutil
import signal
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = "bookworm"
# Of mounts and processes: what is mounted or started inside ends with it.
NAMESPACES = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--"]


def why_not():
    """A reason why no system can be made here, or None."""
    if os.geteuid() != 0:
        return "only root can make a bare system"
    if shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        return "there is no debootstrap"
    done = subprocess.run([*NAMESPACES, "mount", "-t", "proc", "proc", "/proc"], capture_output=True, text=True)
    if done.returncode != 0:
        return f"nothing can be mounted here for a bare system: {done.stderr.strip()}"
    if not suites():
        return f"apt knows no Debian {RELEASE} here: apt-get update"
    return None


def suites():
    """[(suite, address)] of Debian's, as apt knows them."""
    asked = subprocess.run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Identifier: Packages",
                            "Origin: Debian", "Component: main"], capture_output=True, text=True)
    found = {tuple(line.split()) for line in asked.stdout.splitlines()}
    return sorted(pair for pair in found if pair[0].split("-")[0] == RELEASE)


def apt_proxy():
    """{"http_proxy": …}, if only apt knows of one: debootstrap does not ask apt."""
    asked = subprocess.run(["apt-config", "shell", "P", "Acquire::http::Proxy"], capture_output=True, text=True,
                           check=True).stdout
    proxy = "".join(shlex.split(asked)).removeprefix("P=")
    return {} if proxy in ("", "DIRECT", "false") else {"http_proxy": proxy}


def base():
    """The archive of a system, made when there is none yet."""
    folder = ROOT / "build" / "deploy"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "base.tar"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            made = folder / "made"
            shutil.rmtree(made, ignore_errors=True)
            mirror = dict(suites())[RELEASE]
            done = subprocess.run(["debootstrap", "--variant=minbase", RELEASE, made, mirror], capture_output=True,
                                  text=True, env={**apt_proxy(), **os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            subprocess.run(["tar", "-C", made, "--one-file-system", "-cf", folder / "part", "."], check=True)
            shutil.rmtree(made)
            (folder / "part").rename(archive)
    return archive


class System:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.root.mkdir(parents=True)
        self.children = []
        subprocess.run(["tar", "-C", self.root, "-xf", base()], check=True)

    def configure_apt(self):
        """It finds packages and hosts as this machine does."""
        apt = self.root / "etc" / "apt"
        (apt / "sources.list").write_text("".join(f"deb {uri} {suite} main\n" for suite, uri in suites()))
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        keep = ("Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries")
        (apt / "apt.conf.d" / "99host").write_text(
            "".join(f"{line}\n" for line in dump.splitlines() if line.startswith(keep) and "Auto-Detect" not in line))
        for key in pathlib.Path("/etc/apt/trusted.gpg.d").glob("*"):
            shutil.copy(key, apt / "trusted.gpg.d")
        certificates = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
        if certificates.exists():
            (self.root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
            shutil.copy(certificates, self.root / "etc/ssl/certs")
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", self.root / "etc" / name)

    def argv(self, command):
        script = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
        return [*NAMESPACES, "sh", "-c", script, str(self.root), *command]

    def env(self, extra):
        return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                "DEBIAN_FRONTEND": "noninteractive", **(extra or {})}

    def run(self, command, env=None):
        done = subprocess.run(self.argv(command), env=self.env(env), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace")
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def start(self, command, env=None):
        """Runs on until close(). What it prints is in log()."""
        with open(self.root.parent / "log", "ab") as out:
            child = subprocess.Popen(self.argv(command), env=self.env(env), stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=out)
        self.children.append(child)
        return child

    def log(self):
        return (self.root.parent / "log").read_text(errors="replace")

    def end(self, child):
        """SIGTERM to the first process inside; the exit code."""
        first = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True).stdout.split()
        for pid in first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        return child.wait(60)

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        subprocess.run(["rm", "-rf", "--one-file-system", self.root], check=True)
