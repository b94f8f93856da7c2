-- Cancel a run, once: the open await, or else the next one, is decided as cancelled.
--
-- ARGV[1] reason   ARGV[2] code: 409 cancelled, 408 its time is up   ARGV[3] token
--
-- Answers {late, state}: it has ended
--         {decided, stop}: the open await is; take the run's next turn, stop these claims
--         {noted}: nothing is open; the next await is answered so
local f = redis.call('HMGET', RUN, 'state', 'open', 'kill', 'killed')
if not f[1] then return { 'gone' } end
if FINAL[f[1]] then return { 'late', f[1] } end
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
