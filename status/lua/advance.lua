-- Several transitions of one run, one after the other and with nothing in between: what came of the steps that a process
-- has run in place, and what the workflow does next. Each is what it is by itself (see the script of its name).
--
-- ARGV: for each, its name (finish|give_back|open_join|complete), the number of its arguments, and these
--
-- Answers the answers, as far as it went. A turn that has gone on with outcomes before they were recorded opens or completes
-- something only if they are now in the journal as it has taken them: the last of them decided its join, and none was
-- recorded otherwise before. Else it ends there; what was recorded so far stands, and the turn starts over.
local made = { finish = finish, give_back = give_back, open_join = open_join, complete = complete }
local answers, places, outcomes, at = {}, {}, {}, 1

local function are_recorded()
  if answers[#answers][1] ~= 'decided' then return false end
  for i, outcome in ipairs(redis.call('HMGET', JOURNAL, unpack(places))) do
    if outcome ~= outcomes[i] then return false end
  end
  return true
end

while at <= #ARGV do
  local name, arguments = ARGV[at], {}
  for i = 1, tonumber(ARGV[at + 1]) do arguments[i] = ARGV[at + 1 + i] end
  if name == 'finish' then
    places[#places + 1] = arguments[1] .. '.' .. arguments[2]
    outcomes[#outcomes + 1] = arguments[7]
  elseif name ~= 'give_back' and not are_recorded() then
    break
  end
  answers[#answers + 1] = made[name](arguments)
  at = at + 2 + #arguments
end
return answers
