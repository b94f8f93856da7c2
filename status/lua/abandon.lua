-- An operator ends a run as it stands: its workflow is not asked, nothing that it entered in a saga is undone.
--
-- ARGV[1] reason   ARGV[2] token   ARGV[3] state: the final one   ARGV[4] error (JSON)   ARGV[5] who asks, or ''
--
-- Answers {gone}: it is not there; {late, state}: it has ended before
--         {abandoned, stop}: stop these claims
local f = redis.call('HMGET', RUN, 'state', 'open', 'ctoken', 'killed')
if not f[1] then return { 'gone' } end
if FINAL[f[1]] then
  if f[3] ~= ARGV[2] then return { 'late', f[1] } end
  return { 'abandoned', f[4] ~= '' and loose_claims(f[4]) or {} }
end
local now, stop = now_ms(), {}
redis.call('HSET', RUN, 'killed', f[2])
if f[2] ~= '' then stop = decide(f[2], 'cancelled', '409|' .. ARGV[1], ARGV[2], now) end
event('operator.abandon', '', ARGV[5] == '' and ARGV[1] or cjson.encode({ by = ARGV[5], reason = ARGV[1] }))
end_run(f[1], ARGV[3], '', ARGV[4], ARGV[2], now)
return { 'abandoned', stop }
