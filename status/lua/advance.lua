-- Several transitions of one run, one after the other and with nothing in between: what came of the steps that a process
-- has run in place, the awaits that its turn has passed, and what the workflow does next; last, what came of parts of that.
-- Each is what it is by itself (see the script of its name).
--
-- ARGV: for each, its name (finish|give_back|pass|open_join|complete), the number of its arguments, and these
--
-- Answers the answers, as far as it went. A turn that has gone on with outcomes before they were recorded passes, opens or
-- completes something only if they are now in the journal as it has taken them: the last of them decided its join, and none
-- was recorded otherwise before. So with the awaits that it has passed; and parts that ran before they were claimed have
-- ended only if they are claimed now. Else it ends there; what was recorded so far stands, and the turn starts over.
local made = { finish = finish, give_back = give_back, pass = pass, open_join = open_join, complete = complete }

-- What is asked for: names and arguments; and which outcomes of an open await a turn has gone on with, where.
local asked, places, outcomes = {}, {}, {}
local at = 1
while at <= #ARGV do
  local one = { name = ARGV[at] }
  for i = 1, tonumber(ARGV[at + 1]) do one[i] = ARGV[at + 1 + i] end
  asked[#asked + 1] = one
  at = at + 2 + #one
  if one.name == 'finish' and #places == #asked - 1 then -- those in front of all else
    places[#places + 1] = one[1] .. '.' .. one[2]
    outcomes[#outcomes + 1] = one[7]
  end
end

-- All parts of an await have succeeded in one process, and nothing else has happened to it: what `finish` does for each of
-- them, with few commands for all. Returns whether it was so.
local function end_all()
  local n, nonce, count = asked[1][1], asked[1][3], #places
  local join = JOINS .. n
  local fields = { 'nonce', 'decided', 'size', 'policy', 'ok', 'bad', 'window', 'outside', 'loose', 'timeout', 'fp', 'line' }
  local own = #fields
  for i = 1, count do
    for _, letter in ipairs({ 'c', 't', 'x', 'w' }) do fields[#fields + 1] = letter .. asked[i][2] end
  end
  local f = redis.call('HMGET', join, unpack(fields))
  if f[1] ~= nonce or f[2] or tonumber(f[3]) ~= count or f[5] ~= '0' or f[6] ~= '0' or f[7] or f[8] or f[9] then return false end
  if (f[4] ~= 'all' and f[4] ~= 'settle') or redis.call('EXISTS', RUN) == 0 then return false end
  for i = 1, count do
    local one, claim = asked[i], parse_claim(f[own + 4 * i - 3])
    if one[6] ~= 'done' or not claim or claim.token ~= one[5] or f[own + 4 * i - 2] then return false end
  end

  local journal, steps, members, last = {}, {}, {}, asked[count]
  for i = 1, count do
    local one = asked[i]
    local p, ended_ms = one[2], one[18] ~= '' and one[18] or int(now_ms())
    journal[2 * i - 1], journal[2 * i] = n .. '.' .. p, one[7]
    steps[2 * i - 1], steps[2 * i] = n .. '.' .. p .. ':s', 'done|' .. one[4] .. '|' .. one[9] .. '|' .. ended_ms
    members[i] = part_id(n, p)
    if f[own + 4 * i - 1] then drop_timer('attempt', n, p, nonce) end
    if f[own + 4 * i] then drop_timer('within', n, p, nonce) end
    event('step.done', one[12], one[10])
  end
  redis.call('HSET', JOURNAL, unpack(journal))
  redis.call('HSET', STEPS, unpack(steps))
  redis.call('ZREM', DUE, unpack(members))
  write_entry(n, 'all', '', last[5], tonumber(last[18]) or now_ms(), nonce, f[11], f[12], count)
  if f[10] then drop_timer('join', n, '', nonce) end
  look_at(RUN_ID, LOOK_TICKS)
  event('join.decided', n, 'all')
  drop_join(n)
  return true
end

-- Whether a transition may be made, after another that has come to `answer`.
local function may_follow(name, before, answer)
  if before == 'open_join' then return answer[1] == 'granted' end
  if name == 'finish' or name == 'give_back' or answer[1] == 'passed' then return true end
  if answer[1] ~= 'decided' then return false end
  for i, outcome in ipairs(redis.call('HMGET', JOURNAL, unpack(places))) do
    if outcome ~= outcomes[i] then return false end
  end
  return true
end

local answers, first = {}, 1
if #places > 0 and asked[#asked].name ~= 'finish' and end_all() then
  for i = 1, #places do answers[i] = { i < #places and 'recorded' or 'decided', {}, {} } end
  first = #places + 1
end
for i = first, #asked do
  local one = asked[i]
  if i > first and not may_follow(one.name, asked[i - 1].name, answers[i - 1]) then break end
  answers[i] = made[one.name](one)
end
return answers
