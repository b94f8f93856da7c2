"""The rules, each taken away: what the simulation must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from canvas import opening
from canvas.engine import Engine
from canvas.heartbeat import Heartbeat
from canvas.run import Run
from canvas.series import Series
from simulation.broker import SimBacklog
from simulation.plans import Plan
from simulation.redis_side import Patches


@dataclass(frozen=True)
class Mutation:
    """A rule less.

    Attributes:
        rule: Its number in the design.
        what: What the product no longer does.
        patches: Of the scripts: (script, text, what stands there instead).
        python: Class, method and what it is replaced by.
        kinds: Faults under which that shows; ('none',): it shows without any.
        more: Of the profile, as it must be.
        wants: Whether a plan may show it.
        seeds: Within how many it is found.
    """

    rule: int
    what: str
    patches: Patches = ()
    python: tuple[Any, str, Any] | None = None
    kinds: tuple[str, ...] = ("none",)
    more: dict[str, Any] = field(default_factory=dict)
    wants: Callable[[Plan], bool] = lambda plan: True  # noqa: ARG005
    seeds: int = 60

    @property
    def name(self) -> str:
        return f"rule{self.rule}-{self.what}"


class HoldsLate(Series):
    """Its worker knows of its claims when the first part begins."""

    def granted(self, grants: Any) -> None:
        self._hold = lambda _running="": None  # type: ignore[method-assign]
        super().granted(grants)
        del self._hold


def _cancelled(plan: Plan) -> bool:
    return bool(plan.cancels_ms) and min(plan.cancels_ms) < 1500


def _undoes(plan: Plan) -> bool:
    return bool(plan.strategy) and (plan.raises or not plan.catches) and plan.joins[0].undone


def _undoes_later(plan: Plan) -> bool:
    return bool(plan.strategy) and any(join.undone for join in plan.joins[1:])


def _fails_fast(plan: Plan) -> bool:
    return any(join.kind == "fan_out_fail" and len(join.good) > 1 and not all(join.good) for join in plan.joins)


def _races(plan: Plan) -> bool:
    return bool(plan.strategy) and any(
        join.undone and join.kind in {"race", "quorum"} and len(join.good) > 1 for join in plan.joins[: plan.covered]
    )


def _times_out(plan: Plan) -> bool:
    """Something that is to be undone has half a second, in a saga that ends well."""
    covered = plan.joins[: plan.covered]
    good = bool(plan.strategy) and plan.catches and not plan.raises and not plan.cancels_ms and not plan.deadline_s
    return good and any(join.undone and not join.fatal and 0.5 in join.within_s for join in covered)


def _batch(plan: Plan) -> bool:
    return 0 < plan.joins[0].window < len(plan.joins[0].good)


def _uniform(plan: Plan) -> bool:
    """Many worlds file its first join as they do a batch."""
    first = plan.joins[0]
    return first.kind in {"fan_out", "fan_out_fail"} and len(first.good) > 4 and len(set(first.steps)) == 1


def _flaky(plan: Plan) -> bool:
    return any(any(join.flaky) for join in plan.joins[:2])


def _several(plan: Plan) -> bool:
    return any(len(join.good) > 1 and join.kind != "sleep" for join in plan.joins[:2])


def _fails_fast(plan: Plan) -> bool:
    first = plan.joins[0]
    return first.kind == "fan_out_fail" and len(first.good) > 1 and not all(first.good)


def _receives(plan: Plan) -> bool:
    return sum(join.steps.count("receive") for join in plan.joins) > 1


def _restarts(plan: Plan) -> bool:
    return bool(plan.rounds) and min(plan.rounds) < len(plan.joins)


# Lines of the scripts.
HELD = "if claim and tonumber(redis.call('ZSCORE', DUE, member) or '0') >= at then return { 'held' } end\n"
UNDO = "  if not before or before == 't' then undo = end_late(n, p, timed_out and 't' or outcome, now) end\n"
UNDO_IN_TIME = (
    "  if not before then undo = end_late(n, p, timed_out and 't' or outcome, now) end\n"
    "  if before == 't' then redis.call('HSETNX', LATE, np, outcome) end_with_run(LATE) end\n"
)
REFILL = "  if f[5] and not f[4] then return enter_window(n, now) end\n"
ENTERS = "    if #part == 0 then break end\n"
LOOK = "look_at(RUN_ID, LOOK_TICKS)\n"
MADE = "if was[2] == ARGV[4] then"
EARLY = "if attempt ~= (f[3] or '1') then return { 'stale' } end\nif f[4] then return { 'early' } end\n"
READ = "if entry then return { cjson.decode(entry)['x'] == nonce and 'answered' or 'moved' } end\n"
DROPS_THE_REST = """    if end_part(n, p, outcome, nonce, now) then
      redis.call('LPOP', CHANNELS .. '/q/' .. name)
      return { 'answered' }
    end"""
SENT_BEFORE = "if last and tonumber(number) <= tonumber(last) then"
LIMIT, CLAIM = "local limit_ms", "local claim, now, limit_ms"

MUTATIONS = [
    Mutation(
        1,
        "a part is due",
        (("open_join", "    put(due, mine and tick() + LEASE_TICKS or look, part_id(n, p))\n", ""),),
        kinds=("lose",),
    ),
    Mutation(
        1,
        "the next turn is due",
        (("_join", "  look_at(RUN_ID, LOOK_TICKS)\n  event('join.decided'", "  event('join.decided'"),),
        kinds=("kill",),
    ),
    Mutation(1, "the first turn is due", (("submit", LOOK + LIMIT, LIMIT),), kinds=("lose",)),
    Mutation(1, "what is lost is sent again", python=(SimBacklog, "is_lost", lambda *_: False), kinds=("lose",)),
    Mutation(
        2,
        "a failure counts from the claimant alone",
        (("finish", "  if kind ~= 'done' and not mine then return { 'superseded', {}, {} } end\n", ""),),
        kinds=("pause", "stop"),
        more={"slow": 0.6},
        wants=_flaky,
        seeds=600,
    ),
    Mutation(
        2,
        "the first outcome stays",
        (
            (
                "finish",
                "  if before and not mine and (twin or before ~= 't') then return { 'recorded', {}, {} } end\n",
                "",
            ),
            ("finish", "  if f[2] or before then return too_late", "  if f[2] then return too_late"),
        ),
        kinds=("resend",),
        wants=_several,
    ),
    Mutation(
        2,
        "a late success is undone",
        (("finish", UNDO, ""),),
        wants=_races,
    ),
    Mutation(
        2,
        "what succeeds after its time was up is undone",
        (("finish", UNDO, UNDO_IN_TIME),),
        kinds=("pause",),
        wants=_times_out,
        seeds=200,
    ),
    Mutation(
        1,
        "the end of an item files the next",
        (("_join", REFILL, ""),),
        wants=_batch,
    ),
    Mutation(
        1,
        "what enters as another begins is due",
        (("begin", ENTERS, ENTERS + "    redis.call('ZREM', DUE, part_id(n, part[1]))\n"),),
        kinds=("lose", "kill"),
        wants=_uniform,
        seeds=200,
    ),
    Mutation(
        8,
        "what has yet to begin is stopped with its siblings",
        (("_join", "  stop_outside(n)\n", ""),),
        wants=lambda plan: _uniform(plan) and _fails_fast(plan),
        seeds=200,
    ),
    Mutation(
        3,
        "an attempt has a message of its own",
        (("begin", EARLY, ""),),
        kinds=("repeat", "late"),
        wants=_flaky,
    ),
    Mutation(
        4,
        "a live claim is held",
        (
            (
                "begin",
                HELD,
                "",
            ),
        ),
        kinds=("repeat", "late"),
    ),
    Mutation(
        4,
        "a heartbeat renews a claim",
        (("vouch", "    look_at(part_id(ARGV[i], ARGV[i + 1]), LEASE_TICKS)\n", ""),),
        kinds=("reorder",),
        seeds=200,
    ),
    Mutation(
        4,
        "a claim that nobody vouches for is over",
        (("repair", "then return { 'claimed', f[1] } end", "then return { 'none' } end"),),
        kinds=("kill",),
    ),
    Mutation(
        5,
        "begin knows its token",
        (("begin", "if claim and claim.token == token then", "if false then"),),
        kinds=("resend",),
    ),
    Mutation(
        5,
        "cancel knows its token",
        (("cancel", "if f[3] == ARGV[3] then", "if false then"),),
        kinds=("resend",),
        wants=_cancelled,
    ),
    Mutation(5, "submit knows its token", (("submit", MADE, "if false then"),), kinds=("resend",)),
    Mutation(
        5,
        "finish knows its token",
        (
            (
                "finish",
                "  if f[3] == token and kind ~= 'done' and not mine then return { 'retrying', {}, {} } end\n",
                "",
            ),
        ),
        kinds=("resend",),
        wants=_flaky,
    ),
    Mutation(
        5,
        "open_join knows its nonce",
        (("open_join", "if open[1] == nonce then\n    local dead", "if open[1] == '' then\n    local dead"),),
        kinds=("resend",),
    ),
    Mutation(
        6,
        "an error while recording is no outcome",
        python=(Engine, "patiently", lambda _engine, write: write()),
        kinds=("cut",),
        seeds=200,
    ),
    Mutation(
        7,
        "a turn opens what follows the journal that it has read",
        (
            ("open_join", READ, ""),
            ("open_join", "if not is_read(state[2], state[8], ARGV[2]) then return { 'moved' } end\n", ""),
        ),
        kinds=("preempt", "repeat", "late"),
        more={"preempt": 0.5, "repeat": 0.8, "late": 0.5},
        wants=lambda plan: plan.joins[0].kind == "sleep" and not plan.rounds and not plan.receives,
    ),
    Mutation(
        7,
        "an undo is in the saga's log before its action begins",
        python=(Run, "write_ahead", lambda _run: None),
        wants=_undoes,
    ),
    Mutation(
        8,
        "the first failure decides",
        (
            (
                "_join",
                "    if not good then return 'failed', p end\n    if ok == size",
                "    if not good and ok + bad == size then return 'failed', p end\n    if ok == size",
            ),
        ),
        wants=_fails_fast,
    ),
    Mutation(
        8,
        "a decided join counts nothing more",
        (("finish", "  if f[2] or before then return too_late", "  if before then return too_late"),),
        wants=_fails_fast,
        seeds=200,
    ),
    Mutation(
        9,
        "undos of a cancelled run begin",
        (("begin", CLAIM, "if redis.call('HGET', RUN, 'kill') then return { 'gone' } end\n" + CLAIM),),
        wants=lambda plan: _cancelled(plan) and _undoes(plan),
    ),
    Mutation(
        9,
        "parts of a decided join don't begin",
        (("begin", "if f[2] and not twin then return { 'decided' } end\n", ""),),
        kinds=("late", "reorder"),
        wants=_several,
        seeds=200,
    ),
    Mutation(
        9,
        "a rollback waits for what still runs",
        (
            (
                "open_join",
                "if ARGV[5] == 'settled' and tonumber(redis.call('HGET', RUN, 'loose') or '0') == 0 then",
                "if ARGV[5] == 'settled' then",
            ),
        ),
        wants=_undoes,
        seeds=200,
    ),
    Mutation(
        3,
        "each life of a join has messages of its own",
        (("begin", "if f[1] ~= nonce or not f[5] then", "if not f[5] then"),),
        kinds=("rollback", "late", "repeat"),
        more={"rollbacks_ms": tuple((at, 300) for at in range(100, 3000, 400))},
        wants=_several,
        seeds=200,
    ),
    Mutation(
        10,
        "nothing is granted for a while",
        (("meet", "redis.call('SET', KEYS[3], tonumber(redis.call('GET', KEYS[2]) or '0') + GRACE_TICKS)\n", ""),),
        kinds=("rollback", "repeat"),
        more={"slow": 0.9},
        seeds=200,
    ),
    Mutation(
        10,
        "workers say anew what they run",
        python=(Heartbeat, "_reassert", lambda *_: None),
        kinds=("rollback",),
        more={"slow": 0.9},
    ),
    Mutation(
        4,
        "what is written ahead waits for what the turn has gone on with",
        python=(opening, "caught_up", lambda *_: True),
        wants=_undoes_later,
    ),
    Mutation(
        1,
        "who is granted parts vouches for them before it does anything else",
        python=(opening, "Series", HoldsLate),
        kinds=("preempt", "rollback"),
        more={"preempt": 0.9, "rollbacks_ms": tuple((at, 200) for at in range(2500, 9000, 3000))},
        wants=lambda plan: plan.joins[0].kind in {"race", "quorum"},
        seeds=300,
    ),
    Mutation(
        1,
        "who fails gives back what it has not begun",
        python=(Series, "_given_back", lambda _: []),
        wants=_fails_fast,
        seeds=200,
    ),
    Mutation(
        1,
        "while a turn has its lease no other begins",
        (("read", "if at == here and token ~= ARGV[2] and tonumber(good) > tick() then return { 'busy' } end", ""),),
        kinds=("repeat", "preempt"),
        more={"repeat": 0.9, "preempt": 0.5},
        seeds=300,
    ),
    Mutation(
        10,
        "nothing is granted in place for a while",
        (("open_join", " and redis.call('EXISTS', GRACE) == 0", ""),),
        kinds=("rollback",),
        more={"slow": 0.9},
        seeds=300,
    ),
    Mutation(
        2,
        "a message is received once",
        (("open_join", "redis.call('LPOP', unread)", "redis.call('LINDEX', unread, 0)"),),
        wants=_receives,
    ),
    Mutation(
        2,
        "a receive that lost has received nothing",
        (("open_join", "    if end_part(n, p, outcome, nonce, now) then return { 'answered' } end", DROPS_THE_REST),),
        wants=_receives,
        seeds=200,
    ),
    Mutation(
        2,
        "a message is given to the part that has waited longest",
        (("send", "'^(%d+),?(.*)$')", "'(%d+)$'), ''"),),
        wants=_receives,
        seeds=200,
    ),
    Mutation(3, "each round has awaits of its own", (("restart", "'first', ARGV[4]", "'first', 0"),), wants=_restarts),
    Mutation(5, "send knows its token", (("send", SENT_BEFORE, "if false then"),), kinds=("resend",), wants=_receives),
    Mutation(
        5,
        "restart knows its token",
        (("restart", "if f[4] == ARGV[2] then", "if false then"),),
        kinds=("resend",),
        wants=_restarts,
    ),
]
