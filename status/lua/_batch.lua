-- What only joins with a window have: batches, and fan-outs that are filed as one (`keep` is `wide`). In front of
-- `_join.lua`; it writes nothing by itself.
-- Which items of a batch that keeps no outcomes have succeeded: a bit each. It outlives a batch that ended badly, for a
-- retry of the run does not make them again; `bits` of the run names the awaits that have one, so that it has an end.
local function keep_bits(n, verdict)
  local bits = JOINS .. n .. ':done'
  if verdict == 'all' then
    redis.call('UNLINK', bits)
  elseif redis.call('EXISTS', bits) == 1 then
    local known = redis.call('HGET', RUN, 'bits')
    redis.call('HSET', RUN, 'bits', known and (known .. ',' .. n) or n)
  end
end

-- Those parts of a wide join that have yet to enter its window won't. Of their events only the last would be kept.
local function stop_outside(n)
  local f = redis.call('HMGET', JOINS .. n, 'keep', 'next', 'size')
  if f[1] ~= 'wide' then return end
  local size = tonumber(f[3])
  for p = tonumber(f[2]), size - 1 do
    if redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 0 then
      step_is(n, p, 'stopped', '1')
      if p >= size - EVENTS_KEPT then event('step.stopped', step_name(n, p)) end
    end
  end
end

-- The first part from p on whose bit is not set. BITPOS counts in bytes.
local function first_undone(bits, p)
  while redis.call('GETBIT', bits, int(p)) == 1 do
    p = p % 8 == 0 and redis.call('BITPOS', bits, 0, int(p / 8)) or p + 1
  end
  return p
end
