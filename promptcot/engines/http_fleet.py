"""Which of several servers gets a request, and which are left alone for a while.

Each request goes to the usable server with the fewest in flight. A server is put aside

- when no connection to it can be made or kept, or it fails several times in a row: it is *down*,
  and after a back-off one request probes it. An answer brings it back; where it was unreachable,
  a probe that is still being worked on after two seconds does so too;
- when it says that it is busy (429, 503): it is *paused* as long as it asks for, and then given
  half as many requests at once, slowly more with each answer.

Servers may join and leave while it works (:meth:`Fleet.set_servers`): one that left gets no further
requests, and what it is still working on may end.

While no server is usable the requests wait. Only when that has lasted for ``outage_s`` without any
answer the run stops; for ``first_contact_s``, where no server has replied at all so far.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from pipeline import console
from pipeline.errors import TeacherUnreachable
from promptcot.engines.servers import Servers

_FAILURES_IN_A_ROW = 6
"""A server that fails one request in five must not stand idle for it; six in a row are a fault."""
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LONGEST_SLEEP_S = 5.0
"""Of a waiting request: whoever was woken in its place may have been cancelled."""
_SIGN_OF_LIFE_S = 2.0
"""A whole answer can take minutes, in which the others need not wait for the probe's."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """One server and what is known about it."""

    url: str
    in_flight: int = 0
    limit: float = math.inf
    """Requests at once; finite after the server said that it had too many."""
    is_down: bool = False
    is_unreachable: bool = False
    """Down because of its connections, not of its replies."""
    is_probed: bool = False
    """A request is finding out whether a server that was down is back."""
    resume_at: float = 0.0
    """Clock of the event loop; nothing is sent before."""
    aside_since: float = -math.inf
    num_asides: int = 0
    """Times put aside without an answer between: the exponent of the back-off."""
    num_failures: int = 0
    """In a row."""
    has_warned: bool = False
    is_gone: bool = False
    """No longer among the fleet's servers."""
    is_checked: bool = False
    """It is known to serve the teacher's model since it was last put aside as down."""
    is_other: bool = False
    """It was found to serve another model."""
    check: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is asked for its model."""

    def is_usable(self, now: float) -> bool:
        """Whether the server is known to be there and has not asked to be left alone."""
        return not self.is_down and now >= self.resume_at

    def is_free(self, now: float) -> bool:
        """Whether a request may go there now."""
        if now < self.resume_at:
            return False
        return not self.is_probed if self.is_down else self.in_flight < self.limit


@dataclass(frozen=True, slots=True)
class Lease:
    """A request's place at a server, from just before it is sent until its reply is there."""

    endpoint: Endpoint
    started: float


class Fleet:
    """The servers of one teacher. All methods run in one event loop."""

    def __init__(self, servers: Servers) -> None:
        urls = () if servers.replicas else servers.base_urls
        self.endpoints = [Endpoint(url) for url in dict.fromkeys(url.rstrip("/") for url in urls)]
        self._servers = servers
        self._has_contact = False
        """Whether some server has ever replied, with an answer or an error."""
        self._trouble_since: float | None = None
        """Since when no server has been usable and none has answered."""
        self._is_outage_said = False
        self._last_reason = ""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def lease(self, avoid: Endpoint | None) -> AsyncIterator[Lease]:
        """A place at the least loaded server, if possible another one than ``avoid``.

        Raises:
            TeacherUnreachable: No server has answered for longer than the limit.
        """
        while (endpoint := self._choose(avoid)) is None:
            await self._wait()
        is_probe = endpoint.is_down
        endpoint.is_probed |= is_probe
        endpoint.in_flight += 1
        lease = Lease(endpoint, self._now())
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_SIGN_OF_LIFE_S, self._see_life, lease) if is_probe else None
        try:
            yield lease
        finally:
            if timer is not None:
                timer.cancel()
            endpoint.in_flight -= 1
            if is_probe:
                endpoint.is_probed = False
            # A limited server has room again, or a failed probe may be followed by the next.
            self._wake(1)

    def set_servers(self, urls: Sequence[str]) -> tuple[list[str], list[str]]:
        """Take these servers from now on; the ones that joined, and the ones that left."""
        known = {endpoint.url: endpoint for endpoint in self.endpoints}
        left = [url for url in known if url not in set(urls)]
        for url in left:
            known[url].is_gone = True
        self.endpoints = [known.get(url) or Endpoint(url) for url in urls]
        if self._trouble_since is None and not self.is_any_usable():
            self._trouble_since = self._now()
            self._last_reason = self._last_reason or "the list is empty"
        self._wake(len(self._waiting))
        return [url for url in urls if url not in known], left

    def is_any_usable(self) -> bool:
        """Whether some server is known to be there."""
        now = self._now()
        return any(endpoint.is_usable(now) for endpoint in self.endpoints)

    def report_answer(self, lease: Lease) -> None:
        """The server answered, if only with a refusal: it is there."""
        endpoint = lease.endpoint
        self._has_contact = True
        if endpoint.is_down:
            if endpoint.is_unreachable and lease.started < endpoint.aside_since:
                # Its last words, which were on their way when it died.
                return
            self._bring_back(endpoint)
        endpoint.num_failures = endpoint.num_asides = 0
        endpoint.is_other = False
        if endpoint.limit < math.inf:
            endpoint.limit += 1 / endpoint.limit
        self._trouble_since = None
        if self._is_outage_said:
            self._is_outage_said = False
            console.say(f"{endpoint.url} answers again")

    def report_failure(self, lease: Lease, reason: str) -> None:
        """The server replied, or kept silent, in a way that may be its own fault."""
        endpoint = lease.endpoint
        self._has_contact = True
        self._note(endpoint, reason)
        # Sent before the server was put aside: says nothing new.
        if lease.started < endpoint.aside_since:
            return
        endpoint.num_failures += 1
        if endpoint.is_down or endpoint.num_failures >= _FAILURES_IN_A_ROW:
            endpoint.is_down, endpoint.is_unreachable = True, False
            self._put_aside(endpoint, None)

    def report_loss(self, lease: Lease, reason: str, *, was_connected: bool) -> bool:
        """No connection could be made or kept; whether that may be the request's fault.

        It is not where all servers are gone, nor where the server had been put aside meanwhile:
        a server that dies and is started again must cost no row.
        """
        endpoint = lease.endpoint
        self._note(endpoint, reason)
        # Whatever hangs up at once may be no such server at all; this one was working.
        self._has_contact |= was_connected and self._now() - lease.started > _SIGN_OF_LIFE_S
        if lease.started < endpoint.aside_since:
            return False
        endpoint.is_down = endpoint.is_unreachable = True
        self._put_aside(endpoint, None)
        return self.is_any_usable() and not endpoint.is_gone

    def report_other_model(self, lease: Lease, reason: str) -> bool:
        """The server serves another model, and is asked again later; whether all of them do."""
        endpoint = lease.endpoint
        self._note(endpoint, reason)
        endpoint.is_down = endpoint.is_other = True
        endpoint.is_unreachable = False
        self._put_aside(endpoint, None)
        return all(e.is_other for e in self.endpoints)

    def report_busy(self, lease: Lease, reason: str, wait_s: float | None) -> None:
        """The server is there, but has more than it can do; ``wait_s`` is what it asks for."""
        endpoint = lease.endpoint
        self._has_contact = True
        self._note(endpoint, reason)
        if lease.started >= endpoint.aside_since:
            # This request itself did not fit.
            endpoint.limit = max(1.0, endpoint.in_flight / 2)
            if wait_s is None and endpoint.limit > 1:
                # Nothing more is sent until half of what is there has been answered.
                wait_s = 0.0
            self._put_aside(endpoint, wait_s)
        elif wait_s is not None:
            endpoint.resume_at = max(endpoint.resume_at, self._now() + wait_s)

    def _see_life(self, lease: Lease) -> None:
        if lease.endpoint.is_down and lease.endpoint.is_unreachable:
            self._bring_back(lease.endpoint)

    def _bring_back(self, endpoint: Endpoint) -> None:
        endpoint.is_down, endpoint.resume_at = False, 0.0
        self._wake(len(self._waiting))

    def _choose(self, avoid: Endpoint | None) -> Endpoint | None:
        now = self._now()
        free = [endpoint for endpoint in self.endpoints if endpoint.is_free(now)]
        # A server that was down gets its probe first: otherwise it would never come back.
        return min(free, key=lambda e: (e is avoid, not e.is_down, e.in_flight), default=None)

    async def _wait(self) -> None:
        """Until something changes or a back-off ends."""
        now = self._now()
        self._check_outage(now)
        moments = [e.resume_at for e in self.endpoints if e.resume_at > now]
        if self._trouble_since is not None:
            moments.append(max(self._trouble_since + self._patience_s, now + _FIRST_WAIT_S))
        moments.append(now + _LONGEST_SLEEP_S)
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        try:
            async with asyncio.timeout(min(moments) - now):
                await woken
        except TimeoutError:
            return
        finally:
            # Not there any more when it was woken.
            with suppress(ValueError):
                self._waiting.remove(woken)

    def _check_outage(self, now: float) -> None:
        # A paused server that is still working on other requests is no outage.
        if any(not e.is_down and e.in_flight for e in self.endpoints):
            return
        if self._trouble_since is None or now - self._trouble_since < self._patience_s:
            return
        urls = ", ".join(e.url for e in self.endpoints[:8]) or "no server at all"
        seconds = now - self._trouble_since
        section, setting = self._servers.section, self._servers.urls_setting
        if not self._has_contact:
            raise TeacherUnreachable(
                f"nothing answers at {urls}, which {setting} names ({self._last_reason}, for "
                f"{seconds:.0f} s); answers of earlier runs are kept",
                hint=f"correct {setting} or start the server, then run the same command again; "
                f"raise {section}.first_contact_s to wait longer for one that is being started",
            )
        raise TeacherUnreachable(
            f"no answer from {urls} for {seconds:.0f} s: {self._last_reason}; answers so far are "
            "kept",
            hint=f"start the server or correct {setting}, then run the same command again; for a "
            f"slow server raise {section}.timeout_s, for long restarts {section}.outage_s",
        )

    @property
    def _patience_s(self) -> float:
        """How long no server may be usable."""
        longest = self._servers.outage_s
        return longest if self._has_contact else min(longest, self._servers.first_contact_s)

    def _put_aside(self, endpoint: Endpoint, wait_s: float | None) -> None:
        now = self._now()
        if endpoint.is_down:
            endpoint.is_checked = False
        endpoint.num_asides += 1
        wait_s = back_off(endpoint.num_asides) if wait_s is None else wait_s
        endpoint.resume_at = max(endpoint.resume_at, now + wait_s)
        endpoint.aside_since = now
        if self._trouble_since is None and not self.is_any_usable() and not endpoint.is_gone:
            self._trouble_since = now
            if all(e.is_down for e in self.endpoints):
                self._is_outage_said = True
                console.warn(
                    f"no server answers ({self._last_reason}); waiting up to "
                    f"{self._patience_s:.0f} s for one"
                )
        self._wake(len(self._waiting))

    def _note(self, endpoint: Endpoint, reason: str) -> None:
        self._last_reason = reason
        if not endpoint.has_warned:
            endpoint.has_warned = True
            console.warn(f"{endpoint.url}: {reason}; trying again")

    def _wake(self, count: int) -> None:
        """Let so many waiting requests look again; all at once would cost more than they send."""
        while count and self._waiting:
            woken = self._waiting.popleft()
            if not woken.done():
                woken.set_result(None)
                count -= 1

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def back_off(num_failures: int) -> float:
    """Seconds to wait after so many failures: doubled each time, at random in its upper half."""
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(num_failures - 1, 16))
    return random.uniform(longest / 2, longest)
