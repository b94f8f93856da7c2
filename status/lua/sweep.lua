-- Take a shard's clock of liveness one step on and name what is due.
--
-- KEYS[1] lease   who sweeps this shard   KEYS[2] tick   KEYS[3] due   KEYS[4] raised: lives 900 ms
-- KEYS[5] grace   KEYS[6] running: both are there after a restart of Redis only, see _run.lua
-- ARGV[1] who asks   ARGV[2] lease, ms    ARGV[3] how many members at most
--
-- Answers {0} if another worker sweeps it, else {1, member, ...}. Members are `run` or `run/n.p`.
-- A tick is raised at most once in 900 ms of this server's TIME, however often it is asked.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return { 0 } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('SET', KEYS[4], 1, 'NX', 'PX', 900) then redis.call('INCR', KEYS[2]) end
local at = redis.call('GET', KEYS[2]) or '0'
local grace = redis.call('GET', KEYS[5])
if grace and tonumber(at) >= tonumber(grace) then
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', '(' .. at)
  if redis.call('EXISTS', KEYS[6]) == 0 then redis.call('DEL', KEYS[5]) end
end
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. at, 'LIMIT', 0, ARGV[3])
table.insert(due, 1, 1)
return due
