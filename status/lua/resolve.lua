-- The outside completes a promise: the first value stays, and whoever waits for it now gets it.
--
-- ARGV[1] name   ARGV[2] outcome: `v` + JSON value or `e` + JSON error   ARGV[3] token
-- ARGV[4] the operator who says so, or ''
--
-- Answers {unknown}: there is no such run
--         {late}: the promise has a value already, or the run has ended; nothing was changed
--         {accepted, n, recorded, [], start}: it counts, now or when it is awaited
--         {accepted, n, decided, stop, []}: ... and decided await n: take the run's next turn
-- `stop` lists claims (see loose_claims), `start` a part to publish (see start_part).
local name, outcome, token = ARGV[1], ARGV[2], ARGV[3]
local f = redis.call('HMGET', RUN, 'state', 'open')
if not f[1] then return { 'unknown' } end
local kept = redis.call('HGET', PROMISES, name)
if kept then
  local by, decided = string.match(kept, '^([^|]*)|([^|]*)|')
  if by ~= token then return { 'late' } end
  if decided == '' then return { 'accepted', '0', 'recorded', {}, {} } end
  return { 'accepted', decided, 'decided', loose_claims(decided), {} }
end
if FINAL[f[1]] then return { 'late' } end
local now, n = now_ms(), f[2]
local good = string.sub(outcome, 1, 1) == 'v'
local waiting = n ~= '' and redis.call('HGET', JOINS .. n, 'p:' .. name) or ''
local decided, stop = false, {}
if ARGV[4] ~= '' then event('operator.' .. (good and 'resolve' or 'reject'), name, cjson.encode({ by = ARGV[4] })) end
event('promise.resolved', name, good and '' or string.sub(outcome, 2))
-- One await may have the same promise in several places.
for p in string.gmatch(waiting, '%d+') do
  step_is(n, p, good and 'done' or 'failed', '1', '', int(now))
  decided, stop = end_part(n, p, outcome, token, now)
  if decided then break end
end
redis.call('HSET', PROMISES, name, token .. '|' .. (decided and n or '') .. '|' .. outcome)
local start = not decided and not good and waiting ~= '' and start_next(n, now) or {}
return { 'accepted', n == '' and '0' or n, decided and 'decided' or 'recorded', stop, start }
