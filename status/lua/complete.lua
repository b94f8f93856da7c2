-- The workflow returned or raised: end the run, if its journal is still what the turn has read.
--
-- ARGV[1] seen       the end of the journal as the turn has read it (see is_read)   ARGV[2] token, made once by this turn
-- ARGV[3] state      the final one        ARGV[4] result (JSON, or '')    ARGV[5] error (JSON, or '')
-- ARGV[6] how many values of status follow (0 or 3), then phase, progress, metadata (JSON); then the
-- number of events and, for each, kind, name, detail
--
-- Answers {completed}: by this token; {moved}: start over; {gone}: it is not there or has ended before.
local f = redis.call('HMGET', RUN, 'state', 'seen', 'open', 'ctoken', 'decider')
if not f[1] then return { 'gone' } end
if FINAL[f[1]] then return { f[4] == ARGV[2] and 'completed' or 'gone' } end
if not is_read(f[2], f[5], ARGV[1]) or f[3] ~= '' then return { 'moved' } end
local now, at = now_ms(), 6
if ARGV[at] == '3' then
  local run = {}
  status_is(run, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], now)
  redis.call('HSET', RUN, unpack(run))
  at = at + 3
end
local events = tonumber(ARGV[at + 1])
at = at + 1
for i = 1, events do
  event(ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  count_undo(ARGV[at + 1], ARGV[at + 2])
  at = at + 3
end
end_run(f[1], ARGV[3], ARGV[4], ARGV[5], ARGV[2], now)
return { 'completed' }
