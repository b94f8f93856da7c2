-- An operator says what becomes of what a run that has ended still owes. From here on it is not taken up again: what it
-- did may be undone meanwhile.
--
-- ARGV[1] verb: resume|retry|skip|abort   ARGV[2] the entries it is about, for the event, or ''   ARGV[3] detail (JSON)
-- ARGV[4] token, made once by the operator's order   ARGV[5] the run that carries it out
--
-- Answers {noted}; {gone}: the run is not there; {alive, state}: it goes on, and undoes what it owes itself
local f = redis.call('HMGET', RUN, 'state', 'otoken')
if not f[1] then return { 'gone' } end
if f[2] == ARGV[4] then return { 'noted' } end
if not FINAL[f[1]] then return { 'alive', f[1] } end
redis.call('HSET', RUN, 'otoken', ARGV[4], 'undoer', ARGV[5])
event('operator.' .. ARGV[1], ARGV[2], ARGV[3])
end_with_run(EVENTS)
return { 'noted' }
