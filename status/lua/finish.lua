-- Record what came of an attempt and, if that decides its join, the decision.
--
-- ARGV[1] n   ARGV[2] p   ARGV[3] nonce   ARGV[4] attempt   ARGV[5] token of this delivery
-- ARGV[6] kind: done|failed|retry        ARGV[7] outcome (see _run.lua)
-- ARGV[8] delay of the retry, ms         ARGV[9] when it began, ms
-- ARGV[10] a line about an error, for the events   ARGV[12] the step's name, for the events
-- ARGV[11] what `decided` gives for the turn: '' nothing, `all` run and journal, `all|` and the last entry that the caller
--          has (see journal_after), or the size of the join: the entry of await n and the outcomes of its parts, for a turn
--          that is where the journal ended before
-- ARGV[13] '', or `+`: this process runs the part of a batch next that gets the place of this one
-- ARGV[14] token of that claim    ARGV[15] where    ARGV[16] its time limit, ms or 0    ARGV[17] delay of the retry, ms or -1
-- ARGV[18] when it ended, ms, or '': now
--
-- Answers {recorded, [], start}: it counts; the run goes on
--         {decided, stop, start, run or [], journal, 1 or nothing}: ... and decided the join: take the run's next turn;
--         1: of the journal, what the caller does not have
--         {retrying, [], start}: the attempt failed, its retry is on the timers, or is to be published
--         {late, [], undo}: the join was decided before; `undo` is owed now, if not empty
--         {superseded}: a failure of somebody who no longer holds the claim; dropped
--         {gone}: the run, the join or this life of it is not there
-- Of recorded, the fourth is {now in ms, deadline in ms or 0} if the part in `start` is granted, and not to be published.
-- `stop` lists claims (see loose_claims), `start` and `undo` a part to publish (see start_part).
local n, p, nonce, attempt, token, kind, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local join, np, now = JOINS .. n, ARGV[1] .. '.' .. ARGV[2], tonumber(ARGV[18]) or now_ms()
local twin = string.sub(p, -1) == 'u'

-- The undo of an action that had succeeded too late is over.
local function undone()
  redis.call('HSETNX', LATE, np, outcome)
  end_with_run(LATE)
  let_go(n, p, nonce)
  step_is(n, p, kind, attempt, ARGV[9], int(now))
  local how = kind == 'done' and 'saga.undone' or 'saga.undo_failed'
  event(how, ARGV[12], ARGV[10])
  count_undo(how, ARGV[12])
  return { tighten(n, token, now) and 'decided' or 'recorded', {}, {} }
end

-- Nobody waits for this any more; a saga may want to know of it.
local function too_late(before, mine)
  local undo = {}
  -- An attempt of it that timed out may have had its effect, whatever it said in the end.
  local timed_out = kind ~= 'done' and redis.call('HGET', join, 'z' .. p) == 't'
  if not before or before == 't' then undo = end_late(n, p, timed_out and 't' or outcome, now) end
  if mine then let_go(n, p, nonce) end
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
  if (f[2] or twin) and not before then before = redis.call('HGET', LATE, np) end
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

-- The part of a batch that has just entered the window, or had when this was called before: this process runs it next.
local function grant_entered(start)
  if #start == 0 then
    for _, q in ipairs(parts_of(n)) do
      local claim = claim_of(join, q)
      if claim and claim.token == ARGV[14] then start = start_part(n, q, now) end
    end
  elseif start[2] ~= '1' or redis.call('EXISTS', GRACE) == 1 then
    return start
  end
  if #start == 0 then return start end
  local q, limit_ms = start[1], tonumber(ARGV[16])
  return start, { claim_part(n, q, nonce, '1', ARGV[14], ARGV[15], '0', limit_ms, ARGV[17], step_name(n, q), now) }
end

goes_on = string.sub(ARGV[11], 1, 3) == 'all'
local answer = finish()
if answer[1] == 'decided' and string.sub(ARGV[11], 1, 3) == 'all' then
  answer[4], answer[5], answer[6] = redis.call('HGETALL', RUN), journal_after(string.sub(ARGV[11], 5))
elseif answer[1] == 'decided' and ARGV[11] ~= '' then
  answer[4], answer[5] = {}, {}
  for p = -2, tonumber(ARGV[11]) - 1 do
    local field = p == -2 and n or (p == -1 and n .. ':order') or (n .. '.' .. p)
    local value = redis.call('HGET', JOURNAL, field)
    if value then
      answer[5][#answer[5] + 1] = field
      answer[5][#answer[5] + 1] = value
    end
  end
elseif ARGV[13] == '+' and answer[1] == 'recorded' and not redis.call('HGET', join, 'decided') then
  answer[3], answer[4] = grant_entered(answer[3])
end
return answer
