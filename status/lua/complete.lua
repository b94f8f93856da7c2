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
local now, run = now_ms(), {}
hear_news(run, ARGV, 6, now)
if #run > 0 then redis.call('HSET', RUN, unpack(run)) end
end_run(f[1], ARGV[3], ARGV[4], ARGV[5], ARGV[2], now)
return { 'completed' }
