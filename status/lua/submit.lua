-- Create a run and owe it its first turn, unless its id is taken.
--
-- ARGV[1] workflow           ARGV[2] input (JSON)        ARGV[3] digest of workflow and input
-- ARGV[4] token              ARGV[5] time limit, ms, or 0 ARGV[6] retention, ms
-- ARGV[7] parent `run/await.part`, or ''
--
-- Answers `created` (also to the same token again), `exists` (same digest), `conflict`, each with the
-- run's state. Only `created` has a turn to publish.
local was = redis.call('HMGET', RUN, 'digest', 'token', 'state')
if was[1] then
  if was[2] == ARGV[4] then return { 'created', was[3] } end
  return { was[1] == ARGV[3] and 'exists' or 'conflict', was[3] }
end
local now = now_ms()
redis.call('HSET', RUN, 'workflow', ARGV[1], 'input', ARGV[2], 'digest', ARGV[3], 'token', ARGV[4],
  'state', 'pending', 'phase', '', 'progress', '0', 'submitted_ms', int(now), 'updated_ms', int(now),
  'retention_ms', ARGV[6], 'parent', ARGV[7], 'seen', '', 'open', '', 'gen', '0')
redis.call('ZADD', STATES .. 'pending', int(now), RUN_ID)
look_at(RUN_ID, LOOK_TICKS)
local limit_ms = tonumber(ARGV[5])
if limit_ms > 0 then
  redis.call('HSET', RUN, 'deadline_ms', int(now + limit_ms))
  set_timer('run', '', '', '', now + limit_ms)
end
event('run.submitted', ARGV[1])
return { 'created', 'pending' }
