"""A started sandbox as seen from outside: frames go in, lines come out, and it always ends."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pipeline.errors import SandboxError

_READY = b'{"ready": true}'
_CHUNK = 1 << 18
_SOON_S = 0.2
"""Most lines come sooner, and looking at processor times costs more than reading them."""
_IDLE_SHARE = 0.01
"""A program that uses less of a processor waits or sleeps."""
_PATIENCE = 20.0
"""Times its limit in wall time that a program which does compute may take."""


class SandboxProcess:
    """The process of a sandbox's command. Leaving the context kills whatever is left of it.

    Raises:
        SandboxError: The command cannot be started.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], remedy: str
    ) -> None:
        self._name = command[0]
        self._remedy = remedy
        self._buffer = bytearray()
        self._scratch = tempfile.TemporaryDirectory(prefix="promptcot-run-")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                cwd=self._scratch.name,
                env=environment,
                bufsize=0,
            )
        except OSError as exc:
            self._stderr.close()
            self._scratch.cleanup()
            raise SandboxError(f"{self._name} does not start: {exc}", hint=remedy) from exc
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)

    @property
    def folder(self) -> str:
        """An own folder of this machine, for programs that are not sealed off."""
        return self._scratch.name

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()
        self._stderr.close()
        self._scratch.cleanup()

    def require_ready(self, request: bytes, seconds: float) -> None:
        """Send the request and wait until the other side has understood it.

        Raises:
            SandboxError: It does not.
        """
        self.send_frame(request, seconds)
        line = self.read_line(seconds)
        if line != _READY:
            self._stderr.seek(0)
            last = self._stderr.read().decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
            raise SandboxError(
                f"{self._name} does not start ({last or 'no answer'})", hint=self._remedy
            )

    def send_frame(self, data: bytes, seconds: float) -> None:
        """Send bytes with their length before them."""
        self.send(f"{len(data):015d}\n".encode("ascii") + data, seconds)

    def send(self, data: bytes, seconds: float) -> None:
        """Send bytes; what nobody reads within the time, or any more, is dropped.

        Its reader then has ended or hangs, which the lines that come back tell.
        """
        deadline = time.monotonic() + seconds
        view = memoryview(data)
        while view and _wait(self._input.fileno(), select.POLLOUT, deadline):
            try:
                view = view[os.write(self._input.fileno(), view) :]
            except BrokenPipeError:
                return

    def finish_input(self) -> None:
        """Tell the other side that no more comes."""
        self._input.close()

    def read_line(self, seconds: float) -> bytes | None:
        """The next line; none when it does not come in time or the process has ended.

        Processes that compute are waited for longer: on a busy machine they get little done.
        """
        start = time.monotonic()
        deadline = start + min(seconds, _SOON_S)
        used: float | None = None
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if not _wait(self._output.fileno(), select.POLLIN, deadline):
                waited = time.monotonic() - start
                if used is None and waited < seconds:
                    used, deadline = processor_s(self._process.pid), start + seconds
                    continue
                busy_s = 0.0 if used is None else processor_s(self._process.pid) - used
                if busy_s < _IDLE_SHARE * waited or waited > _PATIENCE * seconds:
                    return None
                deadline = time.monotonic() + seconds
                continue
            chunk = os.read(self._output.fileno(), _CHUNK)
            if not chunk:
                return None
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _wait(file: int, event: int, deadline: float) -> bool:
    """Whether a file is ready, or its other end closed, before the deadline."""
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(1000 * max(0.0, deadline - time.monotonic())))


def processor_s(pid: int) -> float:
    """Processor seconds of a process, its living descendants, and those that it waited for."""
    folder = Path(f"/proc/{pid}")
    try:
        ticks = map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15])
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except OSError:
        return 0.0  # it ended meanwhile
    return sum(ticks) / os.sysconf("SC_CLK_TCK") + sum(processor_s(int(c)) for c in children)
