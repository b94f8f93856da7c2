-- The process that had a turn is gone: its lease is over. (Whoever knows that it had died of the turn sends another.)
--
-- ARGV[1] token of the lease
--
-- Answers 1 if that was so, 0 if the run has moved on.
return prolong(ARGV[1], 0, LOOK_TICKS - 1) and 1 or 0
