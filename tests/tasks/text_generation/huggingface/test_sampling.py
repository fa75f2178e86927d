"""The next token of each row, by its own rules and from its own random numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from model_compose.tasks.generation import Generation
from model_compose.tasks.text_generation.huggingface.sampling import Sampler, choose, log_probabilities

END = 5
#: Of six tokens, the last of which ends an output.
LOGITS = torch.tensor([1.0, 3.0, 2.0, 0.0, -1.0, 2.5])


def sampler(prompt: Sequence[int] = (), index: int = 0, **asked: Any) -> Sampler:
    return Sampler(Generation(**asked), index, (END,), prompt, len(LOGITS))


def drawn(times: int = 300, *, logits: torch.Tensor = LOGITS, **asked: Any) -> Counter[int]:
    """How often each token is chosen, as the share of all draws."""
    row = sampler(**{"seed": 0, **asked})
    row.said(0)
    return Counter(choose(logits[None].clone(), [row])[0] for _ in range(times))


def test_greedy_takes_the_likeliest() -> None:
    for asked in ({"temperature": 0}, {"do_sample": False}, {"top_k": 1}, {"top_p": 0.01}):
        assert set(drawn(20, **asked)) == {1}


def test_shares_are_those_of_the_softmax_at_the_temperature() -> None:
    for temperature in (0.5, 1.0, 2.0):
        found = drawn(1500, temperature=temperature, top_k=0, top_p=1.0)
        wanted = (LOGITS / temperature).softmax(-1)
        for token, share in enumerate(wanted.tolist()):
            # Five standard deviations of a share that is counted in 1,500 draws.
            assert abs(found[token] / 1500 - share) < 5 * (share * (1 - share) / 1500) ** 0.5 + 1e-9


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"top_k": 2}, {1, 5}),
        ({"top_k": 0, "top_p": 0.6, "temperature": 1.0}, {1, 5}),
        ({"top_k": 0, "top_p": 0.5, "temperature": 1.0}, {1, 5}),
        ({"top_k": 0, "top_p": 0.3, "temperature": 1.0}, {1}),
        ({"top_k": 0, "top_p": 1.0, "min_p": 0.3, "temperature": 1.0}, {1, 2, 5}),
        ({"top_k": 4, "top_p": 1.0, "temperature": 5.0}, {0, 1, 2, 5}),
    ],
)
def test_unlikely_tokens_are_left_out(asked: dict[str, Any], tokens: set[int]) -> None:
    assert set(drawn(**asked)) == tokens


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_of_what_is_no_number_has_no_token_and_others_have_theirs(
    spoilt: float, temperature: float
) -> None:
    logits = torch.stack([LOGITS, LOGITS, LOGITS])
    logits[1, 3] = spoilt
    rows = [sampler(temperature=each, top_k=1) for each in (0.0, temperature, 1.0)]
    assert choose(logits, rows) == [1, -1, 1]


def test_rows_of_a_batch_do_not_change_each_other() -> None:
    rules: list[dict[str, Any]] = [
        {"seed": 1},
        {"temperature": 0},
        {"seed": 2, "top_k": 0, "top_p": 1.0},
        {"seed": 3, "repetition_penalty": 2.0, "prompt": (1,)},
    ]
    together = [sampler(**rule) for rule in rules]
    alone = [sampler(**rule) for rule in rules]
    for _ in range(50):
        found = choose(LOGITS.repeat(len(rules), 1), together)
        assert found == [choose(LOGITS[None].clone(), [row])[0] for row in alone]
        for row, other, token in zip(together, alone, found, strict=True):
            row.said(token)
            other.said(token)


def test_outputs_of_one_seed_differ_by_their_index_and_come_again() -> None:
    def tokens(index: int) -> list[int]:
        row = sampler(index=index, seed=7, top_k=0, temperature=2.0)
        return [choose(LOGITS[None].clone(), [row])[0] for _ in range(20)]

    assert tokens(0) == tokens(0)
    assert tokens(0) != tokens(1)


def test_penalties_count_the_prompt_and_what_was_said() -> None:
    def adjusted(**asked: Any) -> list[float]:
        row = sampler(prompt=(1, 1, 4), **asked)
        row.said(2)
        logits = LOGITS.clone()
        row.adjust(logits)
        return [round(value, 4) for value in logits.tolist()]

    assert adjusted(repetition_penalty=2.0) == [1.0, 1.5, 1.0, 0.0, -2.0, 2.5]
    assert adjusted(presence_penalty=0.5) == [1.0, 2.5, 1.5, 0.0, -1.5, 2.5]
    assert adjusted(frequency_penalty=0.5) == [1.0, 2.0, 1.5, 0.0, -1.5, 2.5]


def test_an_output_does_not_end_before_its_least_length() -> None:
    row = sampler(min_output_length=3, seed=0, top_k=0, top_p=1.0, temperature=5.0)
    said: list[int] = []
    while not said or said[-1] != END:
        said.append(choose(LOGITS[None].clone(), [row])[0])
        row.said(said[-1])
    assert len(said) > 3


def test_log_probabilities_are_those_before_the_rules() -> None:
    ((value, rivals),) = log_probabilities(LOGITS[None], [2], 2)
    wanted = LOGITS.log_softmax(-1)
    assert value == pytest.approx(wanted[2].item())
    assert [token for token, _ in rivals] == [1, 5]
    assert [number for _, number in rivals] == pytest.approx([wanted[1].item(), wanted[5].item()])
    assert log_probabilities(LOGITS[None], [2], 0)[0][1] == []
