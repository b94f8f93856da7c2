-- Look through an index of runs for those that a listing wants, the newest first.
--
-- KEYS[1] an index of runs, scored by when they were submitted, ms
--
-- ARGV[1] begin behind this place: its score, ms, or 'inf'
-- ARGV[2] and its run id
-- ARGV[3] look at so many runs at most
-- ARGV[4] a part of the run id, in small letters, or ''
-- ARGV[5] the name of the workflow, or ''
-- ARGV[6] the stem of the keys of the shard's runs: a run id follows
--
-- Answers the score and the run id of the last run that was looked at, both '' if there are no more behind it; then
-- the score and the run id of each that is wanted.
local AT_ONCE = 200
local before, before_id, left = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local text, workflow, runs = ARGV[4], ARGV[5], ARGV[6]

-- As an index orders runs of the same ms; `<` of strings would ask the server's locale.
local function is_less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local find, lower, call = string.find, string.lower, redis.call
local answer, past = { '', '' }, false
local rank = call('ZCOUNT', KEYS[1], '(' .. ARGV[1], '+inf')
while left > 0 do
  local found = call('ZREVRANGE', KEYS[1], rank, rank + math.min(left, AT_ONCE) - 1, 'WITHSCORES')
  if #found == 0 then
    answer[1], answer[2] = '', ''
    break
  end
  rank = rank + #found / 2
  for i = 1, #found, 2 do
    local id, score = found[i], found[i + 1]
    past = past or tonumber(score) ~= before or is_less(id, before_id)
    if past then
      left = left - 1
      answer[1], answer[2] = score, id
      local has = text == '' or find(lower(id), text, 1, true)
      if has and (workflow == '' or call('HGET', runs .. id, 'workflow') == workflow) then
        answer[#answer + 1] = score
        answer[#answer + 1] = id
      end
    end
  end
end
return answer
