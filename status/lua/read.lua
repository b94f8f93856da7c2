-- What a turn goes by, for a process that has read some of it before. Changes nothing.
--
-- ARGV[1] the last entry of the journal that the caller has (see journal_after)
--
-- Answers {run, journal, 1 or nothing}: both [] if the run is not there; 1: of the journal, what the caller does not have.
--         Of an await that is still open there may be nothing: a turn asks for its outcomes when it is decided.
return { redis.call('HGETALL', RUN), journal_after(ARGV[1]) }
