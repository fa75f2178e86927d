"""Does an error survive on its way through processes and JSON, and does it know what was meant?"""

from __future__ import annotations

import msgspec
import pytest

from model_compose import errors
from model_compose.errors import (
    ConfigError,
    ConfigErrors,
    ErrorInfo,
    InvalidInput,
    ModelComposeError,
    NotFound,
    Overloaded,
    Place,
    RequestTooLong,
    at,
    did_you_mean,
    nearest,
    revive,
)


def place(line: int, column: int, end_column: int, text: str = "", file: str = "f.yml") -> Place:
    return Place(file, line, column, end_column, text)


class TestOtherProcesses:
    @pytest.mark.parametrize(
        "error",
        [
            NotFound("no workflow `x`", hint="see `ps`"),
            InvalidInput("`temperature` is no number", field="temperature"),
            InvalidInput("no body"),
            RequestTooLong("too long", size=5000, limit=2048, field="prompt"),
            Overloaded("full", retry_after_s=2.5),
        ],
    )
    def test_an_error_comes_back_as_it_went(self, error: ModelComposeError) -> None:
        body = msgspec.json.encode(error.info())
        back = revive(msgspec.json.decode(body, type=ErrorInfo))
        assert type(back) is type(error)
        assert back.info() == error.info()
        assert (str(back), back.hint, back.data()) == (str(error), error.hint, error.data())

    def test_an_unknown_code_comes_back_as_the_base(self) -> None:
        assert type(revive(ErrorInfo("from_a_newer_version", "what"))) is ModelComposeError

    def test_codes_tell_classes_apart(self) -> None:
        classes = [
            cls
            for cls in vars(errors).values()
            if isinstance(cls, type) and issubclass(cls, ModelComposeError)
        ]
        codes = [cls.code for cls in classes if cls is not ConfigErrors]  # has the code of one mistake
        assert len(set(codes)) == len(codes)


class TestHelpers:
    def test_a_place_is_added_on_the_way_out_and_the_first_one_counts(self) -> None:
        inner, outer = place(1, 1, 1), place(2, 2, 2)
        with pytest.raises(ConfigError) as raised, at(outer), at(inner):
            raise ConfigError("wrong")
        assert raised.value.place == inner

    @pytest.mark.parametrize(
        ("name", "valid", "hint"),
        [
            ("batchsize", ["batch_size", "model"], "did you mean `batch_size`? valid: `batch_size`, `model`"),
            ("BATCHSIZE", ["Batch_Size", "model"], "did you mean `Batch_Size`? valid: `Batch_Size`, `model`"),
            ("batchsize", ["batch_size"], "did you mean `batch_size`?"),
            ("xyz", ["b", "a"], "valid: `a`, `b`"),
            ("xyz", [], None),
        ],
    )
    def test_a_near_miss_is_named(self, name: str, valid: list[str], hint: str | None) -> None:
        assert did_you_mean(name, valid) == hint

    def test_a_near_miss_among_many_stands_alone(self) -> None:
        names = [f"{letter}_size" for letter in "abcdefghijkl"]
        assert str(did_you_mean("l_siez", names)).startswith("did you mean `l_size`? valid: `a_size`")
        assert did_you_mean("m_siez", [*names, "m_size"]) == "did you mean `m_size`?"

    def test_the_nearest_word_is_that_of_the_fewest_changes(self) -> None:
        assert nearest("temprature", ["temperature", "template", "top_p"]) == "temperature"
        assert nearest("xyz", ["temperature"]) is None
        assert nearest("", []) is None

    def test_very_many_valid_names_are_cut(self) -> None:
        assert str(did_you_mean("x", [f"name-{number:03}" for number in range(100)])).endswith(
            "`name-039`, ..."
        )
