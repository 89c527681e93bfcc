r"""Peer: the same build with datatrove's own blocks, in an environment of its own.

    python3.11 -m venv ../datatrove
    ../datatrove/bin/pip install --only-binary :all: 'datatrove[io]==0.10.1' spacy 'xxhash<4' \
        sentencepiece tokenizers ftfy regex
    ../datatrove/bin/python peer_datatrove.py CORPUS OUT TOKENIZER

MinHash on questions (word 3-grams, 16 buckets of 4) in its four stages, then one pipeline that
reads again: drops duplicates, rows that hold a benchmark item's 8-gram (its decontamination
filter), malformed rows and long ones, counts tokens with sentencepiece (exact, and faster than the
tokenizer that datatrove would use) and writes Parquet. Its indexer of benchmarks wants tasks of
another package, so the same hashes are written here. It does not shuffle, and as the other peer it
does less than the curriculum.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import load_word_tokenizer

WORKERS = 2
MAX_TOKENS = 16_384
CONFIG = MinhashConfig(n_grams=3, num_buckets=16, hashes_per_bucket=4)
LEAKS = NGramsDecontConfig(n_grams=8, find_query_ngrams=True)
INSTRUCTION = {
    True: "\nPlease reason step by step, and put your final program in one ```python code block.",
    False: "\nPlease reason step by step, and put your final answer within \\boxed{}.",
}


def adapt(reader: Any, row: dict[str, Any], path: str, number: int) -> dict[str, Any]:
    """A row of any of the sources as (question, response)."""
    user = None
    if "conversations" in row:
        user, response = (turn["value"] for turn in row["conversations"])
        question, is_code = row["question"], "```" in response
    elif "solution" in row and isinstance(row["solution"], dict):
        solution = row["solution"]
        question, is_code = (
            solution["problem"]["statement"],
            solution["problem"]["domain"] == "code",
        )
        response = f"<think>\n{solution['thinking']}\n</think>\n\n{solution['answer']}"
    else:
        question, response, is_code = row["input"], row["output"], True
        if question == "-":
            question = questions_of(reader.data_folder.path).get(int(row["index"]), "")
    return {
        # Empty texts are dropped by readers, and numbers of documents must stay those of the files.
        "text": question or " ",
        "id": f"{path}/{number}",
        "metadata": {"user": user or question, "response": response, "is_code": is_code},
    }


_questions: dict[str, dict[int, str]] = {}


def questions_of(folder: str) -> dict[int, str]:
    """The problems that split_1 points to."""
    if folder not in _questions:
        import pyarrow.parquet as pq

        table = pq.read_table(Path(folder).parent / "taco_questions.parquet")
        _questions[folder] = dict(enumerate(table["question"].to_pylist()))
    return _questions[folder]


class Level(PipelineStep):
    """Rows in the student's form; malformed ones are dropped."""

    name = "Level"
    type = "format"

    def run(
        self, data: Iterable[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """See the base class."""
        for doc in data:
            response = doc.metadata["response"].replace("\r\n", "\n").strip()
            thinking, _, answer = response.partition("</think>")
            thinking, answer = thinking.removeprefix("<think>").strip(), answer.strip()
            is_code = doc.metadata["is_code"]
            if (
                response.count("</think>") != 1
                or response.count("<think>") > 1
                or len(doc.text) < 10
                or len(thinking) < 20
                or not answer
                or answer.count("```") % 2
                or (("```" if is_code else "\\boxed{") not in answer)
            ):
                continue
            user = doc.metadata["user"].strip() + INSTRUCTION[is_code]
            doc.metadata = {
                "prompt": f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n<think>\n",
                "completion": f"{thinking}\n</think>\n\n{answer}",
            }
            yield doc


class CountTokens(PipelineStep):
    """Exact numbers of tokens."""

    name = "Tokens"
    type = "count"

    def __init__(self, tokenizer: str) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def run(
        self, data: Iterable[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """See the base class."""
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=self.tokenizer)
        for doc in data:
            for part in ("prompt", "completion"):
                doc.metadata[f"num_{part}_tokens"] = len(processor.encode(doc.metadata[part]))
            yield doc


def fits(doc: Document) -> bool:
    """Whether a row is short enough."""
    return bool(
        doc.metadata["num_prompt_tokens"] + doc.metadata["num_completion_tokens"] <= MAX_TOKENS
    )


def write_leaks(items: Path, folder: Path) -> None:
    """The n-grams of the benchmark items, hashed as the filter hashes them."""
    tokenizer, hash_text = load_word_tokenizer("eng"), create_hash_func(LEAKS.hash_config)
    hashes = set()
    for line in items.open(encoding="utf-8"):
        words = tokenizer.word_tokenize(
            simplify_text(json.loads(line)["question"], LEAKS.norm_config)
        )
        hashes.update(hash_text(" ".join(gram)) for gram in ngrams(words, LEAKS.n_grams))
    folder.mkdir(parents=True)
    np.array(sorted(hashes), dtype=LEAKS.hash_config.np_descr).tofile(folder / "items.index.hashes")


def build(corpus: Path, out: Path, tokenizer: str) -> int:
    """All stages; the number of rows written."""
    work = out / "work"
    # One folder per run: a reader takes all files of a folder, and the join's file is none of them.
    inputs = work / "in"
    inputs.mkdir(parents=True)
    patterns = ("open_code_reasoning_*", "open_thoughts2-*", "traces-*")
    for path in sorted(path for pattern in patterns for path in corpus.glob(pattern)):
        (inputs / path.name).symlink_to(path.resolve())
    shutil.copyfile(corpus / "taco_questions.parquet", work / "taco_questions.parquet")
    write_leaks(corpus / "items.jsonl", work / "leaks")

    def read() -> ParquetReader:
        return ParquetReader(str(inputs), adapter=adapt, glob_pattern="*.parquet")

    def run(pipeline: list[Any], tasks: int, name: str) -> None:
        logs = str(work / "logs" / name)
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=WORKERS, logging_dir=logs).run()

    folders = {name: str(work / name) for name in ("signatures", "buckets", "remove")}
    run([read(), MinhashDedupSignature(folders["signatures"], config=CONFIG)], WORKERS, "1")
    run(
        [MinhashDedupBuckets(folders["signatures"], folders["buckets"], config=CONFIG)],
        CONFIG.num_buckets,
        "2",
    )
    run([MinhashDedupCluster(folders["buckets"], folders["remove"], config=CONFIG)], 1, "3")
    run(
        [
            read(),
            MinhashDedupFilter(folders["remove"]),
            NGramsDecontFilter(str(work / "leaks"), config=LEAKS),
            Level(),
            CountTokens(tokenizer),
            LambdaFilter(fits),
            ParquetWriter(str(out / "data"), compression="zstd", expand_metadata=True),
        ],
        WORKERS,
        "4",
    )
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in (out / "data").glob("*.parquet"))


def main() -> int:
    """Run it."""
    num_rows = build(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    sys.stdout.write(json.dumps({"rows_out": num_rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
