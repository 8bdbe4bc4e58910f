"""A warm process for many short commands. It has loaded the libraries, and forks a child for each command.

The import of torch and other libraries takes seconds, which is often longer than the work of a command. ``become``
turns this process into a program, such as Snakemake, and leaves a server that serves the program's commands. A command
first calls ``run``. It asks the server for a child with the command's arguments, folder, environment and open streams.
It passes signals on to the child, and ends as the child ends.

``multiprocessing.forkserver`` works in the same way, but cannot be used. Only processes that ``multiprocessing`` has
started can reach it, it executes pickles, and if a client is killed its child goes on.
"""

import atexit
import gc
import json
import os
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from entpruner.errors import UserError
from entpruner.system.provenance import code_digest
from entpruner.system.stopping import end_with_parent
from entpruner.system.temporary import make_folder, move_into

ADDRESS = "ENTPRUNER_WARM"
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # if anything else ends a client, its child gets SIGKILL
OF_THE_SHELL = {"_", "OLDPWD", "PWD", "SHLVL"}
READ_AT_START = ("GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON")
STATUS = struct.Struct("i")
BACKLOG = 1024  # clients that wait to be answered
MOST = 500  # clients at once; others wait: select knows 1024 open files
PATIENCE = 10  # seconds that a client has to say what it wants, or to be let in
LARGEST_REQUEST = 2**26  # bytes: arguments and environment, whose size the system limits too


def fixed() -> dict[str, Any]:
    """What a process cannot change after it has loaded its libraries: their files and their environment.

    All environment variables are compared, because nobody knows which ones the libraries read. The time of the folder
    of libraries changes when one is installed or removed.
    """
    files = [Path(sysconfig.get_path("purelib")), *sorted(Path(__file__).parents[1].rglob("*.py"))]
    return {
        "python": sys.version,
        "files": [[str(file.resolve()), file.stat().st_mtime_ns] for file in files],
        "environment": {name: value for name, value in os.environ.items() if name not in OF_THE_SHELL},
    }


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the interpreter reads when it starts, before it imports anything."""
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


# ------------------------------------------------------------------------------------------------------------- client


def run(arguments: Sequence[str]) -> int | None:
    """The exit code of a command that the server ran. None if there is no server, or if it has loaded other libraries.

    If a signal ended the child, the same signal ends this process. Raises UserError if the server was killed.
    """
    if ADDRESS not in os.environ:
        return None
    with socket.socket(socket.AF_UNIX) as server:

        def pass_on(number: int, _: Any) -> None:
            with suppress(OSError):  # the child has just ended, and its exit code can be read
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
                server.settimeout(PATIENCE)
                server.connect(os.environ[ADDRESS])
                socket.send_fds(server, [b"\0"], [0, 1, 2, file.fileno()])
                server.settimeout(None)
            if not server.recv(1):
                return None
        except OSError:
            return None
        for number in PASSED_ON:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, pass_on)
        status = b""
        with suppress(ConnectionResetError):  # the server was killed before it read a signal
            status = server.recv(STATUS.size)
    if not status:
        raise UserError("the warm process was killed, and this command with it: run it again")
    (code,) = STATUS.unpack(status)
    if code < 0:
        with suppress(OSError):  # nobody can set the action of SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return int(code)


# ------------------------------------------------------------------------------------------------------------- server


def become(program: Sequence[str], preload: Sequence[str], served: Sequence[Sequence[str]]) -> None:
    """Become ``program``, and leave a server for the commands that it starts. Returns only in children of the server.

    The server imports the modules ``preload`` when the first command comes. It serves only commands whose arguments
    begin with the words of an element of ``served``. It ends when the program and all processes that inherited its open
    files have ended. There is a server on Linux only, because other systems cannot safely fork a process that has
    loaded such libraries. Raises UserError if the path of the temporary folder is too long for a socket.
    """
    if sys.platform == "linux":
        folder, _ = make_folder()  # the server holds it to its end
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(folder / "socket"))
        except OSError as error:
            shutil.rmtree(folder)
            raise UserError(f"{folder}: {error}: set TMPDIR to a shorter path") from None
        listener.listen(BACKLOG)
        alive, held_by_program = os.pipe()
        if os.fork() == 0:
            os.close(held_by_program)
            return Server(folder, listener, alive, preload, served).serve()
        os.set_inheritable(held_by_program, True)
        os.environ[ADDRESS] = str(folder / "socket")
        move_into(folder)  # the program may be killed, and leave what it made there
    os.execvp(program[0], list(program))


@dataclass
class Server:
    """The server, which forks a child for each request. It has one thread, because it is not safe to fork with more."""

    folder: Path
    listener: socket.socket
    alive: int
    preload: Sequence[str]
    served: Sequence[Sequence[str]]
    loaded: dict[str, Any] | None = None
    clients: dict[int, socket.socket] = field(default_factory=dict)  # the key is the process id of the child
    silent: dict[socket.socket, float] = field(default_factory=dict)  # have said nothing yet; when their time is over

    def serve(self) -> None:
        """Serve until the other end of ``alive`` is closed. Returns only in children."""
        os.setsid()  # so that signals of the terminal reach the program only
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_IGN)
        ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            sources: list[Any] = [self.alive, ended, *self.clients.values(), *self.silent]
            if len(sources) < MOST:
                sources.append(self.listener)
            ready, _, _ = select.select(sources, [], [], PATIENCE if self.silent else None)
            if self.alive in ready:
                shutil.rmtree(self.folder, ignore_errors=True)  # some systems delete temporary folders earlier
                os._exit(0)  # the children end too, as PR_SET_PDEATHSIG says
            for pid, client in list(self.clients.items()):
                if client in ready:
                    self.heed(pid, client)
            if ended in ready:
                os.read(ended, 4096)
                self.reap()
            for client in [client for client in self.silent if client in ready]:
                del self.silent[client]
                if self.answer(client):
                    return
            if self.listener in ready:
                self.silent[self.listener.accept()[0]] = time.monotonic() + PATIENCE
            for client in [client for client, over in self.silent.items() if over < time.monotonic()]:
                del self.silent[client]
                client.close()

    def heed(self, pid: int, client: socket.socket) -> None:
        """Send a child the signals of its client. If the client was killed, the child is killed and gone on return."""
        try:
            numbers = client.recv(16)
        except ConnectionResetError:
            numbers = b""
        for number in [n for n in numbers if n in PASSED_ON] if numbers else [signal.SIGKILL]:
            os.killpg(pid, number)
        if not numbers:
            os.waitpid(pid, 0)  # a command that is tried again must not find the child at work
            self.clients.pop(pid).close()

    def reap(self) -> None:
        """Send the clients of children that have ended their exit codes."""
        for pid in list(self.clients):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with self.clients.pop(pid) as client, suppress(OSError):
                    client.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))

    def answer(self, client: socket.socket) -> bool:
        """Fork a child for a request, if it needs exactly what is loaded. Returns True in the child only.

        A client that has ended, or whose request is none, is left alone.
        """
        streams: list[int] = []
        try:
            _, streams, _, _ = socket.recv_fds(client, 1, 4)
            request = read_request(streams)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            for stream in streams:
                os.close(stream)
            client.close()
            return False
        serves = any(request["arguments"][: len(words)] == list(words) for words in self.served)
        if serves and self.loaded is None:
            self.load(request["environment"])
        pid = None
        if serves and request["fixed"] == self.loaded:
            with suppress(OSError):  # if no process can be made, the client runs the command and shows the error
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
        """Import the libraries in the environment of the first command, as Snakemake sets variables for its jobs."""
        if read_at_start(environment) != read_at_start(os.environ):
            return
        os.environ.clear()
        os.environ.update(environment)
        self.loaded = fixed()
        try:
            for module in self.preload:
                import_module(module)
                code_digest(module)  # every command needs its digest, and a child inherits it
        except Exception:
            self.loaded = {}  # no command matches this: each command imports by itself and shows the error
        gc.freeze()  # a garbage collection in a child would write to this memory, and so copy it

    def stand_in(self, request: dict[str, Any], streams: Sequence[int], client: socket.socket) -> None:
        """Give a new child the streams, signals, environment, folder and arguments that its client has."""
        end_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        for other in (self.listener, *self.clients.values(), *self.silent):
            other.close()
        client.sendall(b"\0")
        client.detach()  # stays open, so that the client sees it end only if server and child have ended
        os.environ.clear()
        os.environ.update(request["environment"])
        del os.environ[ADDRESS]
        os.chdir(request["folder"])
        sys.argv[1:] = request["arguments"]
        atexit.register(gc.unfreeze)  # at the end after an exception the interpreter frees everything, as usual


def read_request(streams: list[int]) -> dict[str, Any]:
    """The request in the last of a client's streams, which is closed. Raises an error if it is no request."""
    if len(streams) < 4:
        raise ValueError("the client has ended")
    with os.fdopen(streams.pop()) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_REQUEST:
            raise ValueError("no file, or a huge one")
        request = json.load(file)
    given = {name: str(value) for name, value in request["environment"].items()}
    arguments = [str(argument) for argument in request["arguments"]]
    fixed = dict(request["fixed"])
    return {"arguments": arguments, "folder": str(request["folder"]), "environment": given, "fixed": fixed}


def leave(code: int) -> NoReturn:
    """End a child whose command is done, without the exit functions of libraries, as ``multiprocessing`` does it.

    The exit functions and the freeing of all libraries take longer than many commands.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
