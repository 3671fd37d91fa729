"""Chat templates of strangers."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from aiplayground.errors import InvalidParameters
from aiplayground_llamacpp.deadline import Deadline, DeadlineExceeded
from aiplayground_llamacpp.template import CHATML, ChatTemplate

USER = [{"role": "user", "content": "Hi"}]


def template(source: str, timeout: float = 20) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", timeout=timeout)


def test_chatml() -> None:
    messages = [{"role": "system", "content": "Be kind."}, *USER]
    assert template(CHATML).render(messages) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_names_that_templates_use() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if loop.index0 > 5 %}{% break %}{% endif %}"
        "{{ m['content'] | tojson }}{% endfor %}{{ eos_token }}{{ strftime_now('%Y') | length }}"
    )
    rendered = template(source).render([{"role": "user", "content": "<ü>"}])
    assert rendered == '<s>"<ü>"</s>4'


def test_marks_for_trainers_are_read_over() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert template(source).render(USER) == "Hi"


def test_what_a_template_refuses_is_told_in_its_words() -> None:
    source = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidParameters, match="roles must alternate"):
        template(source).render(USER)


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ messages[",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[99].content.x }}",
        "{{ 1 / 0 }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ [0] * 10 ** 12 }}",
        "{{ 10 ** 99 ** 99 ** 99 }}",
        "{{ 10 ** 99999999999 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' + 1 }}",
        "{{ no_such_function() }}",
        "{% include 'x' %}",
    ],
)
def test_a_bad_template_is_a_bad_request_and_nothing_worse(source: str) -> None:
    with pytest.raises(InvalidParameters, match="chat template"):
        template(source).render(USER)


def test_endless_loops_are_cut_off() -> None:
    rows = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(InvalidParameters, match="longer than"):
        template(rows, timeout=0.2).render(USER)


def test_endless_output_is_cut_off() -> None:
    long = "{% set t = 'x' * 1000000 %}{% for a in range(99999) %}{{ t }}{% endfor %}"
    with pytest.raises(InvalidParameters, match=r"too much|longer than"):
        template(long, timeout=20).render(USER)


def test_a_deadline_reaches_only_its_own_thread_and_only_in_time() -> None:
    caught = threading.Event()

    def spin() -> None:
        try:
            with Deadline(0.05):
                while True:
                    time.sleep(0)
        except DeadlineExceeded:
            caught.set()

    thread = threading.Thread(target=spin)
    thread.start()
    with Deadline(30):
        thread.join(20)
    assert caught.is_set()


def test_a_deadline_never_comes_after_its_block() -> None:
    for _ in range(50):
        with contextlib.suppress(DeadlineExceeded), Deadline(0.001):
            sum(range(10_000))
        try:
            time.sleep(0.003)
        except DeadlineExceeded:
            pytest.fail("the deadline came after the block")


def test_tools_and_variables_reach_the_template() -> None:
    source = "{% if tools %}{{ tools | tojson }}{% endif %}{{ enable_thinking | default('?') }}"
    assert template(source).render(USER) == "?"
    assert template(source).render(USER, [], {"enable_thinking": False}) == "False"
    assert template(source).render(USER, [{"a": "<b>"}]) == '[{"a": "<b>"}]?'


def test_a_template_may_go_through_tools_that_are_not_there() -> None:
    source = "{% for tool in tools %}{{ tool }}{% endfor %}{{ messages | map('length') | tojson }}"
    assert template(source).render(USER) == "[2]"


@pytest.mark.parametrize("name", ["messages", "tools", "bos_token", "add_generation_prompt"])
def test_variables_replace_nothing_that_the_request_says(name: str) -> None:
    with pytest.raises(InvalidParameters, match=name):
        template("x").render(USER, None, {name: "x"})


def test_variables_cannot_turn_the_templates_own_words_against_it() -> None:
    for name in ("raise_exception", "range", "self", "loop", "context"):
        with contextlib.suppress(InvalidParameters):
            template("{{ range(3) | list }}{{ raise_exception('x') }}").render(
                USER, None, {name: 5}
            )
