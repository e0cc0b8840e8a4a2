#!lua flags=allow-oom
-- lock_acquire: take a named lock, or renew it for its holder.
--
-- KEYS: lock
-- ARGV: now owner ttl_ms
-- Returns: the term, -1 if another holds the lock
-- Invariants: terms rise with every change of hands: a term is at least the server's time in microseconds,
--   so that they rise even when the server has lost the last one.

-- include: base
local lock = KEYS[1]
local owner, ttl = ARGV[2], tonumber(ARGV[3])
local KEPT = 86400000 -- garbage collection only: a later term is larger without the entry too

local held = call('HMGET', lock, 'owner', 'term', 'until')
local valid = held[1] and tonumber(held[3]) > now
if valid and held[1] ~= owner then return -1 end
local term = valid and held[2] or string.format(WHOLE, math.max((tonumber(held[2]) or 0) + 1, us))
call('HSET', lock, 'owner', owner, 'term', term, 'until', string.format(WHOLE, now + ttl))
call('PEXPIRE', lock, string.format(WHOLE, ttl + KEPT))
return term
