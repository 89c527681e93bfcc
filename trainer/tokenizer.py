"""The student's tokenizer as a Hugging Face fast tokenizer, saved inside every checkpoint.

Training itself uses the ids of :mod:`pipeline.student`. This conversion lets other tools
(``transformers``, vLLM, ``generate``) read the same checkpoint and see the same ids. It is built
here because the stock conversion orders merges of equal SentencePiece score differently, which
changes the ids of whitespace runs.
"""

from __future__ import annotations

from typing import Any

from pipeline.student import BOS_ID, EOS_ID, processor

UNK_TOKEN, BOS_TOKEN, EOS_TOKEN = "<unk>", "<s>", "</s>"
PAD_ID = 0
"""The vocabulary has no padding token; ``<unk>`` never occurs in text (bytes stand in for unknown
characters), so padding with it can be mistaken for nothing else."""
SPACE = "\u2581"
_MAX_LENGTH = 65_536
"""The longest generation of the evaluation; a Mamba-2 has no limit of its own."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""Renders what :func:`pipeline.student.render_prompt` renders, preceded by ``<s>``."""


def build_tokenizer() -> Any:
    """The exact SentencePiece tokenizer as a ``PreTrainedTokenizerFast``.

    Ids equal those of :func:`pipeline.student.processor` for every text without the literal
    strings ``<s>``, ``</s>``, ``<unk>`` (recognised as control tokens, as is usual there; pass
    ``split_special_tokens=True`` to read them as text) and ``[REFERENCE_DOC_0..19]`` (twenty
    user-defined symbols of the original vocabulary, read as plain text here).
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {processor().id_to_piece(i): i for i in range(processor().vocab_size())}
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=_list_merges(), unk_token=UNK_TOKEN, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS_TOKEN} $A",
        pair=f"{BOS_TOKEN} $A $B",
        special_tokens=[(BOS_TOKEN, BOS_ID)],
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNK_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=UNK_TOKEN,
        padding_side="right",
        model_max_length=_MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    _check_ids(tokenizer)
    return tokenizer


def _list_merges() -> list[tuple[str, str]]:
    """All merges in an order that makes rank-first merging equal SentencePiece's score-first.

    SentencePiece merges the neighbours whose union scores best and, among equal scores, the
    leftmost; the fast tokenizer merges the pair of lowest rank. Within one piece the split with
    the longest left part comes first: that is what leftmost-first leaves behind in runs of one
    character. Runs of spaces all share one score, so leftmost-first grows the first run as far
    as it goes: longest piece first, one space at a time.
    """
    scores = _mergeable_scores()
    merges: list[tuple[float, int, int, str, str]] = []
    for piece, score in scores.items():
        for cut in range(len(piece) - 1, 0, -1):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                run = len(piece) if set(piece) == {SPACE} else 0
                merges.append((-score, -run, len(merges), left, right))
    return [(left, right) for *_, left, right in sorted(merges)]


def _mergeable_scores() -> dict[str, float]:
    """Score of every ordinary piece: neither control, nor byte, nor user-defined."""
    sp = processor()
    return {
        sp.id_to_piece(i): sp.get_score(i)
        for i in range(sp.vocab_size())
        if not (sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i))
        # User-defined symbols are the only other pieces with score 0.
        and sp.get_score(i) != 0.0
    }


def _check_ids(tokenizer: Any) -> None:
    found = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    if found != (PAD_ID, BOS_ID, EOS_ID) or len(tokenizer) != processor().vocab_size():
        raise AssertionError(f"special token ids {found}, size {len(tokenizer)}")
