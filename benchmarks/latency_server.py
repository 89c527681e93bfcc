"""A chat-completion server whose only trait is its latency: seeded, log-normal, without limits.

    .venv/bin/python benchmarks/latency_server.py --median-s 1.5 --sigma 0.5

The first line of its output is its port. A request's latency depends on its seed alone, so that the
ideal time of a set of requests can be computed beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys

LONGEST_S = 10.0


def latency_s(seed: int, median_s: float, sigma: float) -> float:
    """How long the request of that seed takes."""
    draw = random.Random(f"latency {seed}").lognormvariate(0.0, sigma)
    return min(median_s * draw, LONGEST_S)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--median-s", type=float, default=1.5)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--tokens", type=int, default=300, help="words of each reply")
    options = parser.parse_args()
    asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    text = "thus " * options.tokens
    usage = {"prompt_tokens": 300, "completion_tokens": options.tokens}
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    body = json.dumps({"choices": [choice], "usage": usage}).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    reply += f"Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                request = json.loads(await reader.readexactly(length))
                await asyncio.sleep(latency_s(request["seed"], options.median_s, options.sigma))
                writer.write(reply)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    main()
