"""Secrets: from where they come, and that they show themselves nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch.config import Config, Secret, load, secret, show
from assetbatch.errors import ConfigurationError
from tests.unit.configs import EMBEDDED, faults_in, load_in


def test_a_secret_shows_itself_to_nobody_but_who_asks() -> None:
    hidden = Secret("hunter22")
    shown = [repr(hidden), str(hidden), f"{hidden}", f"{hidden!r}", "%s" % hidden, str([hidden])]  # noqa: UP031
    assert "hunter22" not in "".join(shown)
    assert hidden.reveal() == "hunter22"


def key_of(config: Config) -> str | None:
    return config.api_key.reveal() if config.api_key else None


def test_the_twin_names_a_file_whose_first_line_is_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("  abc123 \nsecond line\n")
    path.chmod(0o644)
    for value in (str(path), "key"):
        config = load_in(tmp_path, environ={"POLYGON_API_KEY_FILE": value})
        assert key_of(config) == "abc123"
        assert config.origins["api_key"] == "POLYGON_API_KEY_FILE"


def test_a_twin_in_dotenv_is_looked_for_beside_it(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "c.yaml").write_text(EMBEDDED)
    (tmp_path / "conf" / ".env").write_text("POLYGON_API_KEY_FILE=key\n")
    (tmp_path / "conf" / "key").write_text("abc123")
    config = load(file=Path("conf/c.yaml"), environ={}, cwd=tmp_path)
    assert key_of(config) == "abc123"
    assert config.origins["api_key"] == "conf/.env:1"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b"\nabc", "is empty"), (b"\xff", "is not UTF-8 text")],
)
def test_a_twin_without_a_secret_is_a_fault(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    (fault,) = faults_in(tmp_path, environ={"POLYGON_API_KEY_FILE": str(path)})
    assert fault.startswith(f"POLYGON_API_KEY_FILE: {path} {message}")


def test_a_key_put_under_the_twin_by_mistake_is_not_repeated(tmp_path: Path) -> None:
    (fault,) = faults_in(tmp_path, environ={"POLYGON_API_KEY_FILE": "abc123SECRET"})
    assert "abc123SECRET" not in fault
    assert "the file that it names cannot be read" in fault


@pytest.mark.parametrize("name", secret.NAMES)
def test_both_of_the_twins_are_a_fault(tmp_path: Path, name: str) -> None:
    faults = faults_in(tmp_path, "", {name: "redis://a", f"{name}_FILE": "/b"})
    assert f"{name}_FILE: {name} and {name}_FILE are both set: remove one" in faults


def test_systemd_credentials_come_after_the_environment_and_before_dotenv(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    (tmp_path / ".env").write_text("POLYGON_API_KEY=fromdotenv\n")
    assert key_of(load_in(tmp_path, environ=environ)) == "fromdotenv"
    (credentials / "polygon_api_key").write_text("lower\n")
    assert key_of(load_in(tmp_path, environ=environ)) == "lower"
    (credentials / "POLYGON_API_KEY").write_text("upper\n")
    config = load_in(tmp_path, environ=environ)
    assert (key_of(config), config.origins["api_key"]) == ("upper", "credential POLYGON_API_KEY")
    assert key_of(load_in(tmp_path, environ={**environ, "POLYGON_API_KEY": "first"})) == "first"
    (credentials / "POLYGON_API_KEY").write_text("\n")
    path = credentials / "POLYGON_API_KEY"
    assert faults_in(tmp_path, environ=environ) == [f"credential POLYGON_API_KEY: {path} is empty"]


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"POLYGON_API_KEY": "abc 123"}, "POLYGON_API_KEY: has a space or a letter that no key has"),
        ({"POLYGON_API_KEY": "abc\udcff"}, "POLYGON_API_KEY: has a control character, or is not UTF-8 text"),
        ({"REDIS_URL": "http://abc:123@x"}, "REDIS_URL: expected redis://user:password@host:6379/0"),
    ],
)
def test_a_secret_that_cannot_be_one(tmp_path: Path, environ: dict[str, str], fault: str) -> None:
    (found,) = faults_in(tmp_path, environ=environ)
    assert found.startswith(fault)


def test_no_key_where_one_is_needed_tells_the_ways(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_in(tmp_path).require_api_key()
    (fault,) = caught.value.faults
    for way in ("POLYGON_API_KEY ", "POLYGON_API_KEY_FILE", ".env", "systemd credential"):
        assert way in fault.message
    assert "sandbox" in caught.value.hint
    assert caught.value.exit_code == 78
    assert load_in(tmp_path, environ={"POLYGON_API_KEY": "abc"}).require_api_key().reveal() == "abc"


def test_everything_to_be_masked_is_named_the_longest_first(tmp_path: Path) -> None:
    config = load_in(
        tmp_path,
        "pings: {run_priority: 'https://hc-ping.com/uuid'}\n",
        {
            "POLYGON_API_KEY": "thekey",
            "DATABASE_URL": "postgresql://u:p%40ss%2Fword@h/db",
            "REDIS_URL": "redis://:r%40dis@h:6379/0",
        },
    )
    texts = config.secrets
    assert {"thekey", "p%40ss%2Fword", "p@ss/word", "r%40dis", "r@dis", "https://hc-ping.com/uuid"} <= set(texts)
    assert {"postgresql://u:p%40ss%2Fword@h/db", "redis://:r%40dis@h:6379/0"} <= set(texts)
    assert list(texts) == sorted(texts, key=len, reverse=True)
    by_parts = load_in(tmp_path, "", {"DB_HOST": "h", "DB_NAME": "d", "DB_PASSWORD": "it's \\ me"})
    assert {"it's \\ me", quote("it's \\ me", safe="")} <= set(by_parts.secrets)


def test_a_fault_shows_not_even_a_short_secret_that_was_written_at_the_wrong_place(tmp_path: Path) -> None:
    (fault,) = faults_in(tmp_path, environ={"POLYGON_API_KEY": "k9Zq4", "POLYGON_TIER": "k9Zq4"})

    assert "POLYGON_TIER" in fault
    assert "***" in fault
    assert "k9Zq4" not in fault


def test_nothing_that_is_printed_holds_a_secret(tmp_path: Path) -> None:
    config = load_in(
        tmp_path,
        "pings: {drain_queue: 'https://hc-ping.com/uuid'}\n",
        {"POLYGON_API_KEY": "thekey", "DATABASE_URL": "postgresql://u:dbpass@h/db", "REDIS_URL": "redis://:rpass@h"},
    )
    printed = repr(config) + str(show.effective(config)) + str(show.effective_document(config))
    for text in ("thekey", "dbpass", "rpass", "hc-ping"):
        assert text not in printed


WORDS = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=30).map(
    lambda text: "q9" + text
)


@given(word=WORDS, wrong=st.sampled_from(["POLYGON_TIER", "QUEUE_MAX_SIZE", "DB_PORT", "POLYGON_BASE_URL"]))
def test_no_fault_ever_holds_a_secret(tmp_path_factory: pytest.TempPathFactory, word: str, wrong: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    quoted = word.replace("'", "''")
    (folder / "config.yaml").write_text(
        f"api_key: '{quoted}'\nprovider: {{plan: '{quoted}'}}\ndatabase: {{password: '{quoted}'}}\n"
    )
    environ: dict[str, Any] = {
        "POLYGON_API_KEY": word,
        "DATABASE_URL": f"postgresql://u:{word}@/",
        "DB_PASSWORD": word,
        "REDIS_URL": f"foo://{word}",
        wrong: word,
    }
    with pytest.raises(ConfigurationError) as caught:
        load(file=folder / "config.yaml", environ=environ, cwd=folder)
    assert word not in str(caught.value)
    assert word not in caught.value.hint


@pytest.mark.parametrize("sign", ["@", "/", "?", "#", "%", "%4", " ", "/1?", "?1/"])
@pytest.mark.parametrize(
    "form", ["redis://:hun{}hunter22@h", "rediss://u:12{}hunter22@h:1/0", "unix://:hun{}hunter22@/s"]
)
def test_a_redis_url_whose_password_is_not_encoded_is_refused(tmp_path: Path, sign: str, form: str) -> None:
    (fault,) = faults_in(tmp_path, environ={"REDIS_URL": form.format(sign)})
    assert "hun" not in fault
    assert "write @ / ? # % : and spaces as % codes" in fault


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://h",
        "redis://u:a:b%40%2F@h:6379/0?ssl_cert_reqs=none",
        "rediss://[::1]:6379/1",
        "redis://h?password=a@b",
        "unix:///run/redis@main/redis.sock?db=1",
        "unix://:pw@/run/redis.sock",
    ],
)
def test_redis_urls_that_have_one_meaning(tmp_path: Path, url: str) -> None:
    redis_url = load_in(tmp_path, EMBEDDED, {"REDIS_URL": url}).redis_url
    assert redis_url is not None
    assert redis_url.reveal() == url


@pytest.mark.parametrize(
    "url", ["https://u:hun@ter22@h/x", "https://u:hun/ter22@h/x", "https://u:hun%ter22@h", "https://u:1 2@h"]
)
def test_a_ping_whose_password_is_not_encoded_is_refused(tmp_path: Path, url: str) -> None:
    (fault,) = faults_in(tmp_path, EMBEDDED + f"pings: {{run_priority: '{url}'}}\n")
    assert "hun" not in fault
    assert "write @ / ? # % : and spaces as % codes" in fault


@pytest.mark.parametrize("url", ["https://hc-ping.com/a/b?rid=1#x", "https://u:p%40@h:8/@me/x@y", "http://[::1]:80"])
def test_pings_that_have_one_meaning(tmp_path: Path, url: str) -> None:
    assert load_in(tmp_path, EMBEDDED + f"pings: {{run_priority: '{url}'}}\n").settings.pings.run_priority == url
