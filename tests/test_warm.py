"""Commands run by a warm process: the same as fresh ones, whatever ends them, and nothing is left when all is over."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from snakemake_runs import PATIENCE, ROOT, copy_sources, environment, gone, heed_ctrl_c, job, wait_for

from entpruner.cli import main
from entpruner.cli.study import libraries_of
from entpruner.system.temporary import abandoned
from entpruner.system.warm import ADDRESS, STATUS

# A program like `entpruner`, but whose commands are Python code, and whose libraries are quick to load.
PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from entpruner.system import warm

def main():
    code = warm.run(sys.argv[1:])
    if code is None:
        exec(sys.argv[1])
    return code or 0

if sys.argv[1] == "warm":
    warm.become(sys.argv[3:], preload=["wave"], served=[()])
    warm.leave(main())
sys.exit(main())
"""
IS_WARM = "print('wave' in sys.modules)"
SLEEP = "Path(sys.argv[2]).write_text(str(os.getpid())); time.sleep(3600)"


class Warm:
    """A server, and the program that runs its commands."""

    def __init__(self, commands: list[str], house: Path, temporary: Path) -> None:
        self.commands, self.temporary = [sys.executable, "-P", *commands], temporary
        self.environment = environment(house, TMPDIR=str(temporary))
        self.program = subprocess.Popen(  # it ends when its stdin does
            [*self.commands, "warm", "--", "sh", "-c", f"echo ${ADDRESS}; exec cat"],
            env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        assert self.program.stdout
        self.environment[ADDRESS] = self.program.stdout.readline().strip()

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        given = {"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
        given.setdefault("preexec_fn", heed_ctrl_c)
        return subprocess.Popen([*self.commands, *arguments], **given)

    def run(self, *arguments: str, stdin: str = "", **more: Any) -> tuple[int, str, str]:
        with self.start(*arguments, stdin=subprocess.PIPE, **more) as run:
            out, err = run.communicate(stdin)
        return run.returncode, out, err

    def run_fresh(self, *arguments: str, **more: Any) -> tuple[int, str, str]:
        return self.run(*arguments, env={k: v for k, v in self.environment.items() if k != ADDRESS}, **more)

    @contextmanager
    def sleeping(self, note: Path, code: str = SLEEP, **more: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """A client and the process id of its child, which has begun."""
        with self.start(code, str(note), **more) as client:
            wait_for(lambda: note.exists() and note.read_text().isdigit() and passes_on_signals(client), client)
            yield client, int(note.read_text())

    @property
    def server(self) -> psutil.Process:
        (server,) = psutil.Process(self.program.pid).children()
        return server


def passes_on_signals(client: subprocess.Popen) -> bool:
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{client.pid}/status").read_text(), re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> signal.SIGTERM - 1 & 1)


@contextmanager
def serving(*commands: str, house: Path = ROOT) -> Iterator[Warm]:
    with tempfile.TemporaryDirectory() as temporary:  # pytest's own folders have paths too long for a socket
        warm = Warm(list(commands) or ["-c", PROGRAM], house, Path(temporary))
        try:
            yield warm
        finally:
            warm.program.kill()
            warm.program.communicate()
            wait_for(lambda: not list(warm.temporary.glob("entpruner-*")))


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with serving() as warm:
        yield warm


# ---------------------------------------------------------------------------------------------------- as a fresh one


def test_what_a_study_needs_besides_pytorch_is_loaded(tmp_path: Path) -> None:
    compiled = tmp_path / "compiled.yaml"
    compiled.write_text("compute: {device: cpu, threads: 1, compile: true}\n")
    program = ["snakemake", "--configfile", str(ROOT / "params/text.yaml"), str(compiled), "nothing.yaml"]
    assert libraries_of(program) == ["diffusers.models.modeling_utils", "entpruner.system.compiling"]
    assert libraries_of(["snakemake", "--configfile", str(ROOT / "params/digits.yaml")]) == []


def test_loading_the_compiler_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    count = "import os, entpruner.system.compiling; print(len(os.listdir('/proc/self/task')))"
    found = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"  # the server could not fork safely with more


def test_the_compiler_is_loaded_with_its_checksums_and_without_what_initializes_a_gpu() -> None:
    code = """if True:
        import entpruner.system.compiling, hashlib, sys
        from torch._inductor.codecache import torch_key
        from torch._inductor.runtime.triton_compat import HAS_TRITON, triton_key
        hashlib.sha256 = None  # a checksum that is not remembered fails from here on
        torch_key(), HAS_TRITON and triton_key()
        print("torch.utils.cpp_extension" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_command_finds_the_libraries_loaded(warm: Warm) -> None:
    assert warm.run(IS_WARM) == (0, "True\n", "")
    assert warm.run_fresh(IS_WARM) == (0, "False\n", "")


@pytest.mark.parametrize(
    "code",
    [
        "print('out'); print('err', file=sys.stderr); sys.exit(3)",
        "print(sys.stdin.read(), sys.argv[1:], Path.cwd(), sys.path[1:])",
        "os.write(1, b'unbuffered'); os._exit(7)",
        "print('said before', end=''); os.kill(os.getpid(), signal.SIGTERM)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.abort()",
        "print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD))",
    ],
)
def test_streams_and_exit_code_are_those_of_a_fresh_process(warm: Warm, code: str, tmp_path: Path) -> None:
    ways = [run(code, "an argument", stdin="a line", cwd=tmp_path) for run in (warm.run, warm.run_fresh)]
    assert ways[0] == ways[1]


@pytest.mark.parametrize(("error", "code"), [("ZeroDivisionError", 1), ("KeyboardInterrupt", -signal.SIGINT)])
def test_an_exception_has_its_traceback_and_exit_code(warm: Warm, error: str, code: int) -> None:
    for run in (warm.run, warm.run_fresh):
        returned, out, err = run(f"raise {error}")
        assert (returned, out) == (code, "")
        assert err.startswith("Traceback") and err.splitlines()[-1] == error


def test_two_run_at_once(warm: Warm, tmp_path: Path) -> None:
    meet = "Path(sys.argv[2]).touch()\nwhile not Path(sys.argv[3]).exists(): time.sleep(0.01)"
    files = [str(tmp_path / name) for name in "ab"]
    with warm.start(meet, *files) as one, warm.start(meet, *reversed(files)) as other:
        assert one.wait(PATIENCE) == other.wait(PATIENCE) == 0


# ----------------------------------------------------------------------------------------- what sends one its own way


@pytest.mark.parametrize("name", ["MKL_NUM_THREADS", "LD_LIBRARY_PATH", "PYTHONUTF8", "SLURM_JOB_ID"])
def test_another_environment_is_not_served(warm: Warm, name: str) -> None:
    assert warm.run(IS_WARM) == (0, "True\n", "")
    changed = warm.environment | {name: "1"}
    assert warm.run(f"print(os.environ[{name!r}]); {IS_WARM}", env=changed) == (0, "1\nFalse\n", "")


def test_what_a_shell_sets_by_itself_is_handed_over(warm: Warm) -> None:
    changed = warm.environment | {"SHLVL": "7"}
    assert warm.run(f"print(os.environ['SHLVL']); {IS_WARM}", env=changed) == (0, "7\nTrue\n", "")


def test_a_changed_package_is_not_served(tmp_path: Path) -> None:
    with serving(house=copy_sources(tmp_path)) as warm:
        assert warm.run(IS_WARM) == (0, "True\n", "")
        with (tmp_path / "entpruner/commands/score.py").open("a") as file:
            file.write("# a line\n")
        assert warm.run(IS_WARM) == (0, "False\n", "")


def test_without_a_server_a_command_runs_itself(warm: Warm, tmp_path: Path) -> None:
    for address in ("/nowhere/socket", str(tmp_path), ""):
        assert warm.run(IS_WARM, env=warm.environment | {ADDRESS: address}) == (0, "False\n", "")


# -------------------------------------------------------------------------------------------------- what ends it, ends


def test_the_child_of_a_killed_client_ends_and_what_it_started(warm: Warm, tmp_path: Path) -> None:
    nested = "subprocess.run([sys.executable, '-c', 'import sys, os, time; from pathlib import Path;' + SLEEP])"
    with warm.sleeping(tmp_path / "pid", f"SLEEP = {SLEEP.replace('2', '1')!r}; {nested[:-2]}, sys.argv[2]])") as (
        client,
        grandchild,
    ):
        child = psutil.Process(grandchild).ppid()
        client.kill()
        wait_for(lambda: gone(child) and gone(grandchild))


def test_a_signal_is_passed_on_and_heeded_as_a_fresh_process_does(warm: Warm, tmp_path: Path) -> None:
    with warm.sleeping(tmp_path / "terminated") as (client, child):
        client.terminate()
        assert client.wait(PATIENCE) == -signal.SIGTERM
        assert gone(child)
    tidy = f"""
try: {SLEEP}
except KeyboardInterrupt: print('tidied up'); sys.exit(4)
"""
    with warm.sleeping(tmp_path / "interrupted", tidy) as (client, _):
        client.send_signal(signal.SIGINT)
        assert client.communicate() == ("tidied up\n", "")
        assert client.returncode == 4


def test_a_client_that_is_deaf_to_ctrl_c_has_a_deaf_child(warm: Warm, tmp_path: Path) -> None:
    deaf = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    until_told = SLEEP.replace("time.sleep(3600)", "\nwhile Path(sys.argv[2]).exists(): time.sleep(0.01)")
    with warm.sleeping(tmp_path / "pid", until_told, **deaf) as (client, _):
        client.send_signal(signal.SIGINT)
        assert warm.run(IS_WARM)[0] == 0  # by its end the server would have passed the signal on
        (tmp_path / "pid").unlink()
        assert client.wait(PATIENCE) == 0


def test_with_a_killed_server_its_children_end_and_their_clients_say_so(tmp_path: Path) -> None:
    with serving() as warm, warm.sleeping(tmp_path / "pid") as (client, child):
        warm.server.kill()
        assert "the warm process was killed" in client.communicate()[1]
        assert client.returncode == 1
        assert gone(child)
        assert warm.run(IS_WARM) == (0, "False\n", "")
        (left,) = warm.temporary.iterdir()  # nobody is there to delete it, before the next one starts
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tempfile.tempdir", str(warm.temporary))
            assert abandoned() == [left]
        shutil.rmtree(left)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """A client that waits for its child's end, and the other end of its connection: the test is its server."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        served = environment(ROOT, **{ADDRESS: f"{folder}/socket"})
        with subprocess.Popen([sys.executable, "-P", "-c", PROGRAM, IS_WARM], env=served, **streams) as client:
            connection = listener.accept()[0]
            for stream in socket.recv_fds(connection, 1, 4)[1]:
                os.close(stream)
            connection.sendall(b"\0")
            wait_for(lambda: passes_on_signals(client), client)
            yield client, connection
            connection.close()


def test_a_signal_that_comes_as_the_child_ends_changes_nothing(
    scripted: tuple[subprocess.Popen[str], socket.socket],
) -> None:
    client, server = scripted
    client.send_signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(client.pid).status() == psutil.STATUS_STOPPED)
    server.sendall(STATUS.pack(3))
    server.close()
    client.send_signal(signal.SIGTERM)
    client.send_signal(signal.SIGCONT)
    assert client.communicate() == ("", "")
    assert client.returncode == 3


def test_a_server_that_is_killed_before_it_reads_a_signal_is_said_to_be_killed(
    scripted: tuple[subprocess.Popen[str], socket.socket],
) -> None:
    client, server = scripted
    client.terminate()
    assert server.recv(1, socket.MSG_PEEK) == bytes([signal.SIGTERM])
    server.close()
    assert client.communicate()[1].splitlines()[-1].endswith("run it again")
    assert client.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_when_the_program_ends_everything_does(tmp_path: Path, number: signal.Signals) -> None:
    with serving() as warm, warm.sleeping(tmp_path / "pid") as (client, child):
        server = warm.server.pid
        (folder,) = warm.temporary.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        warm.program.send_signal(number)
        assert warm.program.wait(PATIENCE) == -number  # the program itself: nothing stands before it
        assert client.wait(PATIENCE) != 0
        wait_for(lambda: gone(child) and gone(server) and not folder.exists())


def test_the_exit_code_is_the_programs(warm: Warm) -> None:
    assert warm.run_fresh("warm", "--", "sh", "-c", "echo said; exit 5") == (5, "said\n", "")
    assert warm.run_fresh("warm", "--", "nowhere")[0] == 1


def test_a_library_that_does_not_load_is_left_to_the_command(tmp_path: Path) -> None:
    program = PROGRAM.replace('"wave"', '"wave", "nowhere"')
    with serving("-c", program) as warm:
        assert warm.run(IS_WARM) == (0, "False\n", "")


# -------------------------------------------------------------------------------------------------- the real commands


def test_the_rules_commands_leave_the_same_bytes(
    tmp_path: Path, process_settings: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those that this process runs itself, which has the libraries of a fresh one."""
    backbone = {"process": {"kind": "flow"}, "depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
    common = {"artefact": "a", "seed": 0, "compute": {"device": "cpu", "threads": 2}}
    pretrain = common | {
        "stop": 3,
        "backbone": backbone,
        "training": {"steps": 3, "batch_size": 64, "learning_rate": 1e-3},
    }
    score = common | {"criterion": "ced", "scoring": {"draws": 16, "batch_size": 16}}

    def given(rule: str, settings: dict[str, Any], **paths: str) -> list[str]:
        return job(rule, settings, **{option: tmp_path / path for option, path in paths.items()})

    def run_here(*arguments: str) -> tuple[int, str, str]:
        return (main(list(arguments)), *capsys.readouterr())

    with serving("-m", "entpruner.cli") as warm:
        data = given("data", {"dataset": {"source": "digits"}}, out="store")
        assert warm.run(*data)[0] == 0  # one that runs by itself
        refused = given("score", score, store="store", init="nowhere", out="scores")
        answer = warm.run(*refused)
        assert answer == run_here(*refused)
        assert answer[2].startswith("entpruner: ")
        assert warm.server.num_threads() == 1  # though all is loaded: no thread holds a lock that a child would miss
        for way, run in {"warm": warm.run, "here": run_here}.items():
            assert run(*given("pretrain", pretrain, store="store", out=f"{way}/model"))[0] == 0
            assert run(*given("score", score, store="store", init=f"{way}/model", out=f"{way}/scores"))[0] == 0
            assert warm.server.cpu_times().children_user > 0  # they were its children
    for name in ("model/model.safetensors", "model/train_state.safetensors", "model/model.json", "scores/scores.json"):
        assert (tmp_path / "warm" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    assert json.loads((tmp_path / "warm/model/timing.json").read_text())["threads"] == 2


# ----------------------------------------------------------------------------------------------------- bad clients


@contextmanager
def talking(warm: Warm) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(warm.environment[ADDRESS])
        yield client


def test_clients_that_say_nothing_hold_up_nobody(warm: Warm) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(talking(warm))
        assert warm.run(IS_WARM) == (0, "True\n", "")


@pytest.mark.parametrize(
    "request_text",
    ["", "{", "[]", '"text"', "[" * 100_000, '{"arguments": 1, "folder": 2, "environment": 3, "fixed": 4}'],
)
def test_a_request_that_is_none_is_an_error_of_that_client_alone(warm: Warm, request_text: str) -> None:
    with talking(warm) as client, tempfile.TemporaryFile("w+") as file:
        file.write(request_text)
        file.seek(0)
        socket.send_fds(client, [b"\0"], [0, 1, 2, file.fileno()])
        assert client.recv(1) == b""  # it may do the work itself
    assert warm.run(IS_WARM) == (0, "True\n", "")


def test_a_pipe_is_no_request(warm: Warm) -> None:
    reading, writing = os.pipe()
    with talking(warm) as client:
        socket.send_fds(client, [b"\0"], [0, 1, 2, reading])
        assert client.recv(1) == b""
    os.close(reading)
    os.close(writing)
    assert warm.run(IS_WARM) == (0, "True\n", "")


def test_a_closed_terminal_ends_client_and_child(warm: Warm, tmp_path: Path) -> None:
    with warm.sleeping(tmp_path / "note") as (client, pid):
        client.send_signal(signal.SIGHUP)
        assert client.wait(PATIENCE) != 0
        wait_for(lambda: gone(pid))
