-- Take a shard's clock of liveness one step on and name what is due.
--
-- KEYS[1] lease   who sweeps this shard   KEYS[2] tick   KEYS[3] due   KEYS[4] raised: lives 900 ms
-- ARGV[1] who asks   ARGV[2] lease, ms    ARGV[3] how many members at most
--
-- Answers {0} if another worker sweeps it, else {1, member, ...}. Members are `run` or `run/n.p`.
-- A tick is raised at most once in 900 ms of this server's TIME, however often it is asked.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return { 0 } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('SET', KEYS[4], 1, 'NX', 'PX', 900) then redis.call('INCR', KEYS[2]) end
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. (redis.call('GET', KEYS[2]) or '0'), 'LIMIT', 0, ARGV[3])
table.insert(due, 1, 1)
return due
