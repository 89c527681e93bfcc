"""What turns concept names into vectors, and the file that keeps them for the next run.

``ngrams`` needs no model. ``sentence_transformers`` loads one; the original's own encoder (a causal
model, EOS appended, last token pooled) is such a model folder, with its pooling configured there.
``http`` asks an OpenAI-compatible ``/embeddings`` endpoint, e.g. vLLM's with ``--runner pooling``.

Vectors are unit vectors rounded to integers of length 4000 (a similarity is off by about 0.0001),
so that a similarity is one exact number everywhere. Vectors from a model are kept as
``<out>/embeddings/<hash of encoder, model and concepts>.npy``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline import console
from pipeline.errors import ConfigError, TeacherError, TeacherUnreachable
from pipeline.hashing import content_hash
from pipeline.keys import authorization
from pipeline.settings.concepts import EncoderSettings
from pipeline.store import atomic_path
from promptcot.embedding import embed_ngrams
from promptcot.engines.openai_format import excerpt
from promptcot.near_concepts import Vectors
from promptcot.portable import SCALE

if TYPE_CHECKING:
    import httpx

_ATTEMPTS = 6
_TIMEOUT_S = 300.0
_FORMAT = 1
"""Raised when vectors are computed or stored in another way."""

Floats = npt.NDArray[np.float32]


def embed_concepts(
    settings: EncoderSettings, concepts: Sequence[str], *, cache: Path | None = None
) -> Vectors:
    """Rounded unit vectors of concepts, from ``cache`` if they were made before.

    Raises:
        ConfigError: The encoder's package is not installed or its model cannot be loaded.
        TeacherError: The server does not give one vector of one size per concept.
    """
    if settings.kind == "ngrams":
        return round_vectors(embed_ngrams(concepts), len(concepts))
    path = None
    if cache is not None:
        key = [_FORMAT, SCALE, settings.kind, settings.model, list(concepts)]
        path = cache / f"{content_hash(key, 32)}.npy"
        if path.is_file():
            stored: Vectors = np.load(path, allow_pickle=False)
            return stored
    encode = _ask_server if settings.kind == "http" else _load_model
    vectors = round_vectors(encode(settings, concepts), len(concepts))
    if path is not None:
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.save(handle, vectors)
    return vectors


def round_vectors(blocks: Iterator[Floats], num: int) -> Vectors:
    """Scale rows to length 4000 and round them; only the rounded ones are held.

    Raises:
        TeacherError: A vector has another size than the first, or is not finite.
    """
    result: Vectors | None = None
    start = 0
    for block in blocks:
        if result is None:
            result = np.empty((num, block.shape[1]), dtype=np.int16)
        if block.shape[1] != result.shape[1] or not np.isfinite(block).all():
            raise TeacherError(
                f"the encoder gave a vector of {block.shape[1]} numbers after ones of "
                f"{result.shape[1]}, or one that is not finite",
                hint="check the model behind synthesis.combinations.encoder",
            )
        values = block.astype(np.float64)
        lengths = np.sqrt((values * values).sum(axis=1, keepdims=True))
        scaled = np.divide(SCALE * values, lengths, out=np.zeros_like(values), where=lengths > 0)
        result[start : start + len(block)] = np.rint(scaled).astype(np.int16)
        start += len(block)
    if result is None or start != num:
        raise TeacherError(
            f"the encoder gave {start} vectors for {num} concepts",
            hint="check the model behind synthesis.combinations.encoder",
        )
    return result


def _load_model(settings: EncoderSettings, concepts: Sequence[str]) -> Iterator[Floats]:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as exc:
        raise ConfigError(
            "encoder.kind = 'sentence_transformers' needs a package that is not installed",
            hint="pip install 'promptcot-mamba[encoders]', or use encoder.kind = 'ngrams'",
        ) from exc
    is_folder = Path(settings.model).is_dir()
    name, _, commit = (settings.model, "", "") if is_folder else settings.model.partition("@")
    if not commit and not is_folder:
        raise ConfigError(
            f"encoder.model {settings.model!r} is neither a folder nor a hub id with a commit",
            hint='set synthesis.combinations.encoder.model to a folder or to "owner/name@commit": '
            "a model that its owner exchanges would change the draws",
        )
    try:
        model: Any = SentenceTransformer(name, revision=commit or None, trust_remote_code=False)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"cannot load the encoder {settings.model!r}: {str(exc).splitlines()[0]}",
            hint="set synthesis.combinations.encoder.model to a folder or hub id of a "
            "sentence-transformers model",
        ) from exc
    for batch in _batches(settings, concepts):
        yield np.asarray(model.encode(list(batch), show_progress_bar=False), dtype=np.float32)


def _ask_server(settings: EncoderSettings, concepts: Sequence[str]) -> Iterator[Floats]:
    import httpx
    import stamina

    url = f"{settings.base_url.rstrip('/')}/embeddings"
    headers = authorization(settings.api_key_env, url)
    with httpx.Client(headers=headers, timeout=_TIMEOUT_S) as client:
        for batch in _batches(settings, concepts):
            body = {"model": settings.model, "input": list(batch), "encoding_format": "float"}
            try:
                for attempt in stamina.retry_context(
                    on=_may_pass, attempts=_ATTEMPTS, timeout=None, wait_max=30.0
                ):
                    with attempt:
                        response = client.post(url, json=body).raise_for_status()
            except httpx.HTTPError as exc:
                raise TeacherUnreachable(
                    f"no embeddings from {url}: {exc}",
                    hint="start the server with an embedding model, or correct "
                    "synthesis.combinations.encoder.base_url and .model",
                ) from exc
            yield _parse(response, url, len(batch))


def _may_pass(exc: Exception) -> bool:
    """Whether the same request may succeed later."""
    import httpx

    if isinstance(exc, httpx.HTTPStatusError):
        status = exc.response.status_code
        return status == httpx.codes.TOO_MANY_REQUESTS or status >= 500
    return isinstance(exc, httpx.HTTPError)


def _parse(response: httpx.Response, url: str, num: int) -> Floats:
    """Vectors in the order asked; the reply may list them in another one."""
    try:
        items = sorted(response.json()["data"], key=lambda item: int(item["index"]))
        if [item["index"] for item in items] == list(range(num)):
            vectors: Floats = np.array([item["embedding"] for item in items], dtype=np.float32)
            if vectors.ndim == 2:
                return vectors
    except (ValueError, KeyError, TypeError):
        pass
    raise TeacherError(
        f"{url} did not reply with {num} embeddings; it sent {excerpt(response.content)}",
        hint="point synthesis.combinations.encoder.base_url at an OpenAI-compatible server (with "
        "/v1) that serves an embedding model",
    )


def _batches(settings: EncoderSettings, concepts: Sequence[str]) -> Iterator[Sequence[str]]:
    with console.progress("embeddings", total=len(concepts), unit="concepts") as advance:
        for start in range(0, len(concepts), settings.batch_size):
            batch = concepts[start : start + settings.batch_size]
            yield batch
            advance(len(batch))
