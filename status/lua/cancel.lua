-- Cancel a run, once: the open await, or else the next one, is decided as cancelled.
--
-- ARGV[1] reason   ARGV[2] code: 409 cancelled, 408 its time is up   ARGV[3] token
-- ARGV[4] '', or of a child that its parent stops: the message id of the parent's part
-- ARGV[5] how long a child that is not there yet is remembered as stopped, ms   ARGV[6] the operator who asks, or ''
--
-- Answers {late, state}: it has ended
--         {decided, stop}: the open await is; take the run's next turn, stop these claims
--         {noted}: nothing is open; the next await is answered so
--         {stopped}: the child is not there: if it comes, it is not started
--         {foreign}: the child was there before this parent, and goes on; or has ended, and owes this parent no news
local f = redis.call('HMGET', RUN, 'state', 'open', 'kill', 'killed', 'parent', 'parent_kill', 'tells')
local parent = ARGV[4]
if not f[1] then
  if parent == '' then return { 'gone' } end
  redis.call('HSET', RUN, 'stopped', parent)
  redis.call('PEXPIRE', RUN, ARGV[5])
  return { 'stopped' }
end
if FINAL[f[1]] then
  local tells = string.find(' ' .. (f[7] or '') .. ' ', ' ' .. parent .. ' ', 1, true)
  if parent ~= '' and not tells then return { 'foreign' } end
  return { 'late', f[1] }
end
if parent ~= '' and f[5] ~= string.match(parent, '^[^~]*') then return { 'foreign' } end
if parent ~= '' and f[6] == parent then return { 'noted' } end
if parent ~= '' then redis.call('HSET', RUN, 'parent_kill', parent) end
if f[3] == ARGV[3] then
  if f[4] == '' then return { 'noted' } end
  return { 'decided', loose_claims(f[4]) }
end
local now = now_ms()
local reason = ARGV[2] .. '|' .. ARGV[1]
redis.call('HSET', RUN, 'kill', ARGV[3], 'killed', '')
redis.call('HINCRBY', RUN, 'cancels', 1)
if f[1] ~= 'compensating' then set_state(f[1], 'cancelling', now) end
if ARGV[2] == '408' then
  drop_timer('run', '', '', '')
  event('timer.fired', 'deadline')
end
if ARGV[6] and ARGV[6] ~= '' then event('operator.cancel', '', cjson.encode({ by = ARGV[6], reason = ARGV[1] })) end
event('run.cancelling', '', ARGV[1])
local open = f[2]
if open ~= '' then
  local kind = redis.call('HMGET', JOINS .. open, 'policy', 'undo')
  if kind[1] ~= 'settled' and kind[2] ~= '1' then
    redis.call('HSET', RUN, 'killed', open)
    return { 'decided', decide(open, 'cancelled', reason, ARGV[3], now) }
  end
end
redis.call('HSET', RUN, 'cancel', reason)
return { 'noted' }
