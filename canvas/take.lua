-- Take celeriac's own messages from the first queue that has any message, oldest first.
--
-- KEYS      the lists of the queues, in the order in which they are looked at
-- ARGV[1]   how many at most
--
-- Answers {list, message, ...}, or nil: there is none, or the first is not ours. Then BRPOP waits for it, or takes
-- it alone, so that its note in `unacked` follows at once: nobody else knows of it.
for _, list in ipairs(KEYS) do
  local tail = redis.call('LRANGE', list, -ARGV[1], -1)
  if #tail > 0 then
    local ours = 0
    for i = #tail, 1, -1 do
      -- A key of the headers: within a string of the message its quotes would be escaped.
      if not string.find(tail[i], '"celeriac_published_ms":', 1, true) then break end
      ours = ours + 1
    end
    if ours == 0 then return nil end
    local taken = redis.call('RPOP', list, ours)
    table.insert(taken, 1, list)
    return taken
  end
end
return nil
