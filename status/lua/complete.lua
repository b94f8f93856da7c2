-- The workflow returned or raised: end the run, if its journal is still what the turn has read.
--
-- ARGV[1] seen       nonce of the last await the turn has read   ARGV[2] token, made once by this turn
-- ARGV[3] state      the final one        ARGV[4] result (JSON, or '')    ARGV[5] error (JSON, or '')
-- ARGV[6] how many values of status follow (0 or 3), then phase, progress, metadata (JSON); then the
-- number of events and, for each, kind, name, detail
--
-- Answers {completed}: by this token; {moved}: start over; {gone}: it is not there or has ended before.
local f = redis.call('HMGET', RUN, 'state', 'seen', 'open', 'ctoken', 'retention_ms', 'deadline_ms')
if not f[1] then return { 'gone' } end
if FINAL[f[1]] then return { f[4] == ARGV[2] and 'completed' or 'gone' } end
if f[2] ~= ARGV[1] or f[3] ~= '' then return { 'moved' } end
local now, at = now_ms(), 6
if ARGV[at] == '3' then
  redis.call('HSET', RUN, 'phase', ARGV[at + 1], 'progress', ARGV[at + 2], 'meta', ARGV[at + 3])
  at = at + 3
end
local events = tonumber(ARGV[at + 1])
at = at + 1
for i = 1, events do
  event(ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  at = at + 3
end
redis.call('HSET', RUN, 'ctoken', ARGV[2], 'finished_ms', int(now))
if ARGV[4] ~= '' then redis.call('HSET', RUN, 'result', ARGV[4]) end
if ARGV[5] ~= '' then redis.call('HSET', RUN, 'error', ARGV[5]) else redis.call('HDEL', RUN, 'error') end
set_state(f[1], ARGV[3], now)
redis.call('ZREM', DUE, RUN_ID)
if f[6] then drop_timer('run', '', '', '') end
event('run.' .. ARGV[3], '', ARGV[5])

local keep_ms = tonumber(f[5])
-- For those who wait for the end alone: a stream of one entry, and not for long, since who comes later reads the state.
redis.call('XADD', EVENTS .. ':end', '*', 'k', ARGV[3])
redis.call('PEXPIRE', EVENTS .. ':end', int(math.min(keep_ms, 60000)))
for _, key in ipairs({ RUN, JOURNAL, STEPS, EVENTS, LATE }) do redis.call('PEXPIRE', key, int(keep_ms)) end
-- A join that still has a claim goes when the claim does; this is for a claim that nobody gives back.
if tonumber(redis.call('HGET', RUN, 'loose') or '0') > 0 then
  local awaits = redis.call('HKEYS', JOURNAL)
  for _, n in ipairs(awaits) do redis.call('PEXPIRE', JOINS .. n, int(keep_ms)) end
end
redis.call('ZADD', ENDED, int(now + keep_ms), ARGV[3] .. '|' .. RUN_ID)
-- The listing forgets what Redis forgets, a few at each end of a run.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', ENDED, '-inf', int(now), 'LIMIT', 0, 10)) do
  local state, run_id = string.match(member, '^([^|]*)|(.*)$')
  redis.call('ZREM', STATES .. state, run_id)
  redis.call('ZREM', ENDED, member)
end
return { 'completed' }
