"""Programs in forks of one process that has imported the large packages of others, so that each begins at once.

A fork has the folder, environment, arguments and streams of its caller, and imports vireid itself. Packages that start
threads when they are imported, as LanceDB does, are left to it too.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("torch._dynamo", "scipy.io", "scipy.optimize", "matplotlib.pyplot", "onnxscript")
STREAMS = (0, 1, 2)


@contextlib.contextmanager
def forks(folder: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """A command to which `FILE WORDS` or `-c CODE` is added, as to that of Python. All of its processes end here."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "forks"))
        listening.listen()
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", str(listening.fileno())],
            env=environment, stdin=subprocess.PIPE, pass_fds=[listening.fileno()], start_new_session=True,
        )  # fmt: skip
    try:
        yield [sys.executable, "-IS", __file__, "run", str(folder / "forks")]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def run(path: str, words: list[str]) -> int:
    """The exit code of a program that runs in a fork, with the streams of this process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b" "], STREAMS)
        connection.sendall(json.dumps([os.getcwd(), dict(os.environ), words]).encode() + b"\n")
        return int(connection.makefile().read())


def serve(listening: socket.socket) -> None:
    """Begin a program for each connection, until stdin ends; returns in each fork, when its program is to run."""
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    while True:
        if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
            sys.exit()  # the tests were killed
        connection, _ = listening.accept()
        if os.fork() == 0:
            break
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    listening.close()
    answer(connection)


def answer(connection: socket.socket) -> None:
    """Tell the caller the exit code of its program, which is a fork of this process; returns in the fork."""
    _, streams, *_ = socket.recv_fds(connection, 1, len(STREAMS))
    folder, environment, words = json.loads(connection.makefile().readline())
    if program := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # the caller was killed
            connection.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)
    connection.close()
    for stream, given in zip(STREAMS, streams, strict=True):
        os.dup2(given, stream)
        os.close(given)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = words


def execute() -> None:
    """Run sys.argv as Python does with these words: a file, or -c and code."""
    main = types.ModuleType("__main__")
    if sys.argv[0] == "-c":
        code, sys.path[0] = sys.argv.pop(1), ""
    else:
        main.__file__, sys.path[0] = sys.argv[0], str(Path(sys.argv[0]).parent)
        code = Path(sys.argv[0]).read_text("utf-8")
    sys.modules["__main__"] = main
    exec(compile(code, sys.argv[0], "exec"), vars(main))


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(run(sys.argv[2], sys.argv[3:]))
    serve(socket.socket(fileno=int(sys.argv[2])))
    execute()
