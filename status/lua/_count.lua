-- The figures of a shard, for `status/figures.py`: counted where a run begins or ends, or something goes wrong, and never
-- for each step. In front of the scripts that count, and of those that move parts; it writes nothing by itself.
--
-- KEYS as in `_run.lua`. The hash `counts` beside `tick` has `kind|first|second|bucket` -> how many, and
-- `kind|first|second|ms` -> their sum, once it is more than 0:
--   n workflow                submitted              r workflow, state   how long runs took
--   s step, state             how long steps took    p workflow, phase   how long phases took
--   t step                    attempts made again    u undo, outcome     undos that succeeded or gave up
--   x claim, turn or message  what was lost and put back on its way
-- Names are the users', and there may be any number of them: those for which there is no room are counted as `other`.
local COUNTS = string.sub(TICK, 1, -5) .. 'counts'
local FIELDS_KEPT, LONGEST_NAME = 2000, 100

local function named(name)
  if #name > LONGEST_NAME then return 'other' end
  return string.find(name, '[|%c]') and (string.gsub(name, '[|%c]', '_')) or name
end

-- What a figure is counted as for whose name there is no room.
local function as_other(field)
  local kind, second, last = string.match(field, '^(%a)|[^|]*|([^|]*)|(.*)$')
  return kind .. '|other|' .. (kind == 'p' and 'other' or second) .. '|' .. last
end

local function count(kind, first, second)
  local field = kind .. '|' .. named(first) .. '|' .. second .. '|'
  -- Only a new name costs more than this.
  if redis.call('HINCRBY', COUNTS, field, 1) == 1 and redis.call('HLEN', COUNTS) > FIELDS_KEPT then
    redis.call('HDEL', COUNTS, field)
    redis.call('HINCRBY', COUNTS, as_other(field), 1)
  end
end

-- An event may say how an undo went.
local function count_undo(event_kind, name)
  if event_kind == 'saga.undone' then count('u', name, 'done') end
  if event_kind == 'saga.undo_failed' then count('u', name, 'failed') end
end
