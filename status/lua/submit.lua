-- Create a run and owe it its first turn, unless its id is taken.
--
-- ARGV[1] workflow           ARGV[2] input (JSON)        ARGV[3] digest of workflow and input
-- ARGV[4] token              ARGV[5] time limit, ms, or 0 ARGV[6] retention, ms
-- ARGV[7] '', or of a child: the message id of its parent's part, which is told how it ends
-- ARGV[8] the queue of its turns: whoever goes on with the run may not know its workflow
-- ARGV[9] '', or the token of an upload that is its input (see stage.lua)   ARGV[10] how many pieces that has
-- ARGV[11] the trace that it is part of (see `canvas/tracing.py`), or ''
--
-- Answers `created` (also to the same token again), `exists` (same digest), `conflict`, each with the
-- run's state. Only `created` has a turn to publish. A child that its parent has stopped before: `stopped`.
-- `unstaged`: the upload is not whole (any more), nothing was submitted.
local was = redis.call('HMGET', RUN, 'digest', 'token', 'state', 'stopped', 'tells')
if was[1] then
  if was[2] == ARGV[4] then return { 'created', was[3] } end
  if was[1] ~= ARGV[3] then return { 'conflict', was[3] } end
  if ARGV[7] ~= '' and not string.find(' ' .. (was[5] or '') .. ' ', ' ' .. ARGV[7] .. ' ', 1, true) then
    redis.call('HSET', RUN, 'tells', was[5] and (was[5] .. ' ' .. ARGV[7]) or ARGV[7])
    if FINAL[was[3]] then look_at(part_id('tell', ''), 0) end
  end
  return { 'exists', was[3] }
end
local staged, pieces = JOINS .. 'input~' .. (ARGV[9] or ''), tonumber(ARGV[10] or '0')
if pieces > 0 and redis.call('LLEN', staged) ~= pieces then return { 'unstaged', '' } end
if was[4] then -- a tombstone
  if was[4] == ARGV[7] then return { 'stopped', '' } end
  redis.call('DEL', RUN)
end
local now = now_ms()
redis.call('HSET', RUN, 'workflow', ARGV[1], 'input', ARGV[2], 'digest', ARGV[3], 'token', ARGV[4],
  'state', 'pending', 'phase', '', 'progress', '0', 'submitted_ms', int(now), 'updated_ms', int(now),
  'retention_ms', ARGV[6], 'parent', string.match(ARGV[7], '^[^~]*'), 'seen', '', 'open', '', 'gen', '0',
  'queue', ARGV[8])
redis.call('ZADD', STATES .. 'pending', int(now), RUN_ID)
if ARGV[7] ~= '' then redis.call('HSET', RUN, 'tells', ARGV[7]) end
if pieces > 0 then
  redis.call('RENAME', staged, JOINS .. 'input')
  redis.call('PERSIST', JOINS .. 'input')
end
if (ARGV[11] or '') ~= '' then redis.call('HSET', RUN, 'trace', ARGV[11]) end
look_at(RUN_ID, LOOK_TICKS)
local limit_ms = tonumber(ARGV[5])
if limit_ms > 0 then
  redis.call('HSET', RUN, 'deadline_ms', int(now + limit_ms))
  set_timer('run', '', '', '', now + limit_ms)
end
event('run.submitted', ARGV[1])
count('n', ARGV[1], '')
return { 'created', 'pending' }
