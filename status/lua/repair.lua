-- Something is due: say what would put it back on its way, and look again after a longer wait.
--
-- ARGV[1] n, or '' for the run's turn   ARGV[2] p
-- ARGV[3] 1 if its queue can be asked what lies on it, '' if each look means to publish
--
-- Answers {none}: nothing is owed any more (the entry is gone)
--         {turn, since, workflow, first, queue}   publish a turn, if its message must be lost; first: 1 if it has had none
--         {waiting, since, queue, part}     publish `part`, if its message must be lost
--         {claimed, nonce}                  a claim that nobody vouches for: release it
--         {stop, claim}                     a child that is to be told to stop
--         {tell}                            parents that are to be told how this run ended
-- `since`, ms: no message that is wanted now was sent later, if it was sent at all; so it is lost if the queue holds
-- only younger ones. 0: a worker had it and could not run it.
local SENT_WITHIN_MS = 1000 -- of being recorded; what takes longer may be sent twice
local n, p = ARGV[1], ARGV[2]
local member = n == '' and RUN_ID or part_id(n, p)
local score = redis.call('ZSCORE', DUE, member)
if not score or tonumber(score) > tick() then return { 'none' } end
local state = redis.call('HGET', RUN, 'state')
if not state or (FINAL[state] and n == '') then
  redis.call('ZREM', DUE, member)
  return { 'none' }
end

-- It was sent soon after it was recorded. (Who has sent it again knows that by himself.)
local function since(gone)
  if gone then return '0' end
  return int(math.min(tonumber(redis.call('HGET', RUN, 'updated_ms')) + SENT_WITHIN_MS, now_ms()))
end

-- What may only wait its turn is looked at again: of a few soon, of a backlog rarely, so that looking costs the
-- shard about as much in either case. Where looking means publishing, each wait is twice the last.
local function look_again(waits, publishes)
  if ARGV[3] == '1' and not publishes then
    look_at(member, math.min(2 ^ waits, 64, math.max(2, math.floor(redis.call('ZCARD', DUE) / 16))))
  else
    look_at(member, math.min(2 ^ (waits + 1), 64))
  end
end

if n == '' then
  local gone = redis.call('HDEL', RUN, 'gone') == 1
  look_again(redis.call('HINCRBY', RUN, 'waits', 1), gone)
  local f = redis.call('HMGET', RUN, 'workflow', 'queue')
  return { 'turn', since(gone), f[1], state == 'pending' and '1' or '', f[2] or '' }
end
if n == 'tell' then
  look_again(redis.call('HINCRBY', RUN, 'waits', 1), true)
  return { 'tell' }
end
local child = string.match(p, '^(%d+)c$')
if child then
  local claim = claim_of(JOINS .. n, child)
  if not claim then
    redis.call('ZREM', DUE, member)
    return { 'none' }
  end
  look_again(redis.call('HINCRBY', JOINS .. n, 'r' .. p, 1), true)
  return { 'stop', { child, claim.token, claim.where, claim.interruptible } }
end
local f = redis.call('HMGET', JOINS .. n, 'nonce', 'c' .. p, 's' .. p, 'a' .. p)
-- (A part of a batch that has ended has no spec any more, but perhaps a claim that outlives it.)
if not f[1] or not (f[2] or f[3]) then
  redis.call('ZREM', DUE, member)
  return { 'none' }
end
if f[2] then
  if not string.find(f[2], '|>', 1, true) then return { 'claimed', f[1] } end
  -- A child that nobody has said to be there. Nobody waits for one whose part, or its join, has ended.
  if redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 1 or redis.call('HEXISTS', JOURNAL, n) == 1 then
    redis.call('ZREM', DUE, member)
    return { 'none' }
  end
end
local undoes = string.match(p, '^(%d+)u$')
local queue = string.match(redis.call('HGET', STEPS, n .. '.' .. p) or '', '^([^|]*)|')
local gone = redis.call('HDEL', JOINS .. n, 'g' .. p) == 1
look_again(redis.call('HINCRBY', JOINS .. n, 'r' .. p, 1), gone or string.sub(queue or '', 1, 1) == '>')
return { 'waiting', since(gone), queue, { p, f[4] or '1', f[3], f[1], undoes and redis.call('HGET', LATE, n .. '.' .. undoes) or '' } }
