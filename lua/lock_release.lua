#!lua flags=allow-oom
-- lock_release: give a lock up and wake who waits for it.
--
-- KEYS: lock
-- ARGV: now owner nonce channel
--   nonce    names the call; a repeated one has no other effect than to get the answer of the first
--   channel  a shard channel if it has the name of the key
-- Returns: 1, or 0 if the owner does not hold it
-- Invariants: the term stays, so that the next one is larger.

-- include: base
local lock = KEYS[1]
local owner, nonce, channel = ARGV[2], ARGV[3], ARGV[4]

local held = call('HMGET', lock, 'owner', 'until', 'released')
if held[3] == nonce then return 1 end
if held[1] ~= owner or tonumber(held[2]) <= now then return 0 end
call('HSET', lock, 'until', 0, 'released', nonce)
-- Never an error: the lock is free, and followers look by themselves.
redis.pcall(channel == lock and 'SPUBLISH' or 'PUBLISH', channel, '')
return 1
