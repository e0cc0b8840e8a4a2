#!lua flags=allow-oom
-- unstage: give back what an idle worker moved aside and will not fetch, so that another one wakes.
--
-- KEYS: ready staged
-- ARGV: now
-- Returns: nothing
-- Invariants: staged is empty; the order stays.

local ready, staged = KEYS[1], KEYS[2]
while redis.call('LMOVE', staged, ready, 'RIGHT', 'LEFT') do end
