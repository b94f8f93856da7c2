-- A timer is due: do what it is for, once.
--
-- ARGV[1] kind   ARGV[2] n   ARGV[3] p   ARGV[4] nonce   ('' where the kind has none)   ARGV[5] token
--   start, retry  a delayed part or the next attempt of one may start
--   sleep         a part that only waits is done
--   within        a part has had its time, queue and retries included
--   attempt       one attempt has had its time
--   join, run     an await, or the whole run, has had its time
--
-- Answers {none}: it is not there any more, or not due yet
--         {start, [], part}: publish `part` (see start_part)
--         {recorded, stop, start} and {decided, stop, start}: as finish does; decided owes a turn
local kind, n, p, nonce, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local member = kind .. '|' .. RUN_ID .. '|' .. n .. '|' .. p .. '|' .. nonce
local now, at = now_ms(), redis.call('ZSCORE', TIMERS, member)
if not at or tonumber(at) > now then return { 'none', {}, {} } end
redis.call('ZREM', TIMERS, member)
local state = redis.call('HGET', RUN, 'state')
local twin = string.sub(p, -1) == 'u'
if not state or (FINAL[state] and not twin) then return { 'none', {}, {} } end
local join = JOINS .. n

if kind == 'run' then
  -- It stays until the cancel that it asks for is recorded: whoever asks may die before that.
  redis.call('ZADD', TIMERS, int(now + 1000), member)
  return { 'expired', {}, {} }
end
local f = redis.call('HMGET', join, 'nonce', 'decided', 'b' .. p, 'x' .. p, 'a' .. p)
if f[1] ~= nonce or (f[2] and not twin) then return { 'none', {}, {} } end

local function answer(decided, stop)
  return { decided and 'decided' or 'recorded', stop, decided and {} or start_next(n, now) }
end

-- The part has had its time; a claim on it outlives it until its process lets go.
local function time_out()
  local claim, stop = claim_of(join, p), {}
  if claim then
    loosen(n, 1)
    stop = { p, claim.token, claim.where, claim.interruptible }
    stop_child(n, p, claim.where)
  else
    redis.call('ZREM', DUE, part_id(n, p))
    -- It is not running now, but an attempt that died, or timed out, may have had its effect. The sweep sends the undo.
    local was = redis.call('HMGET', join, 'l' .. p, 'z' .. p)
    if was[1] or was[2] == 't' then end_late(n, p, was[1] and 'u' or 't', now) end
  end
  step_is(n, p, 'failed', f[5] or '1', began_at(n, p), int(now))
  event('step.failed', step_name(n, p), 'timed out')
  local decided, all = end_part(n, p, 't', token, now)
  return answer(decided, #all > 0 and all or stop)
end

if kind == 'start' or kind == 'retry' then
  if not f[3] then return { 'none', {}, {} } end
  if redis.call('HEXISTS', join, 'c' .. p) == 1 then -- the attempt before, see let_next
    redis.call('HDEL', join, 'b' .. p)
    return { 'none', {}, {} }
  end
  return { 'start', {}, start_part(n, p, now) }
elseif kind == 'join' then
  event('timer.fired', n)
  return { 'decided', decide(n, 'timed_out', '', token, now), {} }
elseif has_ended(n, p) then
  return { 'none', {}, {} }
elseif kind == 'sleep' then
  event('timer.fired', n)
  step_is(n, p, 'done', '1', '', int(now))
  return answer(end_part(n, p, 'vnull', token, now))
elseif kind == 'within' then
  return time_out()
end
-- attempt: only if the claim that it was set for still stands.
local claim, limit_token, delay_ms = claim_of(join, p), string.match(f[4] or '', '^([^|]*)|(.*)$')
if not claim or claim.token ~= limit_token then return { 'none', {}, {} } end
if tonumber(delay_ms) < 0 then
  if not twin then return time_out() end
  redis.call('HSETNX', LATE, n .. '.' .. p, 't')
  end_with_run(LATE)
  let_go(n, p, nonce)
  step_is(n, p, 'failed', f[5] or '1', began_at(n, p), int(now))
  event('saga.undo_failed', step_name(n, p), 'timed out')
  local stop = { p, claim.token, claim.where, claim.interruptible }
  return { tighten(n, token, now) and 'decided' or 'recorded', stop, {} }
end
retry_part(n, p, nonce, f[5] or '1', claim.token, tonumber(delay_ms), 'timed out', now, '', 't')
return { 'recorded', { p, claim.token, claim.where, claim.interruptible }, {} }
