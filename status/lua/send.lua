-- The outside sends a message to a channel: the part that has waited longest for one gets it, or it stays unread.
--
-- ARGV[1] channel   ARGV[2] outcome: `v` + JSON value   ARGV[3] token `sender.number`, the number one up each time
--
-- Answers {unknown}: there is no such run
--         {late}: the run has ended; nothing was changed
--         {accepted, n, recorded, [], []}: it is unread, or some part of await n has it
--         {accepted, n, decided, stop, []}: ... and decided await n: take the run's next turn
-- `stop` lists claims (see loose_claims).
--
-- A sender has one message on its way, so its last number tells all that it has sent. That is remembered for longer
-- than a client sends a message again whose answer was lost.
local REMEMBERED_MS = 600000
local name, outcome, token = ARGV[1], ARGV[2], ARGV[3]
local sender, number = string.match(token, '^(.*)%.(%d+)$')
local mark = CHANNELS .. '/s/' .. sender
local f = redis.call('HMGET', RUN, 'state', 'open')
if not f[1] then return { 'unknown' } end
local last, decided_then = string.match(redis.call('GET', mark) or '', '^(%d+)|(.*)$')
if last and tonumber(number) <= tonumber(last) then
  if decided_then == '' or number ~= last then return { 'accepted', '0', 'recorded', {}, {} } end
  return { 'accepted', decided_then, 'decided', loose_claims(decided_then), {} }
end
if FINAL[f[1]] then return { 'late' } end
local now, n = now_ms(), f[2]
local join = JOINS .. n

-- The first part that still waits for a message of this channel. (If there is one, nothing is unread.)
local function waiting_part()
  local waiting = n ~= '' and redis.call('HGET', join, 'q:' .. name) or ''
  while waiting ~= '' do
    local p, rest = string.match(waiting, '^(%d+),?(.*)$')
    waiting = rest
    if redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 0 then return p, rest end
  end
end

local p, rest = waiting_part()
local decided, stop = false, {}
if p then
  redis.call('HSET', join, 'q:' .. name, rest)
  step_is(n, p, 'done', '1', '', int(now))
  event('message.received', name)
  decided, stop = end_part(n, p, outcome, token, now)
else
  redis.call('RPUSH', CHANNELS .. '/q/' .. name, outcome)
  redis.call('SADD', CHANNELS, name)
end
redis.call('SET', mark, number .. '|' .. (decided and n or ''), 'PX', REMEMBERED_MS)
return { 'accepted', n == '' and '0' or n, decided and 'decided' or 'recorded', stop, {} }
