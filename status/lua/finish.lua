-- Record what came of an attempt and, if that decides its join, the decision.
--
-- ARGV[1] n   ARGV[2] p   ARGV[3] nonce   ARGV[4] attempt   ARGV[5] token of this delivery
-- ARGV[6] kind: done|failed|retry        ARGV[7] outcome (see _run.lua)
-- ARGV[8] delay of the retry, ms         ARGV[9] when it began, ms
-- ARGV[10] a line about an error, for the events   ARGV[11] 1: with `decided`, give run and journal, for the turn
--
-- Answers {recorded, [], start}: it counts; the run goes on
--         {decided, stop, start, run, journal}: ... and decided the join: take the run's next turn
--         {retrying}: the attempt failed, its retry is on the timers
--         {late, [], undo}: the join was decided before; `undo` is owed now, if not empty
--         {superseded}: a failure of somebody who no longer holds the claim; dropped
--         {gone}: the run, the join or this life of it is not there
-- `stop` lists claims (see loose_claims), `start` and `undo` a part to publish (see start_part).
local n, p, nonce, attempt, token, kind, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local join, np, now = JOINS .. n, ARGV[1] .. '.' .. ARGV[2], now_ms()
if redis.call('EXISTS', RUN) == 0 then return { 'gone', {}, {} } end

local function finish()
  local entry = redis.call('HGET', JOURNAL, n)
  if entry and cjson.decode(entry)['by'] == token then return { 'decided', loose_claims(n), {} } end
  local f = redis.call('HMGET', join, 'nonce', 'decided', 't' .. p, 'o' .. p)
  if f[1] ~= nonce then return { 'gone', {}, {} } end
  if f[4] == token then return { 'recorded', {}, {} } end
  if f[3] == token then return { 'retrying', {}, {} } end

  local claim = claim_of(join, p)
  local mine = claim and claim.token == token
  if kind ~= 'done' and not mine then return { 'superseded', {}, {} } end
  local ended = redis.call('HEXISTS', JOURNAL, np) == 1 or redis.call('HEXISTS', LATE, np) == 1
  local twin = string.sub(p, -1) == 'u'

  local function undone()
    redis.call('HSETNX', LATE, np, outcome)
    end_with_run(LATE)
    let_go(n, p, nonce)
    step_is(n, p, kind, attempt, ARGV[9], int(now))
    event(kind == 'done' and 'saga.undone' or 'saga.undo_failed', step_name(n, p), ARGV[10])
    if tighten(n, token, now) then return { 'decided', {}, {} } end
    return { 'recorded', {}, {} }
  end

  local function too_late()
    local undo = {}
    if mine then let_go(n, p, nonce) end
    if not ended then undo = end_late(n, p, outcome, now) end
    if redis.call('HGET', JOURNAL, np) == 't' then redis.call('HSETNX', LATE, np, outcome) end
    step_is(n, p, kind == 'done' and 'done' or 'stopped', attempt, ARGV[9], int(now))
    event(kind == 'done' and 'step.done' or 'step.stopped', step_name(n, p), 'late')
    if mine and tighten(n, token, now) then return { 'decided', {}, undo } end
    return { 'late', {}, undo }
  end

  if kind == 'retry' and (twin or not (f[2] or ended)) then
    retry_part(n, p, nonce, attempt, token, tonumber(ARGV[8]), ARGV[10], now, ARGV[9])
    return { 'retrying', {}, {} }
  end
  if twin then return ended and { 'recorded', {}, {} } or undone() end
  if f[2] or ended then return too_late() end
  if mine then let_go(n, p, nonce) elseif claim then loosen(n, 1) end
  redis.call('HSET', join, 'o' .. p, token)
  step_is(n, p, kind, attempt, ARGV[9], int(now))
  event('step.' .. kind, step_name(n, p), ARGV[10])
  local decided, stop = end_part(n, p, outcome, token, now)
  if decided then return { 'decided', stop, {} } end
  return { 'recorded', {}, kind == 'failed' and start_next(n, now) or {} }
end

local answer = finish()
if answer[1] == 'decided' and ARGV[11] == '1' then
  answer[4], answer[5] = redis.call('HGETALL', RUN), redis.call('HGETALL', JOURNAL)
end
return answer
