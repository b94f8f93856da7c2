-- Record what came of an attempt and, if that decides its join, the decision.
--
-- ARGV[1] n   ARGV[2] p   ARGV[3] nonce   ARGV[4] attempt   ARGV[5] token of this delivery
-- ARGV[6] kind: done|failed|retry        ARGV[7] outcome (see _run.lua)
-- ARGV[8] delay of the retry, ms         ARGV[9] when it began, ms
-- ARGV[10] a line about an error, for the events   ARGV[11] 1: with `decided`, give run and journal, for the turn
-- ARGV[12] the step's name, for the events
--
-- Answers {recorded, [], start}: it counts; the run goes on
--         {decided, stop, start, run, journal}: ... and decided the join: take the run's next turn
--         {retrying, [], start}: the attempt failed, its retry is on the timers, or is to be published
--         {late, [], undo}: the join was decided before; `undo` is owed now, if not empty
--         {superseded}: a failure of somebody who no longer holds the claim; dropped
--         {gone}: the run, the join or this life of it is not there
-- `stop` lists claims (see loose_claims), `start` and `undo` a part to publish (see start_part).
local n, p, nonce, attempt, token, kind, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local join, np, now = JOINS .. n, ARGV[1] .. '.' .. ARGV[2], now_ms()
local twin = string.sub(p, -1) == 'u'

-- The undo of an action that had succeeded too late is over.
local function undone()
  redis.call('HSETNX', LATE, np, outcome)
  end_with_run(LATE)
  let_go(n, p, nonce)
  step_is(n, p, kind, attempt, ARGV[9], int(now))
  event(kind == 'done' and 'saga.undone' or 'saga.undo_failed', ARGV[12], ARGV[10])
  return { tighten(n, token, now) and 'decided' or 'recorded', {}, {} }
end

-- Nobody waits for this any more; a saga may want to know of it.
local function too_late(before, mine)
  local undo = {}
  -- An attempt of it that timed out may have had its effect, whatever it said in the end.
  local timed_out = kind ~= 'done' and redis.call('HGET', join, 'z' .. p) == 't'
  if not before then undo = end_late(n, p, timed_out and 't' or outcome, now) end
  if mine then let_go(n, p, nonce) end
  if before == 't' then
    redis.call('HSETNX', LATE, np, outcome)
    end_with_run(LATE)
  end
  -- Another process of this part has succeeded already: then that is what happened.
  if string.sub(before or '', 1, 1) ~= 'v' then
    step_is(n, p, kind == 'done' and 'done' or 'stopped', attempt, ARGV[9], int(now))
    event(kind == 'done' and 'step.done' or 'step.stopped', ARGV[12], 'late')
  end
  return { mine and tighten(n, token, now) and 'decided' or 'late', {}, undo }
end

local function finish()
  if redis.call('EXISTS', RUN) == 0 then return { 'gone', {}, {} } end
  local entry, before = unpack(redis.call('HMGET', JOURNAL, n, np))
  if entry and cjson.decode(entry)['by'] == token then return { 'decided', loose_claims(n), {} } end
  local f = redis.call('HMGET', join, 'nonce', 'decided', 't' .. p, 'c' .. p, 'x' .. p, 's' .. p)
  if f[1] ~= nonce then return { 'gone', {}, {} } end
  local claim = parse_claim(f[4])
  local mine = claim and claim.token == token
  -- A success counts even so: its attempt had timed out, but it did what was asked for.
  if f[3] == token and kind ~= 'done' and not mine then return { 'retrying', {}, {} } end
  if f[2] and not before then before = redis.call('HGET', LATE, np) end
  if not f[6] then before = before or 'v' end -- of a batch, which forgets the parts that have ended
  -- Said before: by this delivery, whose answer was lost, or by another that was as good.
  -- (An action that had timed out may still succeed; an undo that has is over.)
  if before and not mine and (twin or before ~= 't') then return { 'recorded', {}, {} } end
  if kind ~= 'done' and not mine then return { 'superseded', {}, {} } end

  if f[3] == token and kind ~= 'done' and not before and (twin or not f[2]) then
    return { 'retrying', {}, let_next(n, p, nonce, now) }
  end
  if kind == 'retry' and not before and (twin or not f[2]) then
    retry_part(n, p, nonce, attempt, token, tonumber(ARGV[8]), ARGV[10], now, ARGV[9], 'e')
    return { 'retrying', {}, {} }
  end
  if twin then return undone() end
  if f[2] or before then return too_late(before, mine) end
  if f[5] then drop_timer('attempt', n, p, nonce) end
  if mine then
    redis.call('HDEL', join, 'c' .. p, 'x' .. p)
    redis.call('ZREM', DUE, part_id(n, p))
  elseif claim then
    loosen(n, 1)
  else
    redis.call('ZREM', DUE, part_id(n, p))
  end
  step_is(n, p, kind, attempt, ARGV[9], int(now))
  event('step.' .. kind, ARGV[12], ARGV[10])
  local decided, stop, makes_room = end_part(n, p, outcome, token, now)
  if decided then return { 'decided', stop, {} } end
  return { 'recorded', {}, makes_room and start_next(n, now) or {} }
end

local answer = finish()
if answer[1] == 'decided' and ARGV[11] == '1' then
  answer[4], answer[5] = redis.call('HGETALL', RUN), redis.call('HGETALL', JOURNAL)
end
return answer
