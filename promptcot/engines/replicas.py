"""The list of a teacher's servers where it is kept outside the recipe, read again while it works.

A file, or an address that replies with the list, in any of four forms: one ``http://…/v1`` a line;
a JSON array of them (or an object with it under ``base_urls``); what Prometheus' ``http_sd`` reads
(``[{"targets": ["host:port"]}]``); what Ray Serve's dashboard says of itself
(``/api/serve/applications/``). A server that is on the list gets requests, one that leaves it gets
no further ones. A list that cannot be read changes nothing: the one before stands.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from pipeline.redaction import has_login, mask_message

_LARGEST_LIST = 1 << 20
_MOST_SERVERS = 4096
_TIMEOUT_S = 10.0
_BASE_URL = re.compile(r"https?://[^\s/]+(/\S*)?")


class ListUnreadable(Exception):
    """The list of servers cannot be read now; the message says why."""


class NotAList(ListUnreadable):
    """What was read is no list of servers; it will not become one by itself."""


class ReplicaList:
    """Where a teacher's servers are listed.

    Args:
        place: A path, or an ``http(s)://`` address.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    async def read(self) -> tuple[str, ...]:
        """The servers' roots, without repetition, in the list's order.

        Raises:
            ListUnreadable: There is no such file, or nothing answers there.
            NotAList: It holds something else, more than 4,096 servers, or over a MiB.
        """
        if self.place.startswith(("http://", "https://")):
            content = await _fetch(self.place)
        else:
            content = await asyncio.to_thread(_load, Path(self.place))
        if len(content) > _LARGEST_LIST:
            raise NotAList(f"{self.place} is longer than {_LARGEST_LIST:,} bytes")
        return parse_replicas(content.decode("utf-8", "replace"), self.place)


def _load(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_LIST + 1)
    except OSError as exc:
        raise ListUnreadable(f"{path}: {exc.strerror}") from exc


async def _fetch(url: str) -> bytes:
    content = b""
    try:
        async with (
            asyncio.timeout(_TIMEOUT_S),
            httpx.AsyncClient() as client,
            client.stream("GET", url) as reply,
        ):
            if not reply.is_success:
                raise ListUnreadable(f"{url} replied with HTTP {reply.status_code}")
            async for piece in reply.aiter_bytes():
                content += piece
                if len(content) > _LARGEST_LIST:
                    break
    except TimeoutError as exc:
        raise ListUnreadable(f"{url}: nothing within {_TIMEOUT_S:g} s") from exc
    except httpx.HTTPError as exc:
        raise ListUnreadable(f"{url}: {exc or type(exc).__name__}") from exc
    return content


def parse_replicas(text: str, place: str) -> tuple[str, ...]:
    """Roots of the servers that a list names, in its order, each once.

    Raises:
        NotAList: It has none of the four forms, or too many entries.
    """
    if text.lstrip()[:1] in ("[", "{"):
        try:
            found = list(_from_json(json.loads(text)))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise NotAList(f"{place} is no list of servers ({type(exc).__name__}: {exc})") from exc
    else:
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        found = [line for line in lines if line]
    for number, url in enumerate(found, start=1):
        if has_login(url) or "?" in url:
            raise NotAList(
                f"{place}: entry {number} is an address with a login or parameters; all servers "
                "get the key of api_key_env"
            )
        if not _BASE_URL.fullmatch(url):
            raise NotAList(
                f"{place}: {mask_message(url)[:100]!r} is no http(s):// address of a server's /v1"
            )
    urls = tuple(dict.fromkeys(url.rstrip("/") for url in found))
    if len(urls) > _MOST_SERVERS:
        raise NotAList(f"{place} lists {len(urls):,} servers; at most {_MOST_SERVERS:,} are taken")
    return urls


def _from_json(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "base_urls" in value:
            yield from map(str, value["base_urls"])
        else:
            yield from _from_ray_serve(value)
        return
    for entry in value:
        if isinstance(entry, str):
            yield entry
        else:
            scheme = entry.get("labels", {}).get("__scheme__", "http")
            for target in entry["targets"]:
                yield f"{scheme}://{target}/v1"


def _from_ray_serve(value: dict[str, Any]) -> Iterator[str]:
    """Ray Serve's targets for load balancers; where it tells none, its healthy proxies."""
    groups = [g for g in value.get("target_groups") or [] if g.get("protocol") == "HTTP"]
    for group in groups:
        prefix = group.get("route_prefix", "/").rstrip("/")
        for target in group["targets"]:
            yield f"http://{target['ip']}:{target['port']}{prefix}/v1"
    if groups:
        return
    port = (value.get("http_options") or {}).get("port", 8000)
    prefixes = [a.get("route_prefix") or "/" for a in value["applications"].values()] or ["/"]
    for proxy in value["proxies"].values():
        if proxy["status"] == "HEALTHY":
            yield f"http://{proxy['node_ip']}:{port}{prefixes[0].rstrip('/')}/v1"
