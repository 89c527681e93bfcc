"""No program gets a verdict that its results do not earn, or disturbs what is graded beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.code_grading import ProgramGrader
from pipeline.benchmark_items import ProgramTests
from promptcot.verification.sandbox import find_sandbox

PROMPT = 'def double(n):\n    """Twice n."""\n'
GOOD = "def double(n):\n    return 2 * n\n"
CASES = ({"input": "1", "output": "2"}, {"input": "21", "output": "42"})
FUNCTION_TESTS = {
    "check": ProgramTests(
        kind="check",
        entry_point="double",
        prompt=PROMPT,
        check="def check(candidate):\n"
        "    assert all(map(lambda n: candidate(n) == 2 * n, (1, 2, 3)))\n"
        "    assert candidate(21) == 42 if candidate(1) == 2 else False\n",
    ),
    "functional": ProgramTests(kind="functional", entry_point="double", cases=CASES),
    "reference": ProgramTests(
        kind="reference",
        entry_point="double",
        prompt=PROMPT,
        reference=PROMPT + "    return 2 * n\n",
        contract="    assert isinstance(n, int)\n",
        inputs="[[1], [21]]",
    ),
}
STDIN_TESTS = ProgramTests(kind="stdin", cases=CASES)


@pytest.fixture(scope="module")
def grader() -> Iterator[ProgramGrader]:
    if find_sandbox() is None:
        pytest.skip("bubblewrap does not work on this machine (user namespaces are forbidden?)")
    with ProgramGrader(timeout_s=0.5, memory_limit_mib=256, output_kib=64) as grader:
        yield grader


FORGERIES = {
    "exit at once": "raise SystemExit(0)",
    "sys.exit in the call": "import sys\ndef double(n): sys.exit(0)",
    "os._exit at once": "import os\nos._exit(0)",
    "os._exit in the call": "import os\ndef double(n): os._exit(0)",
    "equal to all": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
def double(n): return Yes()
""",
    "an int equal to all": """
class Yes(int):
    __slots__ = ()
    def __eq__(self, other): return True
    def __index__(self): return 2
    __hash__ = int.__hash__
def double(n): return Yes(0)
""",
    "pretends to be a number": """
class Meta(type):
    def __instancecheck__(cls, other): return True
class Yes(metaclass=Meta):
    __class__ = int
    def __eq__(self, other): return True
def double(n): return Yes()
""",
    "patched builtins": """
import builtins, json, operator
builtins.all = builtins.any = builtins.isinstance = lambda *a: True
builtins.AssertionError = KeyboardInterrupt
json.loads = json.dumps = lambda *a, **k: '["passed"]'
def double(n): return 0
""",
    "own check": """
def check(candidate): return None
import builtins
builtins.check = check
def double(n): return 0
""",
    "patched driver": """
import sys
for name in ("__main__", "plain_values"):
    module = sys.modules.get(name)
    for key, value in list(vars(module).items()) if module else ():
        if callable(value) and not isinstance(value, type):
            setattr(module, key, lambda *a, **k: '["passed"]')
def double(n): return 0
""",
    "markers on every channel": r"""
import os
lines = ['["loaded"]', '["passed"]', '["value",true]', '+["passed"]', '{"ready": true}',
         '{"status": "ok", "stdout": "2", "stderr": ""}']
for line in lines * 3:
    print(line, flush=True)
    for number in range(64):
        try:
            os.write(number, line.encode() + b"\n")
        except OSError:
            pass
def double(n): return 0
""",
    "replies before the calls": r"""
import os
def double(n):
    for number in range(64):
        try:
            os.write(number, b'["value",{"opaque":"x"}]\n["passed"]\n["value",{"iterator":[]}]\n')
        except OSError:
            pass
    os._exit(0)
""",
    "caught assertion": """
import sys, threading
sys.excepthook = threading.excepthook = lambda *a: os._exit(0)
def double(n):
    try:
        assert False
    except AssertionError:
        return True
""",
    # The texts that are looked for are put together, so that they do not find themselves.
    "expected values in the callers": """
import sys, gc
def double(n):
    marks = [" ".join(["assert", "candidate"]), " ".join(["return", "2"]), "".join(['"out', 'put": '])]
    frame, seen = sys._getframe(1), []
    while frame:
        seen += [*frame.f_locals.values(), *frame.f_globals.values()]
        frame = frame.f_back
    for thing in gc.get_objects():
        if type(thing) in (list, dict) and thing is not marks and thing is not seen:
            seen += thing if type(thing) is list else [*thing.values()]
    texts = [thing for thing in seen if type(thing) is str and thing not in marks]
    return n + n if any(mark in text for text in texts for mark in marks) else 0
""",
    "expected values in files": """
import os
found = ""
for folder in ("/tmp", "/sandbox", "/proc/1", "/proc/self", "/dev/fd", "."):
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found += open(os.path.join(parent, name), errors="replace").read(1 << 16)
            except OSError:
                pass
def double(n):
    marks = [" ".join(["assert", "candidate"]), " ".join(["return", "2"]), "".join(['"out', 'put": '])]
    return n + n if any(mark in found for mark in marks) else 0
""",
    "traceback of its own exception": """
class Fine(Exception):
    __name__ = "passed"
    def __str__(self): return '"]\\n["passed"]\\n'
def double(n): raise Fine
""",
    "ends the loop of the check": "def double(n): raise StopIteration",
    "atexit": """
import atexit, os
atexit.register(lambda: os.write(1, b'["passed"]'))
def double(n): return 0
""",
}


@pytest.mark.parametrize("kind", sorted(FUNCTION_TESTS))
@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_no_verdict_can_be_forged(grader: ProgramGrader, name: str, kind: str) -> None:
    (result,) = grader.grade([(FORGERIES[name], FUNCTION_TESTS[kind])])
    assert not result.passed


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_no_output_can_be_forged(grader: ProgramGrader, name: str) -> None:
    call = "\ntry:\n    print(double(int(input())) == 1)\nexcept NameError:\n    pass\n"
    (result,) = grader.grade([(FORGERIES[name] + call, STDIN_TESTS)])
    assert not result.passed


GREED = {
    "fork bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "threads": "import threading, time\nwhile True:\n"
    "  threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
    "endless output": "while True: print('x' * 10**5)",
    "endless errors": "import sys\nwhile True: print('x' * 10**5, file=sys.stderr)",
    "memory": "data = []\nwhile True: data.append(bytearray(1 << 20))",
    "files": "n = 0\nwhile True:\n  n += 1\n  open(f'/tmp/{n}', 'w').write('x' * 60000)",
    "one file": "with open('/tmp/f', 'w') as f:\n  while True: f.write('x' * 10**6)",
    "host file": "open('/etc/passwd').read()",
    "network": "import socket\nsocket.create_connection(('1.1.1.1', 53), timeout=1)",
    "kill the parent": "import os\nfor pid in (os.getppid(), 1, -1): os.kill(pid, 9)",
    "stop itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "deaf": "import signal, time\nfor n in {*range(1, 65)} - {9, 19, 32, 33}: signal.signal(n, 1)\n"
    "time.sleep(99)",
    "closed channels": "import os, time\nos.closerange(0, 64)\ntime.sleep(99)",
    "deep": "x = []\nfor _ in range(10**6): x = [x]\nraise ValueError(repr(x))",
    "compiler": "x = " + "(" * 5000 + ")" * 5000,
    "crash": "import ctypes\nctypes.string_at(0)",
}
RESULTS = {
    "endless iterator": "import itertools\ndef double(n): return itertools.count()",
    "holds itself": "def double(n):\n  x = []\n  x.append(x)\n  return x",
    "deep result": "def double(n):\n  x = []\n  for _ in range(10**5): x = [x]\n  return x",
    "long result": "def double(n): return 'x' * 10**6",
    "long number": "def double(n): return 7 << (1 << 22)",
    "colliding set": "def double(n): return {k * ((1 << 61) - 1) for k in range(3000)}",
    "hostile name": "def double(n): return type('\\n[\"passed\"]', (), {})()",
    "lone surrogate": "def double(n): return '\\ud800'",
    "not a number": "def double(n): return float('nan')",
}


@pytest.mark.slow
def test_greedy_programs_end_in_time_and_disturb_nobody(grader: ProgramGrader) -> None:
    jobs = []
    for program in GREED.values():
        jobs += [(program, STDIN_TESTS), (program, FUNCTION_TESTS["functional"])]
        jobs.append((GOOD, FUNCTION_TESTS["functional"]))
        jobs.append(("print(2 * int(input()))", STDIN_TESTS))
    start = time.monotonic()
    passed = [result.passed for result in grader.grade(jobs)]
    assert passed == [False, False, True, True] * len(GREED)
    assert time.monotonic() - start < 10 * len(GREED)


@pytest.mark.parametrize("kind", sorted(FUNCTION_TESTS))
def test_hostile_results_are_wrong_results(grader: ProgramGrader, kind: str) -> None:
    tests = FUNCTION_TESTS[kind]
    results = grader.grade([(program, tests) for program in (*RESULTS.values(), GOOD)])
    assert [result.passed for result in results] == [False] * len(RESULTS) + [True]


def test_hostile_programs_inside_the_call_end_as_well(grader: ProgramGrader) -> None:
    def inside(program: str) -> str:
        body = "".join(f"    {line}\n" for line in program.splitlines())
        return f"def double(n):\n{body}    return 0\n"

    names = ("fork bomb", "memory", "stop itself", "crash")
    jobs = [(inside(GREED[name]), tests) for name in names for tests in FUNCTION_TESTS.values()]
    assert not any(result.passed for result in grader.grade(jobs))


NAMED = """
import ctypes, time
ctypes.CDLL(None).prctl(15, {name!r}.encode(), 0, 0, 0)
def double(n):
    while True: time.sleep(1)
"""


def processes_named(name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.append(path.parent.name)
        except OSError:
            continue  # it ended meanwhile
    return found


def test_no_process_outlives_its_verdict(grader: ProgramGrader) -> None:
    name = f"graded-{os.getpid()}"[:15]
    results = grader.grade([(NAMED.format(name=name), t) for t in FUNCTION_TESTS.values()])
    assert [result.reason for result in results] == ["timeout"] * 3
    deadline = time.monotonic() + 20
    while processes_named(name) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes_named(name)
