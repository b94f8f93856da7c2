-- Record an await that a turn went through in its process before anything of it was on record: it was opened, all its parts
-- succeeded there, and that decided it. Only where the journal is as that turn has read it, and nobody wants the run to stop.
--
-- ARGV[1] n          await number                ARGV[2] seen    the end of the journal before it (see is_read)
-- ARGV[3] nonce      of this await               ARGV[4] by      the token that decided it, made once
-- ARGV[5] fp         fingerprint                 ARGV[6] ended   when it was decided, ms
-- ARGV[7] entry      of the journal, JSON (see write_entry)     ARGV[8] token of the turn's lease
-- ARGV[9] how many values of status follow (0 or 3), then phase, progress, metadata (JSON); then the number of events and, for
--         each, kind, name, detail; then for each part: `queue|label`, outcome, when it began and ended, ms, the step's name
--
-- Answers {passed}: by this token, and its turn goes on; {moved}: nothing is recorded, start over; {gone}: the run is not there
--         or has ended
local f = redis.call('HMGET', RUN, 'state', 'seen', 'open', 'cancel', 'cancels', 'error', 'again', 'decider')
local n, nonce, by, now = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[6])
if not f[1] or FINAL[f[1]] then return { 'gone' } end
local entry = redis.call('HGET', JOURNAL, n)
if entry then
  entry = cjson.decode(entry)
  return { entry['x'] == nonce and entry['by'] == by and 'passed' or 'moved' }
end
if not is_read(f[2], f[8], ARGV[2]) or f[3] ~= '' or f[4] or tonumber(f[5] or '0') > 1 or f[7] then return { 'moved' } end
-- After a restart of Redis what runs comes first: it may be this very await, in another process.
if redis.call('EXISTS', GRACE) == 1 then return { 'moved' } end

local run = { 'seen', nonce, 'decider', by, 'turn', lease(end_of(nonce, by), ARGV[8], LOOK_TICKS), 'updated_ms', int(now), 'waits', 0 }
local at = hear_news(run, ARGV, 9, now, n)
event('join.opened', n, ARGV[5])
local journal, steps = { n, ARGV[7] }, {}
for p = 0, (#ARGV - at) / 5 - 1 do
  local place = n .. '.' .. int(p)
  journal[2 * p + 3], journal[2 * p + 4] = place, ARGV[at + 2]
  steps[4 * p + 1], steps[4 * p + 2] = place, ARGV[at + 1]
  steps[4 * p + 3], steps[4 * p + 4] = place .. ':s', 'done|1|' .. ARGV[at + 3] .. '|' .. ARGV[at + 4]
  event('step.started', ARGV[at + 5], '1')
  event('step.done', ARGV[at + 5])
  at = at + 5
end
event('join.decided', n, 'all')
redis.call('HSET', JOURNAL, unpack(journal))
redis.call('HSET', STEPS, unpack(steps))
if f[1] == 'pending' then
  run[#run + 1] = 'started_ms'
  run[#run + 1] = int(now)
end
redis.call('HSET', RUN, unpack(run))
if f[6] then redis.call('HDEL', RUN, 'error') end -- it was parked, and goes on
if f[1] ~= 'running' and f[1] ~= 'cancelling' then set_state(f[1], 'running', now) end
look_at(RUN_ID, LOOK_TICKS)
return { 'passed' }
