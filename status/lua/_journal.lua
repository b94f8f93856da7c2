-- Put in front of the transitions that give a turn what it goes by.

-- The fields of the journal that whoever asks has not read yet, and 1; or all of them, where that can't be told.
-- `known`: '', or `await|entry`, the last that he has read: it must be there as it was, and those after it one by one up to
-- the last. Of an entry without `s` (see decide) nobody knows which parts it has.
local function journal_after(known)
  local n, entry = string.match(known, '^(%d+)|(.*)$')
  local there, fields = n and redis.call('HGET', JOURNAL, n), {}
  while there and there == entry do
    n = int(tonumber(n) + 1)
    there = redis.call('HGET', JOURNAL, n)
    if not there and cjson.decode(entry)['x'] == redis.call('HGET', RUN, 'seen') then return fields, 1 end
    entry = there
    local size = entry and cjson.decode(entry)['s']
    for p = -3, size and size - 1 or -4 do
      local field = p == -3 and n or (p == -2 and n .. ':order') or (p == -1 and n .. '.late') or (n .. '.' .. p)
      local value = redis.call('HGET', JOURNAL, field)
      if value then
        fields[#fields + 1] = field
        fields[#fields + 1] = value
      end
    end
    there = size and there
  end
  return redis.call('HGETALL', JOURNAL)
end
