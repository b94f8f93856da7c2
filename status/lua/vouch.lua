-- A worker vouches for the claims it holds: each is good for another lease.
--
-- ARGV: for each claim n, p, token
--
-- Answers how many of them it still holds.
local held = 0
for i = 1, #ARGV, 3 do
  local claim = claim_of(JOINS .. ARGV[i], ARGV[i + 1])
  if claim and claim.token == ARGV[i + 2] then
    look_at(part_id(ARGV[i], ARGV[i + 1]), LEASE_TICKS)
    held = held + 1
  end
end
return held
