-- Take the oldest messages of a queue, if they are turns that were never sent before and nothing else waits.
--
-- KEYS      the lists of the queue by their priority, then those of the other queues that the worker serves
-- ARGV[1]   how many lists the queue has
-- ARGV[2]   how many messages at most; of a list never more than half, for others take from it too
--
-- Answers {list, message, ...}, the oldest first, or nil: the first message is none of these, or another queue has one. Those
-- are for the worker, which takes from all of its queues in turn.
local own = tonumber(ARGV[1])
for i = own + 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return nil end
end
for i = 1, own do
  local there = redis.call('LLEN', KEYS[i])
  if there > 0 then
    local tail, taken = redis.call('LRANGE', KEYS[i], -math.min(ARGV[2], math.ceil(there / 2)), -1), { KEYS[i] }
    for at = #tail, 1, -1 do
      -- A key of the headers: within a string of the message its quotes would be escaped.
      if not string.find(tail[at], '"celeriac_turn":', 1, true) then break end
      taken[#taken + 1] = tail[at]
    end
    if #taken == 1 then return nil end
    redis.call('RPOP', KEYS[i], #taken - 1)
    return taken
  end
end
return nil
