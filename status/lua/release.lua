-- A claim is over although its attempt never said how it ended: its process died or was stopped.
--
-- ARGV[1] n   ARGV[2] p   ARGV[3] nonce   ARGV[4] token, or '' for a claim that nobody vouches for
-- ARGV[5] lives a part has (1 if its spec says `once`)   ARGV[6] its outcome once they are used up, in which {step},
--         {lost}, {lives} and {where} are filled in
-- ARGV[7] token of this call
--
-- Answers {none}: no such claim, or it is alive; {start, [], part}: publish it again;
--         {decided, stop, undo}, {recorded, stop, undo}: as finish does
local n, p, nonce, token, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], now_ms()
local join, np = JOINS .. n, ARGV[1] .. '.' .. ARGV[2]
local f = redis.call('HMGET', join, 'nonce', 'decided')
local claim = claim_of(join, p)
if not claim or f[1] ~= nonce then return { 'none', {}, {} } end
if token ~= '' and claim.token ~= token then return { 'none', {}, {} } end
if token == '' and tonumber(redis.call('ZSCORE', DUE, part_id(n, p)) or '0') >= tick() then return { 'none', {}, {} } end
local twin, undo, before = string.sub(p, -1) == 'u', {}, redis.call('HGET', JOURNAL, np)
local text = redis.call('HGET', join, 's' .. p)
-- Another process of it may have succeeded late: then its undo is owed already.
if f[2] and not before then before = redis.call('HGET', LATE, np) end
if not text then before = before or 'v' end -- of a batch, which forgets the parts that have ended
local spec = cjson.decode(text or '{}')
let_go(n, p, nonce)
if not twin and (f[2] or before) then
  if not before or before == 't' then undo = end_late(n, p, 'u', now) end
  if string.sub(before or '', 1, 1) ~= 'v' then
    step_is(n, p, 'stopped', redis.call('HGET', join, 'a' .. p) or '1', '', int(now))
    event('step.stopped', step_name(n, p))
  end
  return { tighten(n, ARGV[7], now) and 'decided' or 'recorded', {}, undo }
end
-- It had timed out, which was its end; it lost no life.
if redis.call('HGET', join, 't' .. p) == claim.token then return { 'recorded', {}, let_next(n, p, nonce, now) } end
if twin then spec = spec['undo'] or {} end
local lives = spec['once'] and 1 or tonumber(ARGV[5])
local lost, attempt = lose_life(n, p, claim, spec['once']), redis.call('HGET', join, 'a' .. p) or '1'
if lost < lives then
  redis.call('HDEL', join, 'r' .. p) -- what was lost before says nothing of this message
  step_is(n, p, 'waiting', attempt)
  count('x', 'claim', '')
  return { 'start', {}, start_part(n, p, now) }
end
local name, where = step_name(n, p), redis.call('HGET', join, 'd' .. p)
local outcome = fill(ARGV[6], { step = name, lost = lost, lives = lives, where = where })
step_is(n, p, 'failed', attempt, began_at(n, p), int(now))
if twin then
  redis.call('HSETNX', LATE, np, outcome)
  end_with_run(LATE)
  event('saga.undo_failed', name, 'its process died each time, on ' .. where)
  count_undo('saga.undo_failed', name)
  return { tighten(n, ARGV[7], now) and 'decided' or 'recorded', {}, {} }
end
event('step.failed', name, 'its process died each time, on ' .. where)
local decided, stop = end_part(n, p, outcome, ARGV[7], now)
return { decided and 'decided' or 'recorded', stop, decided and {} or start_next(n, now) }
