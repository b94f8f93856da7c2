-- A worker vouches for the claims it holds, and for turns that its processes have: each is good for another lease.
--
-- ARGV: for each claim n, p, token; of a turn's lease p is `turn`
--
-- Answers how many of them it still holds.
local held = 0
for i = 1, #ARGV, 3 do
  local claim
  if ARGV[i + 1] == 'turn' then
    if prolong(ARGV[i + 2], LEASE_TICKS, LEASE_TICKS) then held = held + 1 end
  else
    claim = claim_of(JOINS .. ARGV[i], ARGV[i + 1])
  end
  if claim and claim.token == ARGV[i + 2] then
    look_at(part_id(ARGV[i], ARGV[i + 1]), LEASE_TICKS)
    held = held + 1
  end
end
return held
