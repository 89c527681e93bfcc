"""Peer: the same build with polars, numpy MinHash and kitoken, as one would write it by hand.

    python peer_polars.py CORPUS OUT TOKENIZER

Two passes. The first reads questions: exact and near-duplicates (word 3-grams, 64 hashes, 16
bands, not verified) and questions that share an 8-gram with a benchmark item fall. The second reads
what is left: levels line ends, parts the reasoning from the answer, drops rows without both or, for
code, without a closed fence; counts tokens exactly; drops long rows; writes in seeded order, 5,000
rows a file. It does less than the curriculum: no syntax check, no rules against loops, spam and
other languages, no scores of leaks, no reasons, no map of duplicates, no provenance.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kitoken
import numpy as np
import numpy.typing as npt
import polars as pl

NGRAM, HASHES, BANDS = 3, 64, 16
LEAK_NGRAM = 8
CHUNK = 5000
MAX_TOKENS = 16_384
SHARD_ROWS = 5000
SEED = 20250522
INSTRUCTION = {
    True: "\nPlease reason step by step, and put your final program in one ```python code block.",
    False: "\nPlease reason step by step, and put your final answer within \\boxed{}.",
}


def scan_sources(corpus: Path) -> Iterator[pl.LazyFrame]:
    """Every file's rows as (source, is_code, question, user, response)."""
    code = {"source": pl.lit("code"), "is_code": pl.lit(True)}
    for path in sorted(corpus.glob("open_code_reasoning_split_0-*.parquet")):
        yield pl.scan_parquet(path).select(
            **code, question="input", user="input", response="output"
        )
    questions = pl.read_parquet(corpus / "taco_questions.parquet").with_row_index("number")
    for path in sorted(corpus.glob("open_code_reasoning_split_1-*.parquet")):
        yield (
            pl.scan_parquet(path)
            .with_columns(number=pl.col("index").cast(pl.UInt32))
            .join(questions.lazy(), on="number", how="left", maintain_order="left")
            .select(**code, question="question", user="question", response="output")
        )
    for path in sorted(corpus.glob("open_thoughts2-*.parquet")):
        turn = pl.col("conversations").list
        yield pl.scan_parquet(path).select(
            source=pl.lit("talk"),
            is_code=turn.get(1).struct.field("value").str.contains("```", literal=True),
            question="question",
            user=turn.get(0).struct.field("value"),
            response=turn.get(1).struct.field("value"),
        )
    for path in sorted(corpus.glob("traces-*.parquet")):
        solution = pl.col("solution").struct
        problem = solution.field("problem").struct
        yield pl.scan_parquet(path).select(
            source=pl.lit("own"),
            is_code=problem.field("domain") == "code",
            question=problem.field("statement"),
            user=problem.field("statement"),
            response=pl.format(
                "<think>\n{}\n</think>\n\n{}", solution.field("thinking"), solution.field("answer")
            ),
        )


def hash_grams(questions: pl.Series, ngram: int) -> tuple[pl.DataFrame, pl.Series]:
    """(row, hash of an n-gram) of all questions, and the hash of each whole question."""
    words = questions.fill_null("").str.to_lowercase().str.extract_all(r"[a-z]+|\d+")
    exploded = pl.DataFrame({"row": pl.arange(len(words), eager=True), "word": words})
    exploded = exploded.explode("word").with_columns(pl.col("word").hash(SEED))
    grams = exploded.with_columns(
        gram=sum(
            (pl.col("word").shift(-step) * (2 * step + 0x9E37_79B9_7F4A_7C15))
            for step in range(ngram)
        ),
        last=pl.col("row").shift(-(ngram - 1)),
    )
    return (
        grams.filter(pl.col("row") == pl.col("last")).select("row", "gram"),
        words.list.join(" ").hash(SEED),
    )


def sketch(grams: pl.DataFrame, num_rows: int) -> npt.NDArray[np.uint64]:
    """Band keys of rows, by MinHash."""
    rng = np.random.default_rng(SEED)
    factors = rng.integers(1, 1 << 62, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    rows, values = grams["row"].to_numpy(), grams["gram"].to_numpy()
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    signature = np.full((num_rows, HASHES), np.iinfo(np.uint64).max, np.uint64)
    for place, factor in enumerate(factors):
        signature[rows[starts], place] = np.minimum.reduceat(values * factor, starts)
    keys = np.zeros((num_rows, BANDS), np.uint64)
    for place in range(HASHES):
        keys[:, place % BANDS] = (keys[:, place % BANDS] * np.uint64(0x100000001B3)) ^ signature[
            :, place
        ]
    return keys


def cluster(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The first row of each row's cluster: rows that share a band are one."""
    label = np.arange(len(keys))
    while True:
        before = label.copy()
        for band in range(keys.shape[1]):
            _, inverse = np.unique(keys[:, band], return_inverse=True)
            least = np.full(inverse.max() + 1, len(keys))
            np.minimum.at(least, inverse, label)
            label = least[inverse]
        if (label == before).all():
            return label


def choose_questions(corpus: Path) -> npt.NDArray[np.bool_]:
    """Which rows stay by their questions."""
    items = pl.Series([item["question"] for item in read_items(corpus)])
    leaks = hash_grams(items, LEAK_NGRAM)[0]["gram"].unique()
    keys, exact, clean = [], [], []
    for frame in scan_sources(corpus):
        questions = frame.select("question").collect()["question"]
        for start in range(0, len(questions), CHUNK):
            chunk = questions.slice(start, CHUNK)
            grams, whole = hash_grams(chunk, NGRAM)
            keys.append(sketch(grams, len(chunk)))
            exact.append(whole.to_numpy())
            long = hash_grams(chunk, LEAK_NGRAM)[0]
            leaked = long.filter(pl.col("gram").is_in(leaks.implode()))["row"].unique().to_numpy()
            stays = np.ones(len(chunk), bool)
            stays[leaked] = False
            clean.append(stays & chunk.is_not_null().to_numpy())
    all_keys = np.column_stack([np.concatenate(keys), np.concatenate(exact)])
    ok = np.concatenate(clean)
    result = ok.copy()
    places = np.flatnonzero(ok)
    result[places] = cluster(all_keys[places]) == np.arange(len(places))
    return result


def read_items(corpus: Path) -> list[dict[str, Any]]:
    """The benchmark items, as the caller wrote them down."""
    return [json.loads(line) for line in (corpus / "items.jsonl").open(encoding="utf-8")]


def level(frame: pl.LazyFrame) -> pl.DataFrame:
    """Rows in the student's form, malformed ones dropped."""
    clean = [
        pl.col(name).str.replace_all("\r\n", "\n", literal=True).str.strip_chars()
        for name in ("question", "user", "response")
    ]
    parts = pl.col("response").str.split_exact("</think>", 1).struct
    return (
        frame.with_columns(clean)
        .filter(
            pl.col("user").str.len_chars() >= 10,
            pl.col("response").str.count_matches("</think>", literal=True) == 1,
            pl.col("response").str.count_matches("<think>", literal=True) <= 1,
            pl.col("response").str.len_chars() < 400_000,
        )
        .with_columns(
            thinking=parts.field("field_0").str.strip_prefix("<think>").str.strip_chars(),
            answer=parts.field("field_1").str.strip_chars(),
        )
        .filter(
            pl.col("answer") != "",
            pl.col("thinking").str.len_chars() >= 20,
            pl.col("answer").str.count_matches("```", literal=True) % 2 == 0,
            ~pl.col("is_code") | pl.col("answer").str.contains("```", literal=True),
            pl.col("is_code") | pl.col("answer").str.contains("\\boxed{", literal=True),
        )
        .with_columns(
            prompt=pl.format(
                "<|im_start|>user\n{}{}<|im_end|>\n<|im_start|>assistant\n<think>\n",
                "user",
                pl.when("is_code").then(pl.lit(INSTRUCTION[True])).otherwise(
                    pl.lit(INSTRUCTION[False])
                ),
            ),
            completion=pl.format("{}\n</think>\n\n{}", "thinking", "answer"),
        )
        .select("source", "is_code", "question", "prompt", "completion")
        .collect()
    )  # fmt: skip


def build(corpus: Path, out: Path, tokenizer: Path) -> int:
    """All of it; the number of rows written."""
    stays = choose_questions(corpus)
    encoder = kitoken.Kitoken.from_file(str(tokenizer))
    kept, start = [], 0
    for frame in scan_sources(corpus):
        num = frame.select(pl.len()).collect().item()
        mask = pl.Series(stays[start : start + num])
        start += num
        rows = level(frame.filter(mask))
        prompts = [len(encoder.encode(text, False)) for text in rows["prompt"]]
        completions = [len(encoder.encode(text, False)) for text in rows["completion"]]
        rows = rows.with_columns(
            num_prompt_tokens=pl.Series(prompts, dtype=pl.Int64),
            num_completion_tokens=pl.Series(completions, dtype=pl.Int64),
        )
        total = pl.col("num_prompt_tokens") + pl.col("num_completion_tokens")
        kept.append(rows.filter(total <= MAX_TOKENS))
    table = pl.concat(kept).sample(fraction=1.0, shuffle=True, seed=SEED)
    out.mkdir(parents=True)
    for number, shard in enumerate(table.iter_slices(SHARD_ROWS)):
        shard.write_parquet(
            out / f"{number:05d}.parquet",
            compression="zstd",
            compression_level=3,
            row_group_size=500,
        )
    return len(table)


def main() -> int:
    """Run it."""
    num_rows = build(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.write(json.dumps({"rows_out": num_rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
