"""Which variables can a file use, and where is each of them set?"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from model_compose.config.text import read_text
from model_compose.errors import ConfigError, ConfigErrors, Place

_SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "AUTH")


class Value(msgspec.Struct, frozen=True):
    """The text of a variable and where it is set: `.env:3`, `the environment` or `-e`."""

    text: str
    origin: str

    def __repr__(self) -> str:
        return f"Value(..., {self.origin!r})"  # it may be a secret


class Environment(msgspec.Struct, frozen=True):
    """All variables, each from the strongest place that sets it."""

    values: dict[str, Value]

    @classmethod
    def collect(
        cls, cwd: Path, env_files: Sequence[Path], overrides: Sequence[str], process: Mapping[str, str]
    ) -> Environment:
        """From the weakest to the strongest: files in their order, the process, `-e KEY=VALUE`.

        Without `env_files` the file is `.env` in `cwd`, if there is one.
        Raises ConfigErrors with the mistakes of all files and overrides.
        """
        values: dict[str, Value] = {}
        errors: list[ConfigError] = []
        default = cwd / ".env"  # may also be the folder of a virtual environment
        named = [(path, str(path)) for path in env_files] or [(default, ".env")] * default.is_file()
        for path, name in named:
            try:
                values.update(_read(path, name))
            except ConfigErrors as mistakes:
                errors += mistakes.errors
        values.update((name, Value(text, "the environment")) for name, text in process.items())
        for override in overrides:
            name, equals, text = override.partition("=")
            if not name:
                errors.append(ConfigError("`-e =...` names no variable", hint="write `-e NAME=value`"))
            elif not equals:
                errors.append(ConfigError(f"`-e {name}` has no value", hint=f"write `-e {name}=value`"))
            else:
                values[name] = Value(text, "`-e`")
        if errors:
            raise ConfigErrors(errors)
        return cls(values)

    def get(self, name: str) -> Value | None:
        """The variable, or None if it is not set."""
        return self.values.get(name)

    def names(self) -> Iterator[str]:
        """The names of all variables."""
        return iter(self.values)

    def near(self, name: str) -> str | None:
        """The name that is most like one that is not set."""
        upper = {each.upper(): each for each in self.values}
        found = difflib.get_close_matches(name.upper(), upper, n=1, cutoff=0.7)
        return upper[found[0]] if found else None


def is_secret(name: str) -> bool:
    """Whether a variable of this name should not be shown."""
    return any(word in name.upper() for word in _SECRET_WORDS)


def _read(path: Path, name: str) -> dict[str, Value]:
    from dotenv.parser import parse_stream  # takes 20 ms, and most folders have no such file

    errors: list[ConfigError] = []
    values: dict[str, Value] = {}
    for binding in parse_stream(io.StringIO(read_text(path, name))):
        written = binding.original.string
        skipped = written[: len(written) - len(written.lstrip())]  # empty lines above, for example
        line = binding.original.line + skipped.replace("\r\n", "\n").replace("\r", "\n").count("\n")
        place = Place(name, line, 1, 1)  # without the text of the line, which may be a secret
        if binding.error:
            hint = "write `NAME=value`, and quotes only around the whole value"
            errors.append(ConfigError("this line sets no variable", hint=hint, place=place))
        elif binding.key is not None and binding.value is None:
            hint = f"write `{binding.key}=value`"
            errors.append(ConfigError(f"`{binding.key}` has no value", hint=hint, place=place))
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = Value(binding.value, f"{name}:{line}")
    if errors:
        raise ConfigErrors(errors)
    return values
