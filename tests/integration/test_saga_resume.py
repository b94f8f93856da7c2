"""Redis is wiped: what sagas owe is found in the log in SQL, and undone, wherever who undoes it is killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

import sagas
from canvas import ConfigError, Run, fan_out_fail, workflow
from saga import Saga, Strategy, database
from saga.cli import saga as commands
from saga.resume import NothingOwed, resume
from sagas import World, act, effects, log_states, owed, refuse, stuck, take_back
from status import api
from status.errors import RunNotFound


@workflow(name="resume.three")
async def three(run: Run, strategy: Strategy = Strategy.COMPENSATE_ALL) -> None:
    async with Saga(run, "order", strategy=strategy) as saga:
        for name in ("a", "b", "c"):
            await saga.safe_step(name).with_compensation(take_back, name).execute(act.s(name))
    await act.s("after")


@workflow(name="resume.closed")
async def closed(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await saga.safe_step("b").with_compensation(stuck, "b").execute(act.s("b"))
        await refuse.s("c")


@workflow(name="resume.failing")
async def failing(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await refuse.s("b")


@workflow(name="resume.fails")
async def fails(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await saga.safe_step("b").with_compensation(take_back, "b").execute(fan_out_fail(act.s("b"), refuse.s("no")))


def wipe(world: World) -> None:
    """Redis comes back empty; what lies in the queues went with it."""
    world.redis.flushall()
    world.inbox.clear()
    world.start()


def begun(world: World, *names: str) -> World:
    """A run in the middle of its saga: these steps are done, and the next has begun."""
    world.submit(three)
    world.go_on(until=lambda: [name for name, _ in effects()] == list(names))
    world.go_on(until=lambda: not world.inbox or not isinstance(world.inbox[0], str))
    return world


def resumed(world: World, run_id: str = "r") -> str:
    """Resume a run; the id of the run that does it, which has ended."""
    own_id = resume(run_id).handle.run_id
    world.go_on(own_id)
    return own_id


@pytest.fixture
def shell(world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `celery -A … runs saga …` in this process."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    context = SimpleNamespace(app=world.app)
    return lambda *words, **more: CliRunner().invoke(commands, list(words), obj=context, **more)


def test_what_is_owed_is_found_in_the_log_alone(world: World, shell: Callable[..., Result]) -> None:
    wipe(begun(world, "a", "b"))

    found = json.loads(shell("list", "--open", "--json").stdout)["sagas"]
    assert [(one["run_id"], one["saga"], one["run_state"]) for one in found] == [("r", "order", None)]
    assert found[0]["owed"] == ["c", "b", "a"]
    assert "not in Redis" in shell("list", "--open").stdout

    shown = json.loads(shell("show", "r", "--json").stdout)
    assert [(entry["name"], entry["state"], entry["value"]) for entry in shown["entries"]] == [
        ("a", "done", '"a"'),
        ("b", "done", '"b"'),
        ("c", "begun", None),
    ]
    assert "sagas.take_back" in shell("show", "r").stdout


def test_it_is_found_without_any_redis(world: World, shell: Callable[..., Result], monkeypatch) -> None:
    wipe(begun(world, "a"))
    from status import here

    here.use("redis://127.0.0.1:1/0")
    result = shell("list", "--open")

    assert result.exit_code == 0
    assert "unknown (no Redis)" in result.stdout
    assert "b, a" in result.stdout


def test_resume_undoes_newest_first_and_only_what_happened(world: World) -> None:
    wipe(begun(world, "a", "b"))

    own_id = resumed(world)

    assert own_id == "r:resume"
    assert world.state(own_id) == "completed"
    assert effects() == [("a", 1), ("b", 1), ("b", -1), ("a", -1)]
    assert [key for key in world.bodies if "#" in key] == ["r#2", "r#1", "r#0"]
    assert owed() == []


def test_resuming_twice_undoes_nothing_twice(world: World) -> None:
    wipe(begun(world, "a"))
    first = resume("r")
    assert not resume("r").started
    world.go_on(first.handle.run_id)

    with pytest.raises(NothingOwed, match="owes no undo"):
        resume("r")
    assert effects() == [("a", 1), ("a", -1)]


def test_a_run_that_goes_on_is_not_resumed(world: World) -> None:
    begun(world, "a")

    with pytest.raises(ConfigError, match="run r is running: it undoes what it owes itself"):
        resume("r")


def test_a_run_that_completed_before_redis_was_wiped_owes_nothing(world: World) -> None:
    world.submit(three)
    world.go_on()
    wipe(world)

    assert owed() == []
    with pytest.raises(NothingOwed):
        resume("r")


def test_an_undo_that_ran_and_was_not_noted_has_its_effect_once(world: World) -> None:
    """Redis went between the undo and its outcome: it has the same key when it is called again."""
    world.while_it_runs["after undo a"] = lambda: wipe(world)
    world.submit(failing)
    world.go_on(until=lambda: "r#0" in world.bodies)
    resumed(world)

    assert world.bodies.count("r#0") == 2
    assert effects() == [("a", 1), ("a", -1)]


def test_killed_at_each_write_of_a_resume(world: World) -> None:
    """Wiped in the middle of a saga, then killed at each write of what undoes it."""
    kills = 0
    while True:
        world.redis.flushall()
        world.inbox.clear()
        sagas.forget_all()
        world.kill_at, world.died = -1, ""
        world.bodies.clear()
        wipe(begun(world, "a", "b"))
        started = resume("r").handle.run_id
        world.kill_at, world.points = kills, 0
        world.go_on(started)

        assert world.state(started) == "completed", world.died
        assert effects() == [("a", 1), ("b", 1), ("b", -1), ("a", -1)], world.died
        assert log_states() == {"a": "undone", "b": "undone", "c": "undone"}, world.died
        if not world.died:
            break
        kills += 1
    assert kills > 40


def test_wiped_at_each_write_of_a_rollback_nothing_stays_owed(world: World) -> None:
    """Redis is wiped at each write of a whole saga that fails; what is owed is undone, each effect once."""

    wipes = 0
    while True:
        world.redis.flushall()
        world.inbox.clear()
        sagas.forget_all()
        world.died = ""
        world.start()
        world.kill_at = wipes
        world.submit(fails)
        world.go_on(until=lambda: bool(world.died) or world.state() == "compensated")
        if not world.died:
            break
        late = list(world.inbox)  # messages of a broker elsewhere, which was not wiped
        wipe(world)
        world.inbox = late
        if owed():
            resumed(world)

        done = effects()
        for name in ("a", "b"):
            assert sum(sign for named, sign in done if named == name) == 0, (world.died, done)
        assert owed() == [], world.died
        wipes += 1
    assert wipes > 30


def test_an_undo_that_gave_up_can_be_resumed_again(world: World) -> None:
    world.submit(closed)
    world.go_on()
    assert world.state() == "compensation_failed"

    first = resumed(world)
    assert world.state(first) == "compensation_failed"
    assert "undo b" in world.error(first)
    assert log_states() == {"a": "done", "b": "undo_failed"}

    second = resumed(world)
    assert (first, second) == ("r:resume", "r:resume.2")


def test_the_command_line_resumes(world: World, shell: Callable[..., Result]) -> None:
    wipe(begun(world, "a"))

    asked = shell("resume", "--all-open", input="n\n")
    assert asked.exit_code == 1
    with pytest.raises(RunNotFound):
        api.get_status("r:resume")

    told = shell("resume", "--all-open", "--yes", "--json")
    assert json.loads(told.stdout) == {"resumed": [{"run_id": "r", "by": "r:resume", "entries": 2, "started": True}]}
    again = shell("resume", "r")
    assert "is being undone already by run r:resume" in again.stdout
    world.go_on("r:resume")
    assert "no saga owes anything" in shell("list", "--open").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "nobody"], "the saga log has nothing of run nobody"),
        (["resume", "nobody"], "run nobody owes no undo"),
        (["resume"], "say which"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(shell: Callable[..., Result], words: list[str], said: str) -> None:
    result = shell(*words)

    assert result.exit_code == 2
    assert said in result.stderr


def test_a_database_that_does_not_answer_is_said_in_one_line(
    shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere:
        database_url = "sqlite:////proc/self/mem"

    monkeypatch.setattr(database, "places", Nowhere)
    monkeypatch.setattr("saga.writing.places", Nowhere)
    result = shell("list")

    assert result.exit_code == 2
    assert "the saga log at sqlite:////proc/self/mem is not reachable" in result.stderr


@pytest.mark.parametrize("words", [["list"], ["show", "r"]])
def test_who_only_looks_makes_no_log(
    shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    missing = tmp_path / "elsewhere" / "log.db"
    monkeypatch.setattr(database, "places", lambda: SimpleNamespace(database_url=f"sqlite:///{missing}"))
    result = shell(*words)
    assert result.exit_code == 2
    assert "there is no saga log at" in result.stderr
    assert not missing.parent.exists()
