#!lua flags=no-writes,allow-oom
-- lock_holder: who holds a lock.
--
-- KEYS: lock
-- ARGV: now
-- Returns: {owner, term, until}, empty if it is free
-- Invariants: reads only.

-- include: base
local held = call('HMGET', KEYS[1], 'owner', 'term', 'until')
if not held[1] or tonumber(held[3]) <= now then return {} end
return held
