-- Keep pieces of the input of a run that is about to be submitted, after those that are there. Nobody looks at them
-- before `submit` makes them the run's own; if that never comes, they go when their time is up.
--
-- ARGV[1] token of the upload   ARGV[2] how many pieces went before   ARGV[3] how long they wait for more, ms
-- then the pieces: each a JSON list of items
--
-- Answers 1: they are there, also if they were before; 0: those before are not (their time was up).
local input = JOINS .. 'input~' .. ARGV[1]
local there, before, new = redis.call('LLEN', input), tonumber(ARGV[2]), #ARGV - 3
if there ~= before and there ~= before + new then return 0 end
if there == before then
  for i = 4, #ARGV, 500 do redis.call('RPUSH', input, unpack(ARGV, i, math.min(i + 499, #ARGV))) end
end
redis.call('PEXPIRE', input, ARGV[3])
return 1
