-- The figures of a shard, for `status/figures.py`: counted where a run begins or ends, or something goes wrong, and never
-- for each step. In front of the scripts that count, and of those that move parts; it writes nothing by itself.
--
-- KEYS as in `_run.lua`. The hash `counts` beside `tick` has `kind|first|second|bucket` -> how many, and
-- `kind|first|second|ms` -> their sum:
--   n workflow                submitted              r workflow, state   how long runs took
--   s step, state             how long steps took    p workflow, phase   how long phases took
--   t step                    attempts made again    u undo, outcome     undos that succeeded or gave up
--   x claim, turn or message  what was lost and put back on its way
-- Names are the users', and there may be any number of them: those for which there is no room are counted as `other`.
local COUNTS = string.sub(TICK, 1, -5) .. 'counts'
local FIELDS_KEPT, LONGEST_NAME = 2000, 100

local function named(name)
  if #name > LONGEST_NAME then return 'other' end
  return (string.gsub(name, '[|%c]', '_'))
end

-- Where there is room for new fields: how many. Returns how many after this one.
local function add_count(field, by, room)
  if room <= 0 and redis.call('HEXISTS', COUNTS, field) == 0 then
    local kind, second, last = string.match(field, '^(%a)|[^|]*|([^|]*)|(.*)$')
    field = kind .. '|other|' .. (kind == 'p' and 'other' or second) .. '|' .. last
  end
  return redis.call('HINCRBY', COUNTS, field, int(by)) == by and room - 1 or room
end

local function count(kind, first, second)
  add_count(kind .. '|' .. named(first) .. '|' .. second .. '|', 1, FIELDS_KEPT - redis.call('HLEN', COUNTS))
end

-- An event may say how an undo went.
local function count_undo(event_kind, name)
  if event_kind == 'saga.undone' then count('u', name, 'done') end
  if event_kind == 'saga.undo_failed' then count('u', name, 'failed') end
end
