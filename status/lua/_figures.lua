-- How long runs, phases and steps took, for the scripts that end one: beside `_count.lua`, which says where that is kept.
-- It writes nothing by itself.
local BUCKETS_MS = { 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 1800000, 7200000, 86400000 }

local function gather_time(gathered, kind, first, second, took_ms)
  local stem, bucket = kind .. '|' .. named(first) .. '|' .. named(second) .. '|', 1
  while bucket <= #BUCKETS_MS and took_ms > BUCKETS_MS[bucket] do bucket = bucket + 1 end
  gathered[stem .. bucket] = (gathered[stem .. bucket] or 0) + 1
  gathered[stem .. 'ms'] = (gathered[stem .. 'ms'] or 0) + math.max(0, took_ms)
end

-- `gathered` is field -> number. Read at once and written at once, since a run of many steps has many fields.
local CHUNK_OF_FIELDS = 1000
local function write_counts(gathered)
  local fields, at = {}, 0
  for field in pairs(gathered) do
    at = at + 1
    fields[at] = field
  end
  for from = 1, at, CHUNK_OF_FIELDS do
    local to, changed = math.min(from + CHUNK_OF_FIELDS - 1, at), {}
    local held = redis.call('HMGET', COUNTS, unpack(fields, from, to))
    local room
    for i = from, to do
      local field, before = fields[i], held[i - from + 1]
      if not before then
        room = (room or FIELDS_KEPT - redis.call('HLEN', COUNTS)) - 1
      end
      if not before and room < 0 then
        redis.call('HINCRBY', COUNTS, as_other(field), int(gathered[field]))
      else
        changed[#changed + 1] = field
        changed[#changed + 1] = int(tonumber(before or '0') + gathered[field])
      end
    end
    if #changed > 0 then redis.call('HSET', COUNTS, unpack(changed)) end
  end
end

-- Phases that are over, as the run hash notes them until the run ends, or until they are many: `ms|phase`, a line each.
local PHASES_NOTED = 2000 -- characters
local function gather_phases(gathered, workflow, noted)
  for took_ms, phase in string.gmatch(noted, '(%d+)|([^\n]*)\n') do
    gather_time(gathered, 'p', workflow, phase, tonumber(took_ms))
  end
end

-- The status is another: fields of the run hash are added to `run`. The phase that is over is noted.
local function status_is(run, phase, progress, meta, now)
  for _, value in ipairs({ 'phase', phase, 'progress', progress, 'meta', meta }) do run[#run + 1] = value end
  local f = redis.call('HMGET', RUN, 'phase', 'phase_ms', 'phases')
  if f[1] == phase then return end
  run[#run + 1] = 'phase_ms'
  run[#run + 1] = int(now)
  if not f[2] then return end
  local noted = (f[3] or '') .. int(math.max(0, now - tonumber(f[2]))) .. '|' .. named(f[1]) .. '\n'
  if #noted > PHASES_NOTED then
    local gathered = {}
    gather_phases(gathered, redis.call('HGET', RUN, 'workflow'), noted)
    write_counts(gathered)
    noted = ''
  end
  run[#run + 1] = 'phases'
  run[#run + 1] = noted
end

-- What a turn has to say, from ARGV[at] on: 0, or 3 and phase, progress, metadata (JSON); then the number of events and, for
-- each, kind, name, detail. Fields of the run hash are added to `run`. Returns where it ends.
-- `n`: an event of kind `run.patched` is noted in the run as of this await, as `patched:` and its name.
local function hear_news(run, ARGV, at, now, n)
  if ARGV[at] == '3' then
    status_is(run, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], now)
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

-- A run has ended: it, its last phase, and its steps that ended since it was submitted or taken up again. (Those of a
-- batch that the timeline has forgotten are not counted, nor are children, which are runs themselves.)
local function count_run(state, now)
  local f = redis.call('HMGET', RUN, 'workflow', 'submitted_ms', 'since_ms', 'phase', 'phase_ms', 'phases')
  local since, gathered = tonumber(f[3] or f[2]), {}
  gather_time(gathered, 'r', f[1], state, now - since)
  if f[5] then
    gather_time(gathered, 'p', f[1], f[4], now - tonumber(f[5]))
    gather_phases(gathered, f[1], f[6] or '')
    redis.call('HDEL', RUN, 'phases', 'phase_ms')
  end
  local steps, ended_as = redis.call('HGETALL', STEPS), {}
  for i = 1, #steps, 2 do
    local place = string.match(steps[i], '^(.*):s$')
    if place then ended_as[place] = steps[i + 1] end
  end
  for i = 1, #steps, 2 do
    local how, began, ended = string.match(ended_as[steps[i]] or '', '^(%a+)|%d+|(%d+)|(%d+)$')
    if ended and tonumber(ended) >= since then
      local name = string.match(steps[i + 1], '^[^|>][^|]*|(.*)$')
      if name then gather_time(gathered, 's', name, how, tonumber(ended) - tonumber(began)) end
    end
  end
  write_counts(gathered)
end
