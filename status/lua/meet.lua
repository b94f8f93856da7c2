-- A client meets a server: if it is another one than the shard was on, or the same one restarted, the shard's last
-- second may be lost, and for GRACE_TICKS nothing is granted.
--
-- KEYS[1] server   the run id of the server the shard was last met on   KEYS[2] tick   KEYS[3] grace
-- ARGV[1] the run id of the server that has answered
--
-- Answers 1 if a grace begins, 0 if the server is known or the shard is new.
local GRACE_TICKS = 5 -- one more than a lease: by then whoever lives has said what it runs
local was = redis.call('GET', KEYS[1])
if was == ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if not was then return 0 end
redis.call('SET', KEYS[3], tonumber(redis.call('GET', KEYS[2]) or '0') + GRACE_TICKS)
return 1
