"""What the system gives: a lock that threads and processes wait for, and that a killed process lets go."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from vireid import system
from vireid.system import MALLOC_VARIABLES, available_cores, has_gpu, is_locked, locked

HOLD = """
import sys, threading
from pathlib import Path
from vireid.system import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    ending = threading.Thread(target=sys.stdin.read, daemon=True)
    ending.start()
    ending.join(300)
"""


@pytest.fixture
def holder(start_python, tmp_path):
    """A process that holds `a.lock` until its input ends."""
    process = start_python("-c", HOLD, "a.lock", cwd=tmp_path, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_waited_for_and_the_wait_is_logged(tmp_path, caplog, holder, monkeypatch):
    path = tmp_path / "a.lock"
    let_go = logging.Handler()
    let_go.emit = lambda record: holder.stdin.close()  # when the wait is logged
    caplog.set_level(logging.INFO, "vireid")
    monkeypatch.setattr(logging.getLogger("vireid"), "handlers", [let_go])
    with locked(path):
        assert str(path) in caplog.text
    assert holder.wait() == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_lets_its_lock_go(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "a.lock"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shared locks of whole files")
def test_who_asks_whether_it_is_locked_is_not_taken_for_a_holder(tmp_path):
    path = tmp_path / "a.lock"
    assert not is_locked(path) and not path.exists()
    with locked(path):
        assert is_locked(path)
    answers, together = [], threading.Barrier(4)

    def ask() -> None:
        together.wait(30)
        answers.extend(is_locked(path) for _ in range(2000))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 8000 and not any(answers)


def test_one_thread_at_a_time(tmp_path):
    inside, most, path = 0, 0, tmp_path / "a.lock"

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with locked(path):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1 and inside == 0


def test_an_error_inside_lets_the_lock_go(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a.lock"):
        raise KeyError
    with locked(tmp_path / "a.lock"):
        pass


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


FAULTS = """
import resource
from vireid.system import keep_freed_memory
print(keep_freed_memory())
size = 40_000_000
for _ in range(10):
    b"x" * size  # more than glibc ever keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(**environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of a process that allocates and frees 40 MB ten times."""
    rest = {name: value for name, value in os.environ.items() if name not in MALLOC_VARIABLES}
    command = [sys.executable, "-c", FAULTS]
    out = subprocess.run(command, env=rest | environment, capture_output=True, text=True, check=True).stdout.split()
    return out[0] == "True", int(out[1])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is a library of Linux")
def test_freed_memory_is_used_again_unless_the_user_has_set_malloc():
    kept, few = page_faults()
    left, many = page_faults(GLIBC_TUNABLES="glibc.malloc.top_pad=131072")
    assert kept and not left
    assert many - few > 9 * 40_000_000 // 2**21  # nine times, in pages of 2 MB at most


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is always asked")
def test_torch_is_asked_for_a_gpu_where_there_may_be_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(system, "GPU_DEVICES", (str(tmp_path),))
    assert has_gpu()
    monkeypatch.setattr(system, "GPU_DEVICES", ())
    monkeypatch.setattr(system.ctypes, "CDLL", lambda name: None)
    assert has_gpu()

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(system.ctypes, "CDLL", missing)
    assert not has_gpu()
