-- Take a shard's clock of liveness one step on and name what is due.
--
-- KEYS[1] lease   who sweeps this shard   KEYS[2] tick   KEYS[3] due   KEYS[4] raised: lives 900 ms
-- KEYS[5] grace   KEYS[6] running: both are there after a restart of Redis only, see _run.lua
-- ARGV[1] who asks   ARGV[2] lease, ms    ARGV[3] how many members at most
--
-- Answers {0} if another worker sweeps it, else {1, member, ...}. Members are `run` or `run/n.p`.
-- A tick is raised at most once in 900 ms of this server's TIME, however often it is asked.
local RAISED_MS = 900
-- One that would last longer than it was ever given is from before the server's clock was put back.
local function lasts(key, at_most_ms)
  local left_ms = redis.call('PTTL', key)
  return left_ms >= 0 and left_ms <= at_most_ms
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] and lasts(KEYS[1], tonumber(ARGV[2])) then return { 0 } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if not lasts(KEYS[4], RAISED_MS) then
  redis.call('SET', KEYS[4], 1, 'PX', RAISED_MS)
  redis.call('INCR', KEYS[2])
end
local at = redis.call('GET', KEYS[2]) or '0'
local grace = redis.call('GET', KEYS[5])
if grace and tonumber(at) >= tonumber(grace) then
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', '(' .. at)
  if redis.call('EXISTS', KEYS[6]) == 0 then redis.call('DEL', KEYS[5]) end
end
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. at, 'LIMIT', 0, ARGV[3])
table.insert(due, 1, 1)
return due
