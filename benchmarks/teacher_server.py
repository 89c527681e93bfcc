"""A local OpenAI-compatible server that plays the teacher of every stage, with seeded latencies.

    .venv/bin/python benchmarks/teacher_server.py --port 8123 --median-ms 200

The reply is a function of the request alone, so that a request asked twice gets one text, as a
stored answer would. ``GET /v1/stats`` says how often each request was asked. Faults are seeded by
request and try: ``--errors``, ``--hangs`` and ``--garbage`` are shares of all replies. ``--served``
is a file that gets one line per completion, which outlives a kill of the server. With ``--words``
every reply is that many words and costs the server next to nothing: for measuring the client.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_NOUNS = (
    "anchor apple arrow badge barrel basket beacon bell bottle branch bridge brick bucket button "
    "cable camera candle canvas carpet castle chain chair chalk circle clock cloud coin comet "
    "copper cotton crane crystal dial diamond drum eagle engine fabric feather fence ferry field "
    "flag flask flower forest fossil fountain garden gate glove grain hammer harbor helmet hinge "
    "island ivory jacket jewel kettle ladder lamp lantern lemon lever library magnet marble market "
    "meadow mirror needle ocean orchard oven paddle palace pearl pebble pencil piano pillar pocket "
    "quarry rabbit ribbon river rocket saddle sailor scale shell shovel signal silver spiral stone "
    "tablet temple thread ticket tower tunnel valley velvet violin wagon walnut window winter yarn"
)
WORDS = _NOUNS.split()
HANG_S = 3600.0
LONGEST_LATENCY_S = 10.0


class Stand:
    """What the server was asked and how it behaves."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.asked: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.tokens = 0
        self.in_flight = self.peak = 0
        self.fixed = "thus " * options.words
        self.served = options.served.open("a", buffering=1) if options.served else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive for as long as the client wants."""
        try:
            while line := await reader.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                body = await read_body(reader)
                status, content = await self.answer(method, path, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client was killed or gave up: nothing to tell it
        finally:
            writer.close()

    async def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and content of a reply."""
        if method == "GET":
            return 200, {
                "asked": dict(self.asked),
                "completed": dict(self.completed),
                "completion_tokens": self.tokens,
                "peak": self.peak,
            }
        key = hashlib.sha256(body).hexdigest()[:24]
        self.asked[key] += 1
        rng = random.Random(f"{key}/{self.asked[key]}/{self.options.seed}")
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._answer(key, rng, json.loads(body))
        finally:
            self.in_flight -= 1

    async def _answer(self, key: str, rng: random.Random, body: dict[str, Any]) -> tuple[int, Any]:
        fault = rng.random()
        for kind in ("hangs", "errors", "garbage"):
            share = getattr(self.options, kind)
            if fault < share:
                return await self._fail(kind)
            fault -= share
        await asyncio.sleep(latency_s(body["seed"], self.options.median_ms, self.options.sigma))
        text = self.fixed or reply_to(body, random.Random(key))
        self.completed[key] += 1
        self.tokens += len(text.split())
        if self.served is not None:
            self.served.write(f"{key} {len(text.split())}\n")
        return 200, {
            "choices": [
                {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            ],
            "usage": {
                "prompt_tokens": len(str(body).split()),
                "completion_tokens": len(text.split()),
            },
        }

    async def _fail(self, kind: str) -> tuple[int, Any]:
        if kind == "hangs":
            await asyncio.sleep(HANG_S)
        if kind == "garbage":
            return 200, b"<html>hello from a proxy</html>"
        return 500, {"error": {"message": "engine hiccup"}}


def latency_s(seed: int, median_ms: float, sigma: float) -> float:
    """Seconds that the request of this seed takes, on every try: log-normal.

    It depends on nothing else, so that a client can compute an ideal schedule beforehand.
    """
    draw = random.Random(f"latency/{seed}").lognormvariate(0, sigma)
    return min(median_ms / 1000 * draw, LONGEST_LATENCY_S)


async def read_body(reader: asyncio.StreamReader) -> bytes:
    """A request's content, after its headers."""
    length = 0
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return await reader.readexactly(length)


def reply_to(body: dict[str, Any], rng: random.Random) -> str:
    """What a good teacher might say, with some of the defects that real ones have."""
    prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    if "Final Judgement" in prompt:
        return judge(rng)
    if "BEGIN PROBLEM" in prompt:
        return invent(rng, is_code="standard input" in prompt or "programming" in prompt[:400])
    if '"input"' in prompt:
        a, b = rng.randrange(100), rng.randrange(100)
        return json.dumps({"input": f"{a} {b}\n", "output": f"{a + b}\n"})
    if "```python" in prompt or "Python program" in prompt:
        sign = "-" if rng.random() < 0.2 else "+"
        program = f"a, b = map(int, input().split())\nprint(a {sign} b)"
        return f"<think>\n{prose(rng, 60)}\n</think>\n\n```python\n{program}\n```"
    right = int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 900
    answer = right if rng.random() < 0.8 else rng.randrange(900)
    if rng.random() < 0.05:
        return prose(rng, 40)
    return f"<think>\n{prose(rng, 80)}\n</think>\n\nThe answer is $\\boxed{{{answer}}}$."


def invent(rng: random.Random, *, is_code: bool) -> str:
    """A rationale and a problem in the marked form; one in ten lacks its end."""
    a, b, c = rng.sample(WORDS, 3)
    if is_code:
        task = (
            f"The {a} and the {b} near the {c} hold two integers each. {prose(rng, 12)} Read two "
            "integers from standard input and print their sum."
        )
    else:
        task = (
            f"A {a} stands {rng.randrange(3, 90)} metres from a {b}, and a {c} divides the way in "
            f"the ratio {rng.randrange(2, 9)}:{rng.randrange(2, 9)}. {prose(rng, 16)} How many "
            f"metres lie between the {b} and the {c}?"
        )
    end = "" if rng.random() < 0.1 else "\n<!-- END PROBLEM -->"
    return (
        f"<!-- BEGIN RATIONALE -->\nBegin with the {a}. {prose(rng, 40)}\n<!-- END RATIONALE -->\n"
        f"<!-- BEGIN PROBLEM -->\n{task}{end}"
    )


def judge(rng: random.Random) -> str:
    """Five ratings and the verdict; one in six is bad somewhere."""
    names = (
        "Format",
        "Factual Accuracy",
        "Difficulty Alignment",
        "Concept Coverage",
        "Solvability",
    )
    bad = rng.randrange(len(names)) if rng.random() < 1 / 6 else -1
    lines = [f"{n}: {'Bad' if i == bad else 'Perfect'} - as seen" for i, n in enumerate(names)]
    return "\n".join([*lines, f"Final Judgement: {'Bad' if bad >= 0 else 'Perfect'}"])


def prose(rng: random.Random, count: int) -> str:
    """Sentences of common words that never run in a circle."""
    words = [rng.choice(WORDS) for _ in range(count)]
    pieces = [words[i : i + 6] for i in range(0, count, 6)]
    return " ".join(f"The {p[0]} is near the {' and the '.join(p[1:] or ['sea'])}." for p in pieces)


async def main() -> None:
    """Serve until killed; the first line of output is the port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--median-ms", type=float, default=20.0)
    parser.add_argument("--sigma", type=float, default=0.5, help="spread of the log-normal")
    parser.add_argument("--words", type=int, default=0, help="of every reply; 0: a teacher's")
    parser.add_argument("--errors", type=float, default=0.0)
    parser.add_argument("--hangs", type=float, default=0.0)
    parser.add_argument("--garbage", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--served", type=Path, help="file for one line per completion")
    stand = Stand(parser.parse_args())
    server = await asyncio.start_server(stand.serve, "127.0.0.1", stand.options.port, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
