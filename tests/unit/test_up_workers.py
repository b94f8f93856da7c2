"""Which workers `celery up` runs, from the setting and the options; and what it refuses."""

from __future__ import annotations

import pytest
from celery import Celery
from click.testing import CliRunner
from kombu import Queue

from canvas.up import up
from canvas.up_workers import Group, choose, groups_of
from status.errors import ConfigError


def app_of(setting: object, *queues: str) -> Celery:
    app = Celery("test", broker="memory://", set_as_current=False)
    if queues:
        app.conf.task_queues = [Queue(name) for name in queues]
    if setting is not None:
        app.conf.celeriac_workers = setting
    return app


def test_without_the_setting_one_worker_serves_every_queue():
    assert groups_of(app_of(None)) == [Group(name="all", queues=("celery",))]
    assert groups_of(app_of(None, "a", "b")) == [Group(name="all", queues=("a", "b"))]


def test_the_setting_names_groups_with_their_queues_pool_and_size():
    setting = {"one": {"queues": ["a", "b"]}, "two": {"queues": ("b",), "pool": "threads", "concurrency": 8}}

    assert groups_of(app_of(setting, "a", "b")) == [
        Group(name="one", queues=("a", "b"), pool="prefork", concurrency=None),
        Group(name="two", queues=("b",), pool="threads", concurrency=8),
    ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ([], "must be a dict such as .* not \\[\\]"),
        ({}, "must be a dict such as"),
        ({"g": []}, r"celeriac_workers\['g'\] must be a dict"),
        ({"g@h": {"queues": ["a"]}}, r"\['g@h'\]: a group's name"),
        ({7: {"queues": ["a"]}}, r"\[7\]: a group's name"),
        ({"g": {"queue": ["a"]}}, r"\['g'\] has 'queue'; known are queues, pool, concurrency, prefetch, nice"),
        ({"g": {}}, "queues must be a list of queue names, not None"),
        ({"g": {"queues": "a"}}, "queues must be a list of queue names, not 'a'"),
        ({"g": {"queues": []}}, "queues must be a list"),
        ({"g": {"queues": ["a"], "pool": "fork"}}, "pool must be one of prefork, threads, solo, not 'fork'"),
        ({"g": {"queues": ["a"], "pool": ["solo"]}}, "pool must be one of"),
        ({"g": {"queues": ["a"], "concurrency": 0}}, "concurrency must be a whole number of at least 1, not 0"),
        ({"g": {"queues": ["a"], "concurrency": True}}, "concurrency must be .* not True"),
        ({"g": {"queues": ["a"], "prefetch": 0}}, "prefetch must be a whole number of at least 1, not 0"),
        ({"g": {"queues": ["a"], "nice": -5}}, "nice must be a whole number from 0 to 19, not -5"),
        ({"g": {"queues": ["a"]}}, "nobody would work on the queue 'b': add it to .* in celeriac_workers"),
        ({"g": {"queues": ["a", "b", "c"]}}, r"\['g'\]: task_queues has no queue 'c'; it has a, b"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value_and_the_rule(setting, said):
    with pytest.raises(ConfigError, match=said):
        groups_of(app_of(setting, "a", "b"))


GROUPS = [Group(name="one", queues=("a",)), Group(name="two", queues=("b",))]


@pytest.mark.parametrize(
    ("only", "scale", "chosen"),
    [
        ([], {}, {"one": 1, "two": 1}),
        (["two"], {}, {"two": 1}),
        (["two", "one"], {"two": 3}, {"one": 1, "two": 3}),
    ],
)
def test_options_choose_and_multiply_groups(only, scale, chosen):
    assert {group.name: processes for group, processes in choose(GROUPS, only, scale)} == chosen


@pytest.mark.parametrize(
    ("only", "scale", "said"),
    [
        (["tow"], {}, "--only tow: there is no such group; there are one, two"),
        ([], {"tow": 2}, "--scale tow: there is no such group"),
        (["one"], {"two": 2}, "--scale two: --only leaves this group out"),
    ],
)
def test_options_for_groups_that_do_not_run_are_refused(only, scale, said):
    with pytest.raises(ConfigError, match=said):
        choose(GROUPS, only, scale)


@pytest.mark.parametrize("value", ["one", "one=", "=2", "one=0", "one=-1", "one=many"])
def test_a_scale_that_is_no_number_is_refused_with_exit_code_2(value):
    refused = CliRunner().invoke(up, ["--scale", value])

    assert refused.exit_code == 2
    assert f"{value!r} is not NAME=N with N of at least 1" in refused.output


def test_a_group_may_say_how_many_messages_it_takes_ahead_and_that_it_stands_back():
    (group,) = groups_of(app_of({"batch": {"queues": ["a"], "prefetch": 1, "nice": 10}}, "a"))

    argv = group.program("tasks", 1, loglevel="INFO", grace_s=5).argv

    assert argv[:3] == ["nice", "-n", "10"]
    assert argv[-2:] == ["--prefetch-multiplier", "1"]


def test_the_shops_batches_have_workers_of_their_own():
    import tasks

    groups = {group.name: group for group in groups_of(tasks.app)}
    batch = groups.pop("batch")

    assert batch.queues == ("batch",)
    assert batch.prefetch == 1, "a worker that holds the next items keeps them from an idle one"
    assert all("batch" not in group.queues for group in groups.values())
    assert tasks.app.amqp.router.route({}, "batch.any")["queue"].name == "batch"


def test_a_worker_is_started_with_the_queues_pool_and_size_of_its_group():
    group = Group(name="one", queues=("a", "b"), pool="threads", concurrency=8)

    program = group.program("tasks", 2, loglevel="INFO", grace_s=5)

    assert program.name == "one-2"
    assert program.grace_s == 5
    assert " ".join(program.argv[1:]) == ("-m celery -A tasks worker -n one-2@%h -Q a,b -P threads -l INFO -c 8")
