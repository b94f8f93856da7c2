-- A turn that was sent again is about to begin: the one before may have taken its process along.
--
-- ARGV[1] how many processes are known to have died of it   ARGV[2] lives a turn has
-- ARGV[3] where it begins: the worker's node name           ARGV[4] error (JSON) once they are used up, in which
--         {lost} and {where} are filled in                  ARGV[5] token, made once by this turn
--
-- Answers {begin}: take it, and if it lets the process live, drop `turns`; {given_up}: its lives are used up, the run is parked;
--         {gone}: the run is not there or has ended
-- The count belongs to where the run stands (`seen`), so that nothing need be reset when it moves on.
local f = redis.call('HMGET', RUN, 'state', 'seen', 'open', 'turns', 'error', 'entered')
if not f[1] or FINAL[f[1]] then return { 'gone' } end
if f[6] == ARGV[5] then return { 'begin' } end
if f[3] ~= '' then return { 'begin' } end -- it will open nothing
local seen, lost, places = string.match(f[4] or '', '^([^|]*)|(%d+)|(.*)$')
if seen ~= f[2] then lost, places = ARGV[1], '' end
lost = tonumber(lost)
if lost < tonumber(ARGV[2]) then
  places = places == '' and ARGV[3] or (places .. ', ' .. ARGV[3])
  redis.call('HSET', RUN, 'turns', f[2] .. '|' .. int(lost + 1) .. '|' .. places, 'entered', ARGV[5])
  return { 'begin' }
end
local error = fill(ARGV[4], { lost = int(lost), where = places })
redis.call('HSET', RUN, 'turns', f[2] .. '|' .. int(lost) .. '|' .. places, 'given_up', f[2])
look_at(RUN_ID, 2 ^ 40) -- no process more, until somebody asks for it
if f[5] ~= error then
  redis.call('HSET', RUN, 'error', error)
  if f[1] == 'pending' or f[1] == 'running' then set_state(f[1], 'suspended', now_ms()) end
  event('run.status', 'parked', error)
end
return { 'given_up' }
