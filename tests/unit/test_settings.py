"""Settings: their names, their checks, and messages that name the variable, the value and the way out."""

from __future__ import annotations

import pytest

from orderflow.errors import SettingsError
from orderflow.settings import Settings, inherited, variable

ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound here

#: A token. Named so that no linter takes it for one that is in use.
WORD = "s3cret"


def _refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"PATH": "/bin"}) == Settings()


def test_a_variable_sets_the_field_of_its_name() -> None:
    settings = Settings.from_env({"ORDERFLOW_CART_PORT": "5050", "KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2"})

    assert settings.cart_port == 5050
    assert settings.bootstrap == ["a:1", "b:2"]


def test_only_kafka_s_own_name_stands_outside_the_prefix() -> None:
    outside = {f for f in Settings.__struct_fields__ if not variable(f).startswith("ORDERFLOW_")}

    assert outside == {"kafka_bootstrap_servers"}


@pytest.mark.parametrize("value", ["0", "65536", "-1", "x", "", "5000.5"])
def test_a_wrong_value_is_named_with_its_variable_and_the_default(value: str) -> None:
    message = _refusal(ORDERFLOW_CART_PORT=value)

    assert message.startswith(f"ORDERFLOW_CART_PORT={value!r} is not valid: ")
    assert "default 5000" in message


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "1e9"])
def test_a_duration_is_finite_and_positive(value: str) -> None:
    assert "ORDERFLOW_PUBLISH_DEADLINE_S" in _refusal(ORDERFLOW_PUBLISH_DEADLINE_S=value)


@pytest.mark.parametrize("value", ["localhost", "a:1,", "a:1 b:2", ",a:1", "a:x"])
def test_brokers_are_hosts_with_ports(value: str) -> None:
    assert f"KAFKA_BOOTSTRAP_SERVERS={value!r}" in _refusal(KAFKA_BOOTSTRAP_SERVERS=value)


def test_a_name_that_is_no_setting_is_refused_with_the_nearest_one() -> None:
    assert _refusal(ORDERFLOW_CARTPORT="1").endswith("did you mean ORDERFLOW_CART_PORT?")
    assert _refusal(ORDERFLOW_ZZZZZZZZZZZZZZZZZZZZZZ="1").endswith("`orderflow config` lists all")


def test_a_bind_that_lets_others_in_needs_a_token() -> None:
    message = _refusal(ORDERFLOW_HTTP_HOST=ANYWHERE)

    assert "ORDERFLOW_HTTP_HOST='0.0.0.0'" in message
    assert "set a token, or bind to 127.0.0.1" in message
    assert Settings.from_env({"ORDERFLOW_HTTP_HOST": ANYWHERE, "ORDERFLOW_TOKEN": WORD}).token == WORD


def test_a_thread_is_left_for_the_probes() -> None:
    assert "/healthz" in _refusal(ORDERFLOW_CART_THREADS="16", ORDERFLOW_PUBLISH_WAITING_MAX="16")


def test_an_attempt_fits_into_the_deadline() -> None:
    message = _refusal(ORDERFLOW_PUBLISH_ATTEMPT_TIMEOUT_S="20")

    assert "ORDERFLOW_PUBLISH_DEADLINE_S" in message


def test_copies_of_skipped_messages_go_to_another_topic() -> None:
    """On the orders' own they would be skipped, and copied, for ever."""
    message = _refusal(ORDERFLOW_TOPIC="a", ORDERFLOW_DEAD_LETTER_TOPIC="a")

    assert "ORDERFLOW_DEAD_LETTER_TOPIC='a'" in message
    assert Settings(topic="a").dead_letter_topic_name == "a.dlq"
    assert Settings(topic="a", dead_letter_topic="b").dead_letter_topic_name == "b"


def test_secrets_are_masked_and_their_absence_shows() -> None:
    shown = Settings(token=WORD).public()

    assert set(shown["ORDERFLOW_TOKEN"]) == {"*"}
    assert WORD not in str(shown)
    assert not Settings().public()["ORDERFLOW_TOKEN"]


def test_the_environment_of_settings_gives_them_back() -> None:
    settings = Settings(cart_port=1, publish_deadline_s=4.5, token=WORD, kafka_bootstrap_servers="x:1,y:2")

    assert Settings.from_env(settings.environ()) == settings
    assert Settings().environ() == {}


def test_an_inherited_environment_can_leave_the_settings_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERFLOW_CART_PORT", "1")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "x:1")
    monkeypatch.setenv("OTHER", "kept")

    left = inherited(settings=False)

    assert left["OTHER"] == "kept"
    assert not {"ORDERFLOW_CART_PORT", "KAFKA_BOOTSTRAP_SERVERS"} & left.keys()
    assert inherited(settings=True)["ORDERFLOW_CART_PORT"] == "1"
