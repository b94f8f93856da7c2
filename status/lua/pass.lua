-- Record awaits that a turn went through in its process, one after the other, before anything of them was on record: each was
-- opened, all its parts succeeded there, and that decided it. All of them or none: only where the journal is as that turn has
-- read it. They happened before any cancel that is noted meanwhile: that is answered by the next await that is opened.
--
-- ARGV[1] n        of the first await         ARGV[2] seen   the end of the journal before it (see is_read)
-- ARGV[3] nonce    of the first await         ARGV[4] by     the token that decided it, made once
-- ARGV[5] nonce    of the last one            ARGV[6] by     the token that decided that
-- ARGV[7] ended    when that was, ms          ARGV[8] token  of the turn's lease
-- then, each list after the number of its values: the statuses said on the way (phase, progress, metadata (JSON) and when, ms,
-- each); names of `run.patched` and the await that each is noted for; rows of events (JSON, see `status/passages.py`);
-- fields of the journal, and then those of `steps`, with their values
--
-- Answers {passed, 0}: by this token, and its turn goes on; {passed, 1}: ... and opens what comes next, for the run is to stop
--         {moved}: nothing is recorded, start over; {gone}: the run is not there or has ended
local f = redis.call('HMGET', RUN, 'state', 'seen', 'open', 'cancel', 'cancels', 'error', 'again', 'decider')
if not f[1] then return { 'gone' } end
local passed = { 'passed', (f[4] or tonumber(f[5] or '0') > 1) and 1 or 0 }
-- Asked again, since the answer was lost: then the run may even have ended by what came with this.
local entry = redis.call('HGET', JOURNAL, ARGV[1])
if entry then
  entry = cjson.decode(entry)
  return entry['x'] == ARGV[3] and entry['by'] == ARGV[4] and passed or { 'moved' }
end
if FINAL[f[1]] then return { 'gone' } end
if not is_read(f[2], f[8], ARGV[2]) or f[3] ~= '' or f[7] then return { 'moved' } end
-- After a restart of Redis what runs comes first: it may be this very await, in another process.
if redis.call('EXISTS', GRACE) == 1 then return { 'moved' } end

local now, at = tonumber(ARGV[7]), 9
local run = { 'seen', ARGV[5], 'decider', ARGV[6], 'turn', lease(end_of(ARGV[5], ARGV[6]), ARGV[8], LOOK_TICKS),
  'updated_ms', ARGV[7], 'waits', 0 }

-- The bounds of the next list.
local function list()
  local first, last = at + 1, at + tonumber(ARGV[at])
  at = last + 1
  return first, last
end

local first, last = list()
if last > first then statuses_are(run, ARGV, first, last) end
first, last = list()
for i = first, last, 2 do
  run[#run + 1] = 'patched:' .. ARGV[i]
  run[#run + 1] = ARGV[i + 1]
end
first, last = list()
for i = first, last do event('passed', '', ARGV[i]) end
for _, key in ipairs({ JOURNAL, STEPS }) do
  first, last = list()
  for i = first, last, 1000 do redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, last))) end
end
if f[1] == 'pending' then
  run[#run + 1] = 'started_ms'
  run[#run + 1] = ARGV[7]
end
redis.call('HSET', RUN, unpack(run))
if f[6] then redis.call('HDEL', RUN, 'error') end -- it was parked, and goes on
if f[1] ~= 'running' and f[1] ~= 'cancelling' then set_state(f[1], 'running', now) end
look_at(RUN_ID, LOOK_TICKS)
return passed
