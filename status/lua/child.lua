-- What was owed to a child has reached it.
--
-- ARGV[1] n   ARGV[2] p   ARGV[3] token: the claim of the part that the child is
-- ARGV[4] what: submitted; stopped: it knows that it is to stop; sent: it is a stock canvas, which reports by itself
--
-- Answers 1; 0 if there is no such claim any more, and so nothing owed.
local n, p = ARGV[1], ARGV[2]
local claim = claim_of(JOINS .. n, p)
if ARGV[4] == 'stopped' then redis.call('ZREM', DUE, part_id(n, p .. 'c')) end
if not claim or claim.token ~= ARGV[3] then return 0 end
-- Looked at once an hour, no more: the child will tell. But its own shard may have been restored from a copy that
-- knows nothing of it.
if ARGV[4] == 'submitted' then look_at(part_id(n, p), 3600) end
if ARGV[4] == 'sent' then redis.call('ZREM', DUE, part_id(n, p)) end
return 1
