-- Nothing that a run owed is left to undo: it ends as it would have ended, had its rollback gone through at once.
--
-- ARGV[1] the state in which it was read   ARGV[2] the one it gets   ARGV[3] its error (JSON)
--
-- Answers {gone}: it is not there; {ends, state}: what it is now. The same again changes nothing.
local f = redis.call('HMGET', RUN, 'state')
if not f[1] then return { 'gone' } end
if f[1] ~= ARGV[1] or not FINAL[f[1]] or ARGV[2] == f[1] then return { 'ends', f[1] } end
local until_ms = redis.call('ZSCORE', ENDED, f[1] .. '|' .. RUN_ID)
redis.call('HSET', RUN, 'error', ARGV[3])
set_state(f[1], ARGV[2], now_ms())
if until_ms then
  redis.call('ZREM', ENDED, f[1] .. '|' .. RUN_ID)
  redis.call('ZADD', ENDED, until_ms, ARGV[2] .. '|' .. RUN_ID)
end
event('run.' .. ARGV[2], '', ARGV[3])
end_with_run(EVENTS)
return { 'ends', ARGV[2] }
