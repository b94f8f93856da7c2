-- A parent knows how this child ended, or waits for it no more.
--
-- ARGV[1] the message id of the parent's part
--
-- Answers how many parents are still to be told.
local f = redis.call('HMGET', RUN, 'tells', 'state', 'retention_ms', 'finished_ms')
local left = {}
for parent in string.gmatch(f[1] or '', '%S+') do
  if parent ~= ARGV[1] then left[#left + 1] = parent end
end
if not f[1] or #left > 0 then
  if f[1] then redis.call('HSET', RUN, 'tells', table.concat(left, ' ')) end
  return #left
end
redis.call('HDEL', RUN, 'tells')
redis.call('ZREM', DUE, part_id('tell', ''))
if FINAL[f[2]] then
  local left_ms = tonumber(f[4]) + tonumber(f[3]) - now_ms()
  redis.call('PEXPIRE', RUN, int(math.max(left_ms, 1)))
end
return 0
