-- Claims that a process was granted together with others, and gives back: it has not begun these parts.
--
-- ARGV: for each claim n, p, token
--
-- Answers {returned, [], []}: the parts that somebody still waits for are due, and are to be sent as messages;
--         {decided, [], []}: ... and one of them was the last that a settle had waited for: take the run's next turn.
local now, decided = now_ms(), false
for i = 1, #ARGV, 3 do
  local n, p, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local claim, f = claim_of(JOINS .. n, p), redis.call('HMGET', JOINS .. n, 'nonce', 'decided', 'a' .. p)
  if claim and claim.token == token then
    let_go(n, p, f[1])
    step_is(n, p, f[2] and 'stopped' or 'waiting', f[3] or '1')
    if not f[2] then
      look_at(part_id(n, p), LOOK_TICKS)
    elseif tighten(n, token, now) then
      decided = true
    end
  end
end
return { decided and 'decided' or 'returned', {}, {} }
