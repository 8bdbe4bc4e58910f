"""A warm process for a run of many short commands: it has loaded the libraries, and forks a child for each command.

Importing torch and its company takes seconds, often longer than a command's work. ``become`` turns this process into
any program, Snakemake say, with a server beside it. ``run`` is a command's first act: it asks that server for a child
with its arguments, folder, environment and open streams, passes signals on to it, and ends as the child ends.

The method is that of ``multiprocessing.forkserver``, which itself does not fit: only processes that descend from its
owner through ``multiprocessing`` can reach it, it executes pickles, and the child of a killed client would go on.
"""

import atexit
import ctypes
import gc
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from entpruner.errors import UserError
from entpruner.system.provenance import code_digest

ADDRESS = "ENTPRUNER_WARM"
PASSED_ON = (signal.SIGINT, signal.SIGTERM)  # whatever else ends a client ends its child by SIGKILL
OF_THE_SHELL = {"_", "OLDPWD", "PWD", "SHLVL"}
READ_AT_START = ("GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON")
STATUS = struct.Struct("i")
PR_SET_PDEATHSIG = 1


def fixed() -> dict[str, Any]:
    """What a process can no longer change once it has loaded its libraries: their files and their environment.

    Every variable counts, as no list of those that libraries read would be whole. That a distribution was installed or
    removed shows in the time of its folder.
    """
    files = [Path(sysconfig.get_path("purelib")), *sorted(Path(__file__).parents[1].rglob("*.py"))]
    return {
        "python": sys.version,
        "files": [[str(file.resolve()), file.stat().st_mtime_ns] for file in files],
        "environment": {name: value for name, value in os.environ.items() if name not in OF_THE_SHELL},
    }


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that matter even before: to the interpreter itself."""
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


# ------------------------------------------------------------------------------------------------------------- client


def run(arguments: Sequence[str]) -> int | None:
    """Exit code of a command that the server ran; None where there is no server, or one that has loaded other things.

    If a signal ended the child, it ends this process too. Raises UserError if the server was killed meanwhile.
    """
    if ADDRESS not in os.environ:
        return None
    with socket.socket(socket.AF_UNIX) as server:

        def pass_on(number: int, _: Any) -> None:
            with suppress(OSError):  # the child has just ended: how is waiting to be read
                server.sendall(bytes([number]))

        try:
            request = {
                "arguments": arguments,
                "folder": str(Path.cwd()),
                "environment": dict(os.environ),
                "fixed": fixed(),
            }
            with os.fdopen(os.memfd_create("request"), "w+") as file:
                json.dump(request, file)
                file.seek(0)
                server.connect(os.environ[ADDRESS])
                socket.send_fds(server, [b"\0"], [0, 1, 2, file.fileno()])
            if not server.recv(1):
                return None
        except OSError:
            return None
        for number in PASSED_ON:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, pass_on)
        status = b""
        with suppress(ConnectionResetError):  # a killed server had a signal yet to read
            status = server.recv(STATUS.size)
    if not status:
        raise UserError("the warm process was killed, and this command with it: run it again")
    (code,) = STATUS.unpack(status)
    if code < 0:
        with suppress(OSError):  # SIGKILL is what it is
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return int(code)


# ------------------------------------------------------------------------------------------------------------- server


def become(program: Sequence[str], preload: Sequence[str], served: Sequence[Sequence[str]]) -> None:
    """Become ``program``, and leave a server to the commands that it starts; returns in the server's children.

    The server imports the modules ``preload`` when the first command comes, and answers only commands whose arguments
    begin as one of ``served``. It ends when the program has ended, and all that inherited its open files. On Linux
    only: elsewhere it isn't safe to fork a process that has loaded such libraries, and commands do without. Raises
    UserError if the temporary folder's path is too long for a socket.
    """
    if sys.platform == "linux":
        folder = Path(tempfile.mkdtemp(prefix="entpruner-"))  # closed to other users
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(folder / "socket"))
        except OSError as error:
            folder.rmdir()
            raise UserError(f"{folder}: {error}: set TMPDIR to a shorter path") from None
        listener.listen()
        alive, held_by_program = os.pipe()
        if os.fork() == 0:
            os.close(held_by_program)
            return Server(folder, listener, alive, preload, served).serve()
        os.set_inheritable(held_by_program, True)
        os.environ[ADDRESS] = str(folder / "socket")
    os.execvp(program[0], list(program))


class Server:
    """Forks a child for each request. It has one thread, as a process that forks must."""

    def __init__(
        self,
        folder: Path,
        listener: socket.socket,
        alive: int,
        preload: Sequence[str],
        served: Sequence[Sequence[str]],
    ) -> None:
        self.folder = folder
        self.listener = listener
        self.alive = alive
        self.preload = preload
        self.served = served
        self.loaded: dict[str, Any] | None = None
        self.clients: dict[int, socket.socket] = {}  # by the process id of their child

    def serve(self) -> None:
        """Until the other end of ``alive`` is closed; returns in the children only."""
        os.setsid()  # the terminal's signals are for the program
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_IGN)
        ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            sources: list[Any] = [self.alive, ended, self.listener, *self.clients.values()]
            ready, _, _ = select.select(sources, [], [])
            if self.alive in ready:
                shutil.rmtree(self.folder, ignore_errors=True)  # a cleaner of temporary files may have come first
                os._exit(0)  # and the children with it
            for pid, client in list(self.clients.items()):
                if client in ready:
                    self.heed(pid, client)
            if ended in ready:
                os.read(ended, 4096)
                self.reap()
            if self.listener in ready and self.answer(self.listener.accept()[0]):
                return

    def heed(self, pid: int, client: socket.socket) -> None:
        """Give a child its client's signals. Nothing of a killed client's child is left when this returns."""
        try:
            numbers = client.recv(16)
        except ConnectionResetError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.killpg(pid, number)
        if not numbers:
            os.waitpid(pid, 0)  # a retry must not meet it
            self.clients.pop(pid).close()

    def reap(self) -> None:
        for pid in list(self.clients):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with self.clients.pop(pid) as client, suppress(OSError):
                    client.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))

    def answer(self, client: socket.socket) -> bool:
        """Fork a child for a request that asks for nothing but what is loaded; True in the child."""
        _, streams, _, _ = socket.recv_fds(client, 1, 4)
        if len(streams) < 4:  # it went away
            client.close()
            return False
        with os.fdopen(streams.pop()) as file:
            request = json.load(file)
        serves = any(request["arguments"][: len(words)] == list(words) for words in self.served)
        if serves and self.loaded is None:
            self.load(request["environment"])
        pid = None
        if serves and request["fixed"] == self.loaded:
            with suppress(OSError):  # no room for another process: it says so where its user looks
                pid = os.fork()
        if pid == 0:
            self.stand_in(request, streams, client)
            return True
        for stream in streams:
            os.close(stream)
        if pid is None:
            client.close()
        else:
            os.setpgid(pid, pid)
            self.clients[pid] = client
        return False

    def load(self, environment: Mapping[str, str]) -> None:
        """Import the libraries as the first command would: Snakemake gives its jobs numbers of threads, for one."""
        if read_at_start(environment) != read_at_start(os.environ):
            return
        os.environ.clear()
        os.environ.update(environment)
        self.loaded = fixed()
        try:
            for module in self.preload:
                import_module(module)
                code_digest(module)  # every command asks for its own, and its process inherits this one
        except Exception:
            self.loaded = {}  # what no command asks for: each says itself what is wrong, where its user looks
        gc.freeze()  # a collection in a child would write to all of this memory, and so copy it

    def stand_in(self, request: dict[str, Any], streams: Sequence[int], client: socket.socket) -> None:
        """Make a new child what a new process in its client's place would be."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        for other in (self.listener, *self.clients.values()):
            other.close()
        client.sendall(b"\0")
        client.detach()  # left open: the client sees its end only when there is neither server nor child
        os.environ.clear()
        os.environ.update(request["environment"])
        del os.environ[ADDRESS]
        os.chdir(request["folder"])
        sys.argv[1:] = request["arguments"]
        atexit.register(gc.unfreeze)  # after an exception the interpreter takes down everything, as it always does


def leave(code: int) -> NoReturn:
    """End a child whose command is done as ``multiprocessing`` ends its own: without the libraries' exit functions.

    Those, and taking down the libraries, take longer than many a command.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
