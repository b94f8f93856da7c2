-- How long runs, phases and steps took, for the scripts that end one: beside `_count.lua`, which says where that is kept.
-- It writes nothing by itself.
local BUCKETS_MS = { 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 1800000, 7200000, 86400000 }

-- `gathered` is field -> number.
local function write_counts(gathered)
  local room = FIELDS_KEPT - redis.call('HLEN', COUNTS)
  for field, by in pairs(gathered) do room = add_count(field, by, room) end
end

local function gather(gathered, field, by) gathered[field] = (gathered[field] or 0) + by end

local function gather_time(gathered, kind, first, second, took_ms)
  local stem, bucket = kind .. '|' .. named(first) .. '|' .. named(second) .. '|', #BUCKETS_MS + 1
  for i, most_ms in ipairs(BUCKETS_MS) do
    if took_ms <= most_ms then
      bucket = i
      break
    end
  end
  gather(gathered, stem .. bucket, 1)
  gather(gathered, stem .. 'ms', math.max(0, took_ms))
end

-- The status is another: fields of the run hash are added to `run`. The phase that is over is counted.
local function status_is(run, phase, progress, meta, now)
  for _, value in ipairs({ 'phase', phase, 'progress', progress, 'meta', meta }) do run[#run + 1] = value end
  local f = redis.call('HMGET', RUN, 'phase', 'phase_ms', 'workflow')
  if f[1] == phase then return end
  run[#run + 1] = 'phase_ms'
  run[#run + 1] = int(now)
  if f[2] then
    local gathered = {}
    gather_time(gathered, 'p', f[3], f[1], now - tonumber(f[2]))
    write_counts(gathered)
  end
end

-- A run has ended: it, its last phase, and its steps that ended since it was submitted or taken up again. (Those of a
-- batch that the timeline has forgotten are not counted, nor are children, which are runs themselves.)
local function count_run(state, now)
  local f = redis.call('HMGET', RUN, 'workflow', 'submitted_ms', 'since_ms', 'phase', 'phase_ms')
  local since, gathered = tonumber(f[3] or f[2]), {}
  gather_time(gathered, 'r', f[1], state, now - since)
  if f[5] then gather_time(gathered, 'p', f[1], f[4], now - tonumber(f[5])) end
  local steps, rows = redis.call('HGETALL', STEPS), {}
  for i = 1, #steps, 2 do rows[steps[i]] = steps[i + 1] end
  for place, row in pairs(rows) do
    local queue, name = string.match(row, '^([^|]*)|(.*)$')
    if queue ~= '' and string.sub(queue, 1, 1) ~= '>' and not string.find(place, ':', 1, true) then
      local ended_as, began, ended = string.match(rows[place .. ':s'] or '', '^(%a+)|%d+|(%d+)|(%d+)$')
      if ended and tonumber(ended) >= since then
        gather_time(gathered, 's', name, ended_as, tonumber(ended) - tonumber(began))
      end
    end
  end
  write_counts(gathered)
end
