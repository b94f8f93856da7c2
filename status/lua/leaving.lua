-- Claims whose worker was told to stop: if it is killed before they end, that was no fault of theirs.
--
-- ARGV: for each claim n, p, token
--
-- Answers how many of them still stand.
local held = 0
for i = 1, #ARGV, 3 do
  local claim = claim_of(JOINS .. ARGV[i], ARGV[i + 1])
  if claim and claim.token == ARGV[i + 2] then
    redis.call('HSET', JOINS .. ARGV[i], 'y' .. ARGV[i + 1], claim.token)
    held = held + 1
  end
end
return held
