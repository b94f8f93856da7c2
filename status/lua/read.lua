-- What a turn goes by, for a process that has read some of it before. Who comes first to the end of the journal gets a lease on
-- it, and may go ahead (see pass.lua); who comes later waits for nothing. If the first is lost, the next goes by claims,
-- which are counted.
--
-- ARGV[1] the last entry of the journal that the caller has (see journal_after)
-- ARGV[2] token of the lease that it would have, or ''
--
-- Answers {busy}: another process has this turn
--         {now in ms if it came first, or 0, run, journal, 1 or nothing}: run and journal are [] if the run is not there; 1: of
--         the journal, what the caller does not have. Of an await that is still open there may be nothing: a turn asks for
--         its outcomes when it is decided.
local f = redis.call('HMGET', RUN, 'seen', 'decider', 'turn', 'open', 'state', 'given_up')
local first = '0'
if f[4] == '' and not FINAL[f[5]] then
  local here, at, token, good = end_of(f[1], f[2]), lease_of(f[3])
  if at == here and token ~= ARGV[2] and tonumber(good) > tick() then return { 'busy' } end
  if at ~= here and ARGV[2] ~= '' and f[6] ~= f[1] and redis.call('EXISTS', GRACE) == 0 then
    redis.call('HSET', RUN, 'turn', lease(here, ARGV[2], LOOK_TICKS))
    look_at(RUN_ID, LOOK_TICKS)
    first = int(now_ms())
  end
end
return { first, redis.call('HGETALL', RUN), journal_after(ARGV[1]) }
