#!lua flags=allow-oom
-- lock_renew: hold a lock for longer.
--
-- KEYS: lock
-- ARGV: now owner ttl_ms
-- Returns: 1, or 0 if the owner does not hold it
-- Invariants: owner and term do not change.

-- include: base
local lock = KEYS[1]
local owner, ttl = ARGV[2], tonumber(ARGV[3])
local KEPT = 86400000 -- garbage collection only: a later term is larger without the entry too

local held = call('HMGET', lock, 'owner', 'until')
if held[1] ~= owner or tonumber(held[2]) <= now then return 0 end
call('HSET', lock, 'until', string.format(WHOLE, now + ttl))
call('PEXPIRE', lock, string.format(WHOLE, ttl + KEPT))
return 1
