-- How long runs, phases and steps took, for the scripts that end one: beside `_count.lua`, which says where that is kept.
-- It writes nothing by itself.
local BUCKETS_MS = { 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 1800000, 7200000, 86400000 }

local function gather_time(gathered, kind, first, second, took_ms)
  local stem, bucket = kind .. '|' .. named(first) .. '|' .. named(second) .. '|', 1
  while bucket <= #BUCKETS_MS and took_ms > BUCKETS_MS[bucket] do bucket = bucket + 1 end
  local many = stem .. bucket
  gathered[many] = (gathered[many] or 0) + 1
  if took_ms > 0 then
    local sum = stem .. 'ms'
    gathered[sum] = (gathered[sum] or 0) + took_ms
  end
end

-- `gathered` is field -> number, none of them 0.
local function write_counts(gathered)
  for field, number in pairs(gathered) do
    local by = int(number)
    -- Only a new name costs more than this.
    if redis.call('HINCRBY', COUNTS, field, by) == number and redis.call('HLEN', COUNTS) > FIELDS_KEPT then
      redis.call('HDEL', COUNTS, field)
      redis.call('HINCRBY', COUNTS, as_other(field), by)
    end
  end
end

-- Phases that are over, as the run hash notes them until the run ends, or until they are many: `ms|phase`, a line each.
local PHASES_NOTED = 2000 -- characters
local function gather_phases(gathered, workflow, noted)
  for took_ms, phase in string.gmatch(noted, '(%d+)|([^\n]*)\n') do
    gather_time(gathered, 'p', workflow, phase, tonumber(took_ms))
  end
end

-- The status was said anew: phase, progress, metadata (JSON) and when, ms, from ARGV[first] on, perhaps several times up to
-- ARGV[last]. Fields of the run hash are added to `run`. Phases that are over are noted.
local function statuses_are(run, ARGV, first, last)
  local f = redis.call('HMGET', RUN, 'phase', 'phase_ms', 'phases')
  local phase, since, noted = f[1], tonumber(f[2]), f[3]
  for at = first, last, 4 do
    local now = tonumber(ARGV[at + 3])
    if since and phase ~= ARGV[at] then
      noted = (noted or '') .. int(math.max(0, now - since)) .. '|' .. named(phase) .. '\n'
    end
    if phase ~= ARGV[at] then phase, since = ARGV[at], now end
  end
  if noted and #noted > PHASES_NOTED then
    local gathered = {}
    gather_phases(gathered, redis.call('HGET', RUN, 'workflow'), noted)
    write_counts(gathered)
    noted = ''
  end
  local fields = { 'phase', phase, 'progress', ARGV[last - 2], 'meta', ARGV[last - 1] }
  for _, value in ipairs(fields) do run[#run + 1] = value end
  if phase ~= f[1] then
    run[#run + 1] = 'phase_ms'
    run[#run + 1] = int(since)
  end
  if noted ~= f[3] then
    run[#run + 1] = 'phases'
    run[#run + 1] = noted
  end
end

-- What a turn has to say, from ARGV[at] on: 0, or 3 and phase, progress, metadata (JSON); then the number of events and, for
-- each, kind, name, detail. Fields of the run hash are added to `run`. Returns where it ends.
-- `n`: an event of kind `run.patched` is noted in the run as of this await, as `patched:` and its name.
local function hear_news(run, ARGV, at, now, n)
  if ARGV[at] == '3' then
    statuses_are(run, { ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], now }, 1, 4)
    at = at + 3
  end
  local events = tonumber(ARGV[at + 1])
  at = at + 1
  for _ = 1, events do
    if n and ARGV[at + 1] == 'run.patched' then
      run[#run + 1] = 'patched:' .. ARGV[at + 2]
      run[#run + 1] = n
    end
    event(ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    count_undo(ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  end
  return at
end

-- Of the fields of `steps`, only `n.p:s` ends in it.
local S = string.byte('s')

-- Of these steps, field and value in turn as in `steps`, those that ended at that time, ms, or later. (What a batch's
-- timeline has forgotten is not counted, nor are children, which are runs themselves.)
local function gather_steps(gathered, steps, since)
  local of = {}
  for i = 1, #steps, 2 do of[steps[i]] = steps[i + 1] end
  for i = 1, #steps, 2 do
    local state, began, ended
    if string.byte(steps[i], -1) == S then
      state, began, ended = string.match(steps[i + 1], '^(%a+)|%d+|(%d+)|(%d+)$')
    end
    if ended and tonumber(ended) >= since then
      local name = string.match(of[string.sub(steps[i], 1, -3)] or '', '^[^|>][^|]*|(.*)$')
      if name then gather_time(gathered, 's', name, state, tonumber(ended) - tonumber(began)) end
    end
  end
end

-- A run has ended: it, its last phase, and its steps that ended since it was submitted or taken up again.
local function count_run(state, now)
  local f = redis.call('HMGET', RUN, 'workflow', 'submitted_ms', 'since_ms', 'phase', 'phase_ms', 'phases')
  local since, gathered = tonumber(f[3] or f[2]), {}
  gather_time(gathered, 'r', f[1], state, now - since)
  if f[5] then
    gather_time(gathered, 'p', f[1], f[4], now - tonumber(f[5]))
    gather_phases(gathered, f[1], f[6] or '')
    redis.call('HDEL', RUN, 'phases', 'phase_ms')
  end
  gather_steps(gathered, redis.call('HGETALL', STEPS), since)
  write_counts(gathered)
end
