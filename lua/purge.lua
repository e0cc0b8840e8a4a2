#!lua flags=allow-oom
-- purge: delete expired records, and forget workers that have not been seen lately.
--
-- KEYS: jobs completed failed cancelled workers meta
-- ARGV: now limit seen_for_ms
-- Returns: {how many records, 1 if the queue holds nothing any more}
-- Invariants: the server's own expiry is not used, so no record is ever half there; an empty queue
--   leaves no key.

-- include: base
local jobs, completed, failed, cancelled, workers, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local limit, seen_for = tonumber(ARGV[2]), tonumber(ARGV[3])
-- include: packs

local gone = unfile_expired(limit)
local dropped = #gone
if dropped > 0 then call('HDEL', jobs, unpack(gone)) end
for _, key in ipairs({ failed, cancelled }) do
  if dropped < limit then
    gone = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, limit - dropped)
    if #gone > 0 then
      call('ZREM', key, unpack(gone))
      call('HDEL', jobs, unpack(gone))
      dropped = dropped + #gone
    end
  end
end
local seen = call('HGETALL', workers)
for i = 1, #seen, 2 do
  if sunpack('>I6', seen[i + 1]) + seen_for <= now then call('HDEL', workers, seen[i]) end
end
local empty = call('EXISTS', jobs, workers) == 0
if empty then call('DEL', meta) end
return { dropped, empty and 1 or 0 }
