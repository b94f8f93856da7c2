-- The run can't go on with the code at hand: it waits, with the reason, and is looked at again later.
--
-- ARGV[1] seen   the end of the journal as the turn has read it (see is_read)   ARGV[2] error (JSON)   ARGV[3] ticks until the next look
--
-- Answers 1 if it is parked, 0 if it moved on or has ended.
local f = redis.call('HMGET', RUN, 'state', 'seen', 'error', 'decider')
if not f[1] or FINAL[f[1]] or not is_read(f[2], f[4], ARGV[1]) then return 0 end
look_at(RUN_ID, tonumber(ARGV[3]))
redis.call('HSET', RUN, 'turn', '') -- whoever is sent next may begin
if f[3] == ARGV[2] then return 1 end
redis.call('HSET', RUN, 'error', ARGV[2])
-- A cancel that is noted stays visible: it is answered once the code fits.
if f[1] ~= 'cancelling' then set_state(f[1], 'suspended', now_ms()) end
event('run.status', 'parked', ARGV[2])
return 1
