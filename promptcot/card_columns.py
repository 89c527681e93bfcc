"""What each column of the verified traces means, for their card; nested names are dotted."""

from __future__ import annotations

_PROBLEM = {
    "id": "name of the problem, derived from its content",
    "combination_id": "name of the combination of concepts",
    "concepts": "concepts it was made from, in the order drawn",
    "level": "difficulty asked for",
    "domain": "`math` or `code`",
    "rationale": "the design process that the teacher wrote before the problem",
    "statement": "the problem alone",
    "teacher": "model that wrote it",
    "prompt_hash": "hash of the messages it was asked",
    "seed": "of the sampled reply",
}
_JUDGEMENT = {
    "problem_id": "the problem",
    "judge": "name of the judge in the recipe",
    "format": "rating: one complete problem in the asked form?",
    "factual_accuracy": "rating: is what it states right?",
    "difficulty_alignment": "rating: does it fit the level?",
    "concept_coverage": "rating: does it need the concepts?",
    "solvability": "rating: has it a definite answer?",
    "verdict": "recomputed from the five ratings",
    "stated_verdict": "what the judge concluded itself",
    "reasons": "the judge's reason for each rating, in the order above",
    "model": "model that judged",
    "vote": "number of the reply, from 0",
    "prompt_hash": "hash of the messages it was asked",
    "seed": "of the sampled reply",
}
_SOLUTION = {
    "id": "name of the solution",
    "thinking": "the reasoning, without tags",
    "answer": "what follows the reasoning",
    "finish_reason": "`stop`: nothing was cut off",
    "teacher": "model that solved it",
    "temperature": "of sampling",
    "top_p": "of sampling",
    "prompt_hash": "hash of the messages it was asked",
    "seed": "of the sampled reply",
    "num_prompt_tokens": "in the teacher's tokens",
    "num_completion_tokens": "in the teacher's tokens",
}
_TEST = {
    "input": "what the program reads",
    "output": "what it must print",
    "votes": "programs that printed it",
    "stated_output": "what the teacher that wrote the test expected",
    "prompt_hash": "hash of the messages the teacher was asked",
    "seed": "of the sampled reply",
}

COLUMNS: dict[str, str] = {
    "final_answer": "maths: the boxed answer; code: the program",
    "agreement": "share of the samples asked for this problem that agree: low means hard",
    "num_samples": "samples asked for this problem",
    "method": "`majority`, `tests`, or `unverified` where the recipe keeps such rows",
    **{f"solution.{name}": meaning for name, meaning in _SOLUTION.items()},
    **{f"solution.problem.{name}": meaning for name, meaning in _PROBLEM.items()},
    **{f"solution.judgements.{name}": meaning for name, meaning in _JUDGEMENT.items()},
    **{f"tests.{name}": meaning for name, meaning in _TEST.items()},
}
