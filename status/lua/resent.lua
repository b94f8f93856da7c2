-- The message of something due was lost and has been sent again: counted, and nothing else. Not by a token: one whose
-- answer is lost may be counted twice, which harms nobody.
--
-- ARGV[1] what it was: turn or message
--
-- Answers {}.
count('x', ARGV[1], '')
return {}
