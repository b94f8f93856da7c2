-- A worker asks to run one attempt of a part: at most one of them holds the claim.
--
-- ARGV[1] n   ARGV[2] p   ARGV[3] nonce   ARGV[4] attempt   ARGV[5] token of this delivery
-- ARGV[6] where: the worker's node name        ARGV[7] 1 if it may be terminated
-- ARGV[8] time limit of the attempt, ms or 0   ARGV[9] delay of the retry after it, ms, or -1: none
-- ARGV[10] the step's name, for the events     ARGV[11] of a wide join: how many more parts may start, or 0
--
-- Answers {granted, now in ms, deadline in ms or 0, part, ...}: publish those parts (see start_part); or why not: {gone}
-- (run, join or nonce), {ended} (the part has an outcome), {decided} (the join has), {stale} (an older attempt), {early}
-- (its retry is not due), {held} (a live claim of another delivery), {grace} (Redis was restarted: ask again, with the
-- same token).
local n, p, nonce, attempt, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local join, np, member = JOINS .. n, n .. '.' .. p, part_id(n, p)
local twin = string.sub(p, -1) == 'u'
local state = redis.call('HGET', RUN, 'state')
if not state or (FINAL[state] and not twin) then return { 'gone' } end
local f = redis.call('HMGET', join, 'nonce', 'decided', 'a' .. p, 'b' .. p, 's' .. p, 'c' .. p, 'keep')
if f[1] ~= nonce or not f[5] then return { 'gone' } end
local claim, now, limit_ms = parse_claim(f[6]), now_ms(), tonumber(ARGV[8])

-- A part of a wide join begins where its step may be long: so many more enter the window, that whoever is idle finds one.
-- Returns them (see start_part). Which they are is on record until part p ends, for the reply may be lost.
local function widen(by)
  local entered, which = {}, {}
  for _ = 1, by do
    local part = enter_window(n, now)
    if #part == 0 then break end
    entered[#entered + 1], which[#which + 1] = part, part[1]
  end
  if #which > 0 then redis.call('HSET', join, 'e' .. p, table.concat(which, ',')) end
  return entered
end

-- What it gave before, as far as nobody has begun it.
local function widened()
  local entered = {}
  for q in string.gmatch(redis.call('HGET', join, 'e' .. p) or '', '%d+') do
    local s = redis.call('HMGET', join, 's' .. q, 'c' .. q, 'b' .. q)
    if s[1] and not s[2] and not s[3] then entered[#entered + 1] = start_part(n, q, now) end
  end
  return entered
end

if claim and claim.token == token then
  local ends = redis.call('ZSCORE', TIMERS, timer_id('attempt', n, p, nonce))
  return { 'granted', int(now), ends or '0', unpack(widened()) }
end
if redis.call('HEXISTS', JOURNAL, np) == 1 then return { 'ended' } end
if f[2] and not twin then return { 'decided' } end
if twin and redis.call('HEXISTS', LATE, np) == 1 then return { 'ended' } end
if attempt ~= (f[3] or '1') then return { 'stale' } end
if f[4] then return { 'early' } end
local ticks = redis.call('MGET', TICK, GRACE)
local at = tonumber(ticks[1] or '0')
-- Dead, if not held. A step that must not run twice is left to the sweep, which gives it up.
if claim and tonumber(redis.call('ZSCORE', DUE, member) or '0') >= at then return { 'held' } end
if claim and not twin and cjson.decode(f[5])['once'] then return { 'held' } end
if ticks[2] then
  local still = at < tonumber(ticks[2])
  local running = redis.call('ZSCORE', RUNNING, member)
  if still or (running and tonumber(running) >= at) then
    -- Its message is in hand, or this refusal ends it: the sweep need not look sooner, and must not look later.
    if not claim then redis.call('ZADD', DUE, still and ticks[2] + LOOK_TICKS or running + 1, member) end
    return { still and 'grace' or 'held' }
  end
end
if claim then lose_life(n, p, claim) end

local began_ms, ends_ms = claim_part(n, p, nonce, attempt, token, ARGV[6], ARGV[7], limit_ms, ARGV[9], ARGV[10], now)
local by = f[7] == 'wide' and not f[2] and tonumber(ARGV[11]) or 0
return { 'granted', began_ms, ends_ms, unpack(widen(by)) }
